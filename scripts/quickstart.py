"""The whole job at small scale: a world, its tokens, a model, its predictions, a report.

    make quickstart

Every stage runs the project's own commands, as configs/mini/quickstart.yaml lists them, and prints
each. A stopped run goes on with the stage that it was in; delete the folder to start anew.
"""

import argparse
import importlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kyvo.cli
from kyvo.config import load_config
from kyvo.files import read_json, write_json

CONFIG = "configs/mini/quickstart.yaml"


@dataclass(frozen=True)
class Stage:
    """One stage: what it is for, its commands, and what makes them tiny in a test."""

    name: str
    sentence: str
    commands: tuple[str, ...]
    tiny: str = ""


@dataclass(frozen=True)
class Quickstart:
    """The folder that everything goes to, and the stages in order."""

    output: Path
    stages: tuple[Stage, ...]


def run(plan: Quickstart, is_tiny: bool) -> None:
    """Run every stage that has no time in ``timings.json`` yet, and always the last."""
    record = plan.output / "timings.json"
    timings: dict[str, float] = read_json(record, "timings") if record.is_file() else {}
    for number, stage in enumerate(plan.stages, start=1):
        title = f"[{number}/{len(plan.stages)}]"
        if stage.name in timings and stage != plan.stages[-1]:
            print(f"{title} {stage.name}: done before.")
            continue
        print(f"\n{title} {stage.sentence}", flush=True)
        begun = time.perf_counter()
        for command in stage.commands:
            _run_command(f"{command} {stage.tiny}" if is_tiny else command)
        timings[stage.name] = round(time.perf_counter() - begun, 1)
        write_json(record, timings)
    print(f"\nDone in {sum(timings.values()):.0f} s. Open {plan.output}/report.html in a browser.")


def _run_command(command: str) -> None:
    print(f"$ python3 scripts/{command}", flush=True)
    script, *argv = shlex.split(command)
    importlib.import_module(script.removesuffix(".py")).main(argv)


def main(argv: Sequence[str]) -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few samples and steps: a test")
    arguments = parser.parse_args(argv)
    sys.path.insert(0, str(Path(__file__).parent))
    run(load_config(Quickstart, CONFIG), arguments.tiny)


if __name__ == "__main__":
    kyvo.cli.run(main)
