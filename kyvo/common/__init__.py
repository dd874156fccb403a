"""What every part stands on: errors, files, configs, the command line, devices, weight files."""
