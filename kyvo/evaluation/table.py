"""The rows of an evaluation, as a yaml file lists them (``configs/llama3_2/evaluation.yaml``)."""

from dataclasses import dataclass, field
from pathlib import Path

from kyvo.config import load_config
from kyvo.errors import InputError, Problems
from kyvo.files import require_file


@dataclass(frozen=True)
class Baseline:
    """Another method.

    Attributes:
        figure: its published figure, of the row's first metric.
        predictions: file of its detections under ``data_root``, scored as Cube R-CNN's; None if
            there is none.
    """

    name: str
    figure: float | None = None
    predictions: Path | None = None


@dataclass(frozen=True)
class Row:
    """One task on one data set.

    Attributes:
        configs: generation configs; paths beside the table's file.
        scenes, images: ground truth under the configs' ``data_root``; None: what the run writes.
        vqgan: folder of the VQGAN under ``data_root``; None: images are not decoded.
        paper: the paper's figures by metric.
    """

    task: str
    data: str
    configs: tuple[Path, ...]
    scenes: Path | None = None
    images: Path | None = None
    vqgan: Path | None = None
    paper: dict[str, float] = field(default_factory=dict)
    baselines: tuple[Baseline, ...] = ()

    @property
    def name(self) -> str:
        """Such as ``recognition, CLEVR``."""
        return f"{self.task}, {self.data}"


@dataclass(frozen=True)
class Table:
    """All rows."""

    rows: tuple[Row, ...]


def load_table(path: Path) -> list[tuple[Row, list[Path]]]:
    """The rows of the yaml file ``path``, each with its configs' paths.

    Raises:
        InputError: listing every problem.
    """
    rows = load_config(Table, path).rows
    problems = Problems()
    found = []
    for row in rows:
        paths = [path.parent / config for config in row.configs]
        if not paths:
            problems.messages.append(f"{path}: row {row.name!r} names no configs")
        for config in paths:
            problems.attempt(require_file, config, "config")
        found.append((row, paths))
    problems.raise_any()
    return found


def choose_rows(
    rows: list[tuple[Row, list[Path]]], only: list[str]
) -> list[tuple[Row, list[Path]]]:
    """The rows whose name has one of the words of ``only`` in it; all if there are none.

    Raises:
        InputError: a word is in no row's name.
    """
    names = [row.name.lower() for row, _ in rows]
    for word in only:
        if not any(word.lower() in name for name in names):
            raise InputError(f"no row called {word!r}; known: {'; '.join(names)}")
    return [
        pair
        for pair, name in zip(rows, names, strict=True)
        if not only or any(word.lower() in name for word in only)
    ]
