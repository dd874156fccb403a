"""From checkpoints to the paper's table: generation, decoding, all metrics.

    python3 scripts/evaluate.py [--checkpoint PATH ...] [--only WORD ...] [key=value ...]

Writes OUTPUT/evaluation.md and OUTPUT/evaluation.json. A stopped evaluation goes on where it was.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.evaluation import evaluate, main_table


def main(argv: Sequence[str]) -> None:
    """Parse, evaluate, print the table."""
    argv, overrides = kyvo.common.cli.split_overrides(argv)
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog=kyvo.common.cli.OVERRIDES_HELP,
    )
    add = parser.add_argument
    add(
        "--table",
        type=Path,
        default=Path("configs/llama3_2/evaluation.yaml"),
        help="what to measure",
    )
    add(
        "--checkpoint",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        help="runs' folders, checkpoint folders or files, one column each; not given: every task "
        "takes the checkpoint of its own config",
    )
    add("--only", nargs="+", action="extend", default=[], help="rows, by words of task and data")
    add("--output", type=Path, default=Path("checkpoints/evaluation"), help="folder of the report")
    arguments = parser.parse_args(argv)
    results = evaluate(
        arguments.table, arguments.output, arguments.checkpoint, arguments.only, overrides
    )
    print(main_table(results))
    print(f"report: {arguments.output / 'evaluation.md'}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
