"""The whole job at small scale: a world, its tokens, a model, its predictions, a report.

    make quickstart

Every stage runs the project's own commands, as configs/mini/quickstart.yaml lists them, and prints
each. A stopped run goes on with the stage that it was in; delete the folder to start anew.
"""

import argparse
import hashlib
import importlib
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kyvo.common.cli
from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.common.files import folder_lock, read_json, write_json

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
    record, log = plan.output / "timings.json", plan.output / "stages.json"
    timings: dict[str, float] = read_json(record, "timings") if record.is_file() else {}
    done: dict[str, str] = read_json(log, "stages") if log.is_file() else {}
    for number, stage in enumerate(plan.stages, start=1):
        title = f"[{number}/{len(plan.stages)}]"
        commands = [f"{c} {stage.tiny}" if is_tiny else c for c in stage.commands]
        identity = _identity(commands)
        if done.get(stage.name, identity) != identity:
            raise InputError(
                f"{plan.output}: its stage '{stage.name}' was made by other commands or configs. "
                "Delete the folder to start anew."
            )
        if stage.name in done and stage != plan.stages[-1]:
            print(f"{title} {stage.name}: done before.")
            continue
        print(f"\n{title} {stage.sentence}", flush=True)
        begun = time.perf_counter()
        for command in commands:
            _run_command(command)
        timings[stage.name] = round(time.perf_counter() - begun, 1)
        done[stage.name] = identity
        write_json(record, timings)
        write_json(log, done)
    print(f"\nDone in {sum(timings.values()):.0f} s. Open {plan.output}/report.html in a browser.")


def _identity(commands: Sequence[str]) -> str:
    """A hash of the commands and of the configs that they name."""
    words = [word for command in commands for word in shlex.split(command)]
    configs = [Path(word).read_text() for word in words if word.endswith(".yaml")]
    return hashlib.sha256("\n".join([*words, *configs]).encode()).hexdigest()


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
    plan = load_config(Quickstart, CONFIG)
    with folder_lock(plan.output):
        run(plan, arguments.tiny)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
