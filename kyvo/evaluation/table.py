"""The rows of an evaluation, as a yaml file lists them (``configs/llama3_2/evaluation.yaml``)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kyvo.common.config import load_config, suggest
from kyvo.common.errors import InputError, Problems
from kyvo.decoding import GenerationPlan, plan_generations
from kyvo.images.embedding_files import find_vqgan
from kyvo.metrics.registry import METRICS


@dataclass(frozen=True)
class Baseline:
    """Another method.

    Attributes:
        name: how it is called.
        value: its published value, of the row's first metric.
        predictions: file of its predictions under ``data_root``; None if there is none.
        method: who wrote them, as ``compute_jaccard_index.py`` has it.
    """

    name: str
    value: float | None = None
    predictions: Path | None = None
    method: str = "cube-rcnn"


@dataclass(frozen=True)
class Row:
    """One task on one data set.

    Attributes:
        task, data: how the row is called.
        configs: generation configs; the row's values are means over them.
        scenes, images: ground truth under the configs' ``data_root``; None: what the run writes.
        vqgan: folder of the VQGAN under ``data_root``; None: images are not decoded.
        paper: the paper's values by metric.
        baselines: other methods, beside ours.
    """

    task: str
    data: str
    configs: tuple[Path, ...]
    scenes: Path | None = None
    images: Path | None = None
    vqgan: Path | None = None
    paper: dict[str, float] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()

    def __post_init__(self) -> None:
        if not self.configs:
            raise ValueError(f"row {self.name!r} names no configs")
        for metric in self.paper.keys() - METRICS.keys():
            raise ValueError(f"paper: no metric {metric!r}; {suggest(metric, list(METRICS))}")

    @property
    def name(self) -> str:
        """Such as ``recognition, CLEVR``."""
        return f"{self.task}, {self.data}"

    def check(self, plan: GenerationPlan) -> None:
        """Refuse a row whose ground truth, rule of matching, VQGAN or baselines are missing.

        Raises:
            InputError: listing every one that is missing.
        """
        problems = Problems()
        root = plan.config.data_root
        named = (self.scenes, self.images, *(baseline.predictions for baseline in self.baselines))
        for path in filter(None, named):
            problems.attempt(_require, root / path, f"row {self.name!r}")
        if any(segment.modality == "three_d" for segment in plan.reader.task.outputs):
            problems.attempt(lambda: plan.reader.codec.schema.rule)
        if self.vqgan is not None:
            problems.attempt(find_vqgan, root / self.vqgan)
        problems.raise_any()


@dataclass(frozen=True)
class Table:
    """What an evaluation measures.

    Attributes:
        rows: one task on one data set each.
    """

    rows: tuple[Row, ...]

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("rows: expected one or more")


def load_table(path: Path) -> list[Row]:
    """The rows of a yaml file; paths of configs, which are there relative to it, as seen from here.

    Raises:
        InputError: listing every problem.
    """
    return [
        dataclasses.replace(row, configs=tuple(path.parent / config for config in row.configs))
        for row in load_config(Table, path).rows
    ]


def choose_rows(rows: Sequence[Row], only: Sequence[str]) -> list[Row]:
    """The rows whose name has one of the words of ``only`` in it; all if there are none.

    Raises:
        InputError: a word is in no row's name.
    """
    for word in only:
        if not any(word.lower() in row.name.lower() for row in rows):
            known = "; ".join(row.name for row in rows)
            raise InputError(f"no row called {word!r}; known: {known}")
    words = [word.lower() for word in only]
    return [row for row in rows if not only or any(word in row.name.lower() for word in words)]


def check_table(path: Path, overrides: Sequence[str] = ()) -> str:
    """Check every config of a table and all that its rows name, and say what it would measure.

    Raises:
        InputError: listing every problem.
    """
    rows = load_table(path)
    jobs = [(row, config) for row in rows for config in row.configs]
    plans = plan_generations((config, overrides) for _, config in jobs)
    check_rows([row for row, _ in jobs], plans)
    samples = sum(len(plan.indices) for plan in plans)
    return f"{len(rows)} rows, {len(jobs)} generation configs, {samples} samples"


def check_rows(rows: Sequence[Row], plans: Sequence[GenerationPlan]) -> None:
    """``Row.check`` of every row with its plan, all problems together."""
    problems = Problems()
    for row, plan in zip(rows, plans, strict=True):
        problems.attempt(row.check, plan)
    problems.messages = list(dict.fromkeys(problems.messages))
    problems.raise_any()


def _require(path: Path, purpose: str) -> None:
    if not path.exists():
        raise InputError(f"{purpose}: {path}: there is no such file or folder. Check the path.")
