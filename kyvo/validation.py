"""Check any config of the project, and everything that it names, without running it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kyvo.config import load_config, read_config
from kyvo.decoding import GenerationConfig, plan_generation
from kyvo.errors import Problems
from kyvo.images.training import VQGANTrainingConfig, plan_vqgan
from kyvo.tensors import resolve_device
from kyvo.training import TrainingConfig, plan_training


def validate(paths: Sequence[Path | str], overrides: Sequence[str] = ()) -> dict[str, str]:
    """The plan of every config file as text; ``overrides`` are for all of them.

    Raises:
        InputError: listing every problem of every file.
    """
    problems = Problems()
    plans = {str(path): _validate(path, overrides, problems) for path in paths}
    problems.raise_any()
    return {path: str(summary) for path, summary in plans.items()}


def _validate(path: Path | str, overrides: Sequence[str], problems: Problems) -> str | None:
    keys = problems.attempt(read_config, path, overrides)
    if keys is None:
        return None
    # The kind of run that has most of the file's keys: what is misspelt or missing is told next.
    kind = max(
        _SUMMARIES, key=lambda cls: len(keys.keys() & {f.name for f in dataclasses.fields(cls)})
    )
    config = problems.attempt(load_config, kind, path, overrides)
    if config is None:
        return None
    own = Problems()
    summary = own.attempt(_SUMMARIES[kind], config)
    problems.messages += [f"{path}: {message}" for message in own.messages]
    return None if summary is None else str(summary)


def _training(config: TrainingConfig) -> str:
    device = resolve_device(config.device)
    return plan_training(config, device).summary(device)


def _generation(config: GenerationConfig) -> str:
    return plan_generation(config).summary()


_SUMMARIES: dict[type, Callable[[Any], str]] = {
    TrainingConfig: _training,
    GenerationConfig: _generation,
    VQGANTrainingConfig: plan_vqgan,
}
