"""Check configs and everything that they name, without running them.

    python3 scripts/validate.py CONFIG [CONFIG ...] [key=value ...]

Files, keys, ids, shapes, codebook, vocabulary, disk, GPU memory: all problems are reported at once.
Training and generation make the same checks as they start.
"""

import argparse
from collections.abc import Sequence

import kyvo.common.cli
from kyvo.plan import validate


def main(argv: Sequence[str]) -> None:
    """Parse, check, print what each run would do."""
    argv, overrides = kyvo.common.cli.split_overrides(argv)
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=kyvo.common.cli.OVERRIDES_HELP
    )
    parser.add_argument("configs", nargs="+", metavar="config", help="yaml files")
    for path, summary in validate(parser.parse_args(argv).configs, overrides).items():
        print(f"{path}: good\n{summary}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
