"""Check any config of the project, and everything that it names, without running it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kyvo.common.config import build_config, read_config
from kyvo.common.errors import Problems
from kyvo.decoding import GenerationConfig, plan_generation
from kyvo.evaluation import Table, check_table
from kyvo.training import TrainingConfig, plan_training
from kyvo.training.vqgan import VQGANTrainingConfig, plan_vqgan


def validate(paths: Sequence[Path | str], overrides: Sequence[str] = ()) -> dict[str, str]:
    """The plan of every config file as text; ``overrides`` are for all of them.

    Raises:
        InputError: listing every problem of every file.
    """
    problems = Problems()
    plans = {str(path): problems.attempt(_validate, Path(path), overrides) for path in paths}
    problems.raise_any()
    return {path: str(plan) for path, plan in plans.items()}


def _validate(path: Path, overrides: Sequence[str]) -> str:
    values = read_config(path, overrides)
    # Take the kind of run that has most of the file's keys; the next line reports the wrong ones.
    kind: Any = max(_KINDS, key=lambda cls: len(values.keys() & _field_names(cls)))
    config = build_config(kind, values, f"config {path}")
    problems = Problems()
    plan = problems.attempt(_KINDS[kind], config, path, overrides)
    problems.raise_any(str(path))
    assert plan is not None
    return plan


def _field_names(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}


_KINDS: dict[type, Callable[[Any, Path, Sequence[str]], str]] = {
    TrainingConfig: lambda config, *_: plan_training(config).summary(),
    GenerationConfig: lambda config, *_: plan_generation(config).summary(),
    VQGANTrainingConfig: lambda config, *_: plan_vqgan(config).summary(),
    Table: lambda _, path, overrides: check_table(path, overrides),
}
