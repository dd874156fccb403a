"""Ablations: one training and one evaluation for each arm and seed, and a table of what each gave.

A cookbook is a yaml file of questions, each with arms: names, and the keys of the training config
that they change. Runs of equal keys and seed are one run, whatever questions they answer.
"""

import hashlib
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, read_json, write_json
from kyvo.metrics.registry import METRICS

RESULT = "result.json"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        name: a heading.
        text: what is compared, and what is known about it.
        arms: keys that each changes (``key=value``), by its name; the first is the reference.
    """

    name: str
    text: str
    arms: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Cookbook:
    """Questions, and how every arm of theirs is run.

    Attributes:
        train: training config.
        table: what is measured, as for scripts/evaluate.py.
        only: rows of the table, by words of task and data; empty: all.
        changes: keys of the training config, for every arm.
        seeds: one run of each arm for each.
        questions: in the order of the report.
    """

    train: Path
    table: Path
    seeds: tuple[int, ...]
    questions: tuple[Question, ...]
    only: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.seeds or not self.questions or not all(q.arms for q in self.questions):
            raise ValueError("expected seeds, questions, and arms of each question")


@dataclass(frozen=True)
class Run:
    """One training and its evaluation.

    Attributes:
        changes: keys of the training config.
        seed: of it.
    """

    changes: tuple[str, ...]
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder: decided by what it does, not by how it is called."""
        digest = hashlib.sha256("\n".join(sorted(self.changes)).encode()).hexdigest()
        return f"{digest[:10]}-seed-{self.seed}"


Train = Callable[[Run, Path], None]
Measure = Callable[[Run, Path], Mapping[str, float]]


def runs_of(book: Cookbook) -> list[Run]:
    """All different runs, seed by seed, so that a stopped cookbook has whole comparisons."""
    arms = [book.changes + arm for question in book.questions for arm in question.arms.values()]
    return [Run(arm, seed) for seed in book.seeds for arm in dict.fromkeys(arms)]


def run_all(
    runs: Sequence[Run], output: Path, train: Train, measure: Measure
) -> Iterator[tuple[Run, Mapping[str, float]]]:
    """Make the runs that have no result yet, and give every run with its values.

    Raises:
        InputError: a folder holds a run of other keys.
    """
    for run in runs:
        folder = output / run.name
        done = read_result(folder, run)
        if done is None:
            train(run, folder)
            done = dict(measure(run, folder))
            folder.mkdir(parents=True, exist_ok=True)
            record = {"changes": list(run.changes), "seed": run.seed, "values": done}
            write_json(folder / RESULT, record)
        yield run, done


def read_result(folder: Path, run: Run) -> Mapping[str, float] | None:
    """The values of a finished run; None if it has not finished.

    Raises:
        InputError: the folder holds a run of other keys.
    """
    path = folder / RESULT
    if not path.is_file():
        return None
    record = read_json(path, "result of a run")
    if record["changes"] != list(run.changes) or record["seed"] != run.seed:
        raise InputError(f"{path}: of another run. Give another output folder.")
    values: dict[str, float] = record["values"]
    return values


def report(book: Cookbook, results: Mapping[Run, Mapping[str, float]]) -> str:
    """All questions as Markdown: each arm's mean and spread over the seeds that are done."""
    names = [
        name for name in ("seconds", *METRICS) if any(name in values for values in results.values())
    ]
    parts = [_question(book, question, results, names) for question in book.questions]
    return "\n\n".join(parts) + "\n"


def _question(
    book: Cookbook,
    question: Question,
    results: Mapping[Run, Mapping[str, float]],
    names: Sequence[str],
) -> str:
    titles = [METRICS[name].title if name in METRICS else name for name in names]
    lines = [["arm", "seeds", *titles]]
    for arm, changes in question.arms.items():
        found = [
            results[run]
            for run in (Run(book.changes + changes, seed) for seed in book.seeds)
            if run in results
        ]
        cells = [
            _cell(name, [values[name] for values in found if name in values]) for name in names
        ]
        lines.append([arm, str(len(found)), *cells])
    head, *body = ["| " + " | ".join(line) + " |" for line in lines]
    table = "\n".join([head, "|" + "---|" * len(lines[0]), *body])
    return f"## {question.name}\n\n{question.text}\n\n{table}"


def _cell(name: str, values: Sequence[float]) -> str:
    """The mean, and behind it the least and the greatest where there are several."""
    if not values:
        return ""
    form = METRICS[name].form if name in METRICS else "{:.0f}"
    mean = form.format(statistics.fmean(values))
    if len(values) == 1 or name not in METRICS:
        return mean
    return f"{mean} ({form.format(min(values))} to {form.format(max(values))})"


def write_results(book: Cookbook, results: Mapping[Run, Mapping[str, float]], path: Path) -> None:
    """Write the report."""
    with atomic_file(path) as file:
        file.write_text(f"# Cookbook\n\n{report(book, results)}")
