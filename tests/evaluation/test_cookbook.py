"""Cookbooks: which runs they need, that none is made twice, and what the table says."""

from pathlib import Path

import pytest

from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.evaluation.cookbook import Cookbook, Question, Run, read_result, report, run_all, runs_of
from kyvo.training import TrainingConfig

ROOT = Path(__file__).parents[2]
BOOK = Cookbook(
    train=Path("train.yaml"),
    table=Path("table.yaml"),
    seeds=(0, 1),
    changes=("max_steps=3",),
    questions=(
        Question("Input", "Pixels or codes.", {"pixels": (), "codes": ("image=codes",)}),
        Question("Labels", "Soft or hard.", {"soft": (), "hard": ("sigma=0",)}),
    ),
)


def test_every_arm_runs_with_every_seed_and_the_reference_once() -> None:
    runs = runs_of(BOOK)
    assert [(run.changes[1:], run.seed) for run in runs] == [
        (arm, seed) for seed in (0, 1) for arm in ((), ("image=codes",), ("sigma=0",))
    ]
    assert len({run.name for run in runs}) == 6


def make_all(output: Path, fails_at: int | None = None) -> list[tuple[tuple[str, ...], int]]:
    """Run everything with a made-up value; what was trained."""
    trained: list[tuple[tuple[str, ...], int]] = []

    def train(run: Run, folder: Path) -> None:
        if len(trained) == fails_at:
            raise KeyboardInterrupt
        trained.append((run.changes, run.seed))

    def measure(run: Run, folder: Path) -> dict[str, float]:
        return {"seconds": 7.0, "jaccard": 0.5 + 0.1 * len(run.changes) + 0.2 * run.seed}

    for _ in run_all(runs_of(BOOK), output, train, measure):
        pass
    return trained


def test_a_stopped_cookbook_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make_all(tmp_path, fails_at=2)
    assert len(make_all(tmp_path)) == 4
    assert make_all(tmp_path) == []


def test_the_table_has_means_and_spreads_of_the_seeds_that_are_done(tmp_path: Path) -> None:
    make_all(tmp_path)
    results = {run: read_result(tmp_path / run.name, run) for run in runs_of(BOOK)}
    done = {run: values for run, values in results.items() if values is not None}
    del done[Run(("max_steps=3", "sigma=0"), 1)]
    text = report(BOOK, done)
    assert "| pixels | 2 | 7 | 0.7000 (0.6000 to 0.8000) |" in text
    assert "| hard | 1 | 7 | 0.7000 |" in text
    assert text.count("## ") == 2


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    make_all(tmp_path)
    run = runs_of(BOOK)[0]
    (tmp_path / run.name).rename(tmp_path / "elsewhere")
    (tmp_path / Run(("other",), 0).name).mkdir()
    with pytest.raises(InputError, match="another run"):
        read_result(tmp_path / "elsewhere", Run(("other",), 0))


def test_the_published_cookbooks_name_keys_that_exist() -> None:
    for path in ROOT.glob("configs/*/cookbook.yaml"):
        book = load_config(Cookbook, path)
        assert len(book.seeds) >= 3
        for run in runs_of(book):
            load_config(TrainingConfig, ROOT / book.train, list(run.changes))
