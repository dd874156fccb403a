"""A whole evaluation: every row of a table, for every checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from kyvo.decoding import plan_generations, run_generations
from kyvo.errors import InputError
from kyvo.evaluation.measure import Measurement, measure
from kyvo.evaluation.table import Row, choose_rows, load_table

OWN = "here"
"""Name of the column where every config brings its own checkpoint."""


@dataclass(frozen=True)
class Result:
    """A row's measurements: one list a checkpoint, one measurement a config."""

    row: Row
    measurements: dict[str, list[Measurement]]

    def figure(self, checkpoint: str, metric: str) -> float | None:
        """The mean over the row's configs; None where the metric was not measured."""
        values = [run.figures.get(metric) for run in self.measurements[checkpoint]]
        present = [value for value in values if value is not None]
        return fmean(present) if len(present) == len(values) else None

    def baseline(self, name: str, metric: str) -> float | None:
        """A baseline's figure, measured here on the same samples; None if it was not."""
        first = next(iter(self.measurements.values()))
        values = [run.baselines.get(name, {}).get(metric) for run in first]
        present = [value for value in values if value is not None]
        return fmean(present) if len(present) == len(values) else None


def evaluate(
    table: Path,
    output: Path,
    checkpoints: Sequence[Path] = (),
    only: Sequence[str] = (),
    overrides: Sequence[str] = (),
) -> list[Result]:
    """Generate, decode and measure everything; a stopped evaluation goes on where it was.

    Args:
        checkpoints: each is taken for all rows, its results go to a folder of its own under
            ``output``; none: every config's own checkpoint and folder.
        only: words of the wanted rows' names.
        overrides: ``key=value`` for every generation config.

    Raises:
        InputError: listing every problem of every config, before anything is generated.
    """
    rows = choose_rows(load_table(table), list(only))
    labels = _labels(checkpoints)
    jobs = [
        (label, row_index, path)
        for label in labels
        for row_index, (_, paths) in enumerate(rows)
        for path in paths
    ]
    plans = []
    for label, checkpoint in labels.items():
        paths = [path for name, _, path in jobs if name == label]
        own = [] if checkpoint is None else _own_overrides(checkpoint, output / label)
        plans += plan_generations(paths, [*overrides, *own])
    results = [Result(row, {label: [] for label in labels}) for row, _ in rows]
    for (label, index, _), (plan, summary) in zip(jobs, run_generations(plans), strict=True):
        result = results[index]
        result.measurements[label].append(measure(plan, summary, result.row))
    return results


def _own_overrides(checkpoint: Path, output: Path) -> list[str]:
    return [f"checkpoint={checkpoint}", f"output_dir={output}"]


def _labels(checkpoints: Sequence[Path]) -> dict[str, Path | None]:
    """A short name for every checkpoint: as much of the end of its path as tells it apart."""
    if not checkpoints:
        return {OWN: None}
    for depth in range(1, max(len(path.parts) for path in checkpoints) + 1):
        names = ["_".join(part.strip("/") for part in path.parts[-depth:]) for path in checkpoints]
        if len(set(names)) == len(names):
            return dict(zip(names, checkpoints, strict=True))
    raise InputError("--checkpoint: one stands there twice. Name each once.")
