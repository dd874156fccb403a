"""Ablations in one command: train and evaluate every arm of a cookbook with every seed.

    python3 scripts/cookbook.py --book configs/mini/cookbook.yaml --output cookbook [key=value ...]

Writes OUTPUT/cookbook.md after every run, and OUTPUT/RUN/result.json. A stopped cookbook goes on
where it was. For several GPUs start one process each, with --part 1/2 and --part 2/2; the last one
to end, or the same command without --part, has the whole table.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import kyvo.common.cli
from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.common.files import read_json
from kyvo.evaluation.cookbook import Cookbook, Run, read_result, run_all, runs_of, write_results
from kyvo.metrics.registry import METRICS

_COLUMN = "model"
"""Name of every run's training folder, and so of its column in the evaluation."""


class Commands:
    """The project's own commands, as a cookbook runs them."""

    def __init__(self, book: Cookbook) -> None:
        self._book = book

    def train(self, run: Run, folder: Path) -> None:
        """Train, or go on."""
        begun = time.perf_counter()
        arguments = [f"output_dir={folder / _COLUMN}", f"seed={run.seed}", *run.changes]
        print(f"\n{folder.name}: {' '.join(run.changes)}", flush=True)
        _main("full_finetune_single_device_3d", ["--config", str(self._book.train), *arguments])
        self._seconds = time.perf_counter() - begun

    def measure(self, run: Run, folder: Path) -> Mapping[str, float]:
        """Every metric of the table's rows; of rows that share a metric, the last counts."""
        output = folder / "evaluation"
        arguments = ["--table", str(self._book.table), "--output", str(output)]
        only = ["--only", *self._book.only] if self._book.only else []
        _main("evaluate", [*arguments, "--checkpoint", str(folder / _COLUMN), *only])
        values: dict[str, float] = {"seconds": self._seconds}
        for row in read_json(output / "evaluation.json", "evaluation")["rows"]:
            (found,) = row["values"].values()
            values |= {name: value for name, value in found.items() if value is not None}
        return {name: values[name] for name in ("seconds", *METRICS) if name in values}


def _main(script: str, argv: Sequence[str]) -> None:
    importlib.import_module(script).main(argv)


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise InputError(f"--part {text}: expected such as 1/2: the first of two parts.")
    return int(number), int(count)


def main(argv: Sequence[str]) -> None:
    """Parse, run, report."""
    argv, overrides = kyvo.common.cli.split_overrides(argv)
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        epilog="key=value, anywhere, changes the cookbook: seeds=[0]",
    )
    add = parser.add_argument
    add("--book", type=Path, default=Path("configs/mini/cookbook.yaml"), help="the questions")
    add("--output", type=Path, default=Path("cookbook"), help="folder of runs and report")
    add("--part", default="1/1", help="of the runs: one of several processes")
    arguments = parser.parse_args(argv)
    sys.path.insert(0, str(Path(__file__).parent))
    book = load_config(Cookbook, arguments.book, overrides)
    number, count = _part(arguments.part)
    runs, commands = runs_of(book), Commands(book)
    mine = runs[number - 1 :: count]
    for _ in run_all(mine, arguments.output, commands.train, commands.measure):
        found = {run: read_result(arguments.output / run.name, run) for run in runs}
        done = {run: values for run, values in found.items() if values is not None}
        write_results(book, done, arguments.output / "cookbook.md")
    print(f"{len(mine)} runs; report: {arguments.output / 'cookbook.md'}")


if __name__ == "__main__":
    kyvo.common.cli.run(main)
