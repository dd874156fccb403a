"""Show a world: a contact sheet of its images and words, and plots of what it holds.

python3 scripts/show_world.py --world FOLDER --split test --sheet sheet.png --plots plots.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.common.errors import InputError
from kyvo.report.world_sheets import write_contact_sheet, write_distributions


def main(argv: Sequence[str]) -> None:
    """Parse, draw, say where."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--world", type=Path, required=True, help="folder that make_world.py wrote")
    add("--split", default="test", help="split to show")
    add("--sheet", type=Path, help="PNG for the contact sheet")
    add("--plots", type=Path, help="PNG for the plots")
    add("--count", type=int, default=12, help="items of the contact sheet")
    arguments = parser.parse_args(argv)
    if arguments.sheet is None and arguments.plots is None:
        raise InputError("nothing to draw: give --sheet, --plots or both.")
    if arguments.count < 1:
        raise InputError(f"--count {arguments.count}: expected 1 or more.")
    folder = arguments.world / arguments.split
    if arguments.sheet is not None:
        write_contact_sheet(folder, arguments.sheet, arguments.count)
        print(f"contact sheet: {arguments.sheet}")
    if arguments.plots is not None:
        write_distributions(folder, arguments.plots)
        print(f"plots: {arguments.plots}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
