"""What every part builds on: errors, files, configs, the command line, devices, weight files."""
