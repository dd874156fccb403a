"""Write a report of a run: images, plots and tables in one HTML file that needs nothing else."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.report import write_report
from kyvo.report.inputs import add_flags, from_flags
from kyvo.world.clevr.rendering import render_json


def main(argv: Sequence[str]) -> None:
    """Parse, write, print where."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("report.html"), help="file to write")
    add_flags(parser)
    args = parser.parse_args(argv)
    write_report(from_flags(args), args.output, render_json)
    print(f"report: {args.output.resolve()}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
