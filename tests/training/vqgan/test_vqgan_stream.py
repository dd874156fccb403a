"""VQGAN runs on images that are made while they train."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from vqgan_fixtures import small_run

from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.images.preprocessing import to_model_range
from kyvo.prepare.image_stream import world_images
from kyvo.training.vqgan import VQGANRecipe, VQGANTrainingConfig, train_vqgan
from kyvo.training.vqgan.config import DataConfig
from kyvo.training.vqgan.step import VQGANTrainer

SCENES = {"min_objects": 1, "max_objects": 2}


@pytest.fixture
def config(tmp_path: Path) -> VQGANTrainingConfig:
    choices = {"seed": 3, "samples_per_pixel": 1, "scenes": SCENES}
    stream = Component("kyvo.prepare.image_stream.world_images", choices)
    return dataclasses.replace(
        small_run(tmp_path),
        data=DataConfig(stream=stream, validation_images=6, crop_size=16, crop_until=0.5),
        max_steps=16,
        validate_every=8,
        save_every=8,
    )


def stop_after(patches: pytest.MonkeyPatch, step: int) -> None:
    after_step = VQGANRecipe._after_step

    def then_signal(self: VQGANRecipe, *arguments: Any) -> None:
        after_step(self, *arguments)
        if self.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    patches.setattr(VQGANRecipe, "_after_step", then_signal)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


@pytest.mark.parametrize("step", [5, 10, 13])
def test_a_stopped_run_goes_on_exactly(
    config: VQGANTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Before the codebook's start, right before it, after it."""
    straight = train_vqgan(config).state_dict()
    other = dataclasses.replace(config, output=tmp_path / "stopped")
    with monkeypatch.context() as patches:
        stop_after(patches, step)
        with pytest.raises(SystemExit):
            train_vqgan(other)
    resumed = train_vqgan(other).state_dict()
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert rows_of(config.output) == rows_of(other.output)


def test_every_step_trains_on_the_next_batch(
    config: VQGANTrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.Tensor] = []
    prepare = VQGANTrainer.prepare

    def recorded(self: VQGANTrainer, images: torch.Tensor, progress: float) -> torch.Tensor:
        seen.append(images.clone())
        return prepare(self, images, progress)

    monkeypatch.setattr(VQGANTrainer, "prepare", recorded)
    no_start = dataclasses.replace(config.codebook, start_step=100)
    train_vqgan(dataclasses.replace(config, max_steps=5, codebook=no_start))
    stream = world_images(32, 4, torch.device("cpu"), 3, 1, SCENES)
    expected = torch.cat([to_model_range(stream.batch(number)) for number in range(5)])
    assert torch.equal(torch.cat(seen), expected)


def test_another_stream_is_another_run(config: VQGANTrainingConfig) -> None:
    train_vqgan(dataclasses.replace(config, max_steps=2))
    assert config.data.stream is not None
    changed = Component(config.data.stream.path, {**config.data.stream.arguments, "seed": 4})
    data = dataclasses.replace(config.data, stream=changed)
    with pytest.raises(InputError, match=r"data\.stream\.arguments\.seed: then '3', now '4'"):
        train_vqgan(dataclasses.replace(config, max_steps=2, data=data))


def test_wrong_scenes_are_refused_before_the_run(config: VQGANTrainingConfig) -> None:
    assert config.data.stream is not None
    wrong = Component(config.data.stream.path, {"scenes": {"max_object": 3}})
    data = dataclasses.replace(config.data, stream=wrong)
    with pytest.raises(InputError, match="max_object: unknown key"):
        train_vqgan(dataclasses.replace(config, data=data))
    assert not (config.output / "metrics.jsonl").exists()


def test_images_come_from_one_place(config: VQGANTrainingConfig) -> None:
    with pytest.raises(InputError, match=r"data\.train: no folder of images"):
        DataConfig()
    with pytest.raises(InputError, match=r"data\.stream makes all images itself"):
        dataclasses.replace(config.data, train=(Path("images"),))
    with pytest.raises(InputError, match=r"data\.stream makes all images itself"):
        dataclasses.replace(config.data, validation=Path("images"))
