"""VQGAN runs that were interrupted: exact resume, refusals, signals."""

import dataclasses
import json
import os
import runpy
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vqgan_fixtures import random_images, small_run, write_images

from kyvo.common.errors import InputError
from kyvo.common.files import folder_lock
from kyvo.models import latest_checkpoint
from kyvo.training.vqgan import VQGANRecipe, VQGANTrainingConfig, train_vqgan

pytestmark = pytest.mark.usefixtures("narrow_discriminator")

ROOT = Path(__file__).parents[3]
NUM_STEPS = 20


class CrashError(Exception):
    """What an interrupted run dies of."""


def everything(folder: Path, **changes: Any) -> VQGANTrainingConfig:
    """A run with crops, Muon, a discriminator, moving averages and revivals, in all of its phases.

    12 images in batches of 4: an epoch has 3 steps.
    """
    config = small_run(folder)
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dropout=0.1, ch=8, num_groups=4),
        data=dataclasses.replace(config.data, crop_size=24, crop_candidates=2, crop_until=0.8),
        loss=dataclasses.replace(config.loss, discriminator=0.8, discriminator_start=6),
        codebook=dataclasses.replace(
            config.codebook, start_step=4, revive_below=0.5, revive_every=3
        ),
        max_steps=NUM_STEPS,
        log_every=3,
        validate_every=7,
        save_every=8,
        channels_last=True,
    )
    return dataclasses.replace(config, **changes)


def other_folder(config: VQGANTrainingConfig, folder: Path) -> VQGANTrainingConfig:
    return dataclasses.replace(config, output=folder)


@pytest.fixture(scope="module")
def straight(
    narrow_discriminator: None, tmp_path_factory: pytest.TempPathFactory
) -> VQGANTrainingConfig:
    """An uninterrupted run."""
    config = everything(tmp_path_factory.mktemp("straight"))
    train_vqgan(config)
    return config


def logged(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


def assert_same_outcome(found: Path, expected: Path) -> None:
    """Every file of two runs is equal to the byte, except for the speed in the log."""
    names = [
        sorted(str(p.relative_to(f)) for p in f.rglob("*") if p.is_file() and p.name[0] != ".")
        for f in (found, expected)
    ]
    assert names[0] == names[1]
    assert logged(found) == logged(expected)
    for name in names[0]:
        if name not in ("metrics.jsonl", "small/checkpoints/last.ckpt"):
            assert (found / name).read_bytes() == (expected / name).read_bytes(), name


def stop_after(patches: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Send a signal once ``step`` steps are done."""
    after_step = VQGANRecipe._after_step

    def then_signal(self: VQGANRecipe, *arguments: Any) -> None:
        after_step(self, *arguments)
        if self.step == step:
            os.kill(os.getpid(), number)

    patches.setattr(VQGANRecipe, "_after_step", then_signal)


@pytest.mark.parametrize(
    ("step", "num_workers"),
    [
        *((step, 0) for step in (1, 3, 4, 8, 11, NUM_STEPS)),
        # Workers read ahead, in an epoch and over its end.
        *(pytest.param(step, 2, marks=pytest.mark.slow) for step in (1, 3)),
    ],
)
def test_a_run_stopped_by_a_signal_goes_on_exactly(
    straight: VQGANTrainingConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    num_workers: int,
) -> None:
    """After the first step, an epoch, before the codebook's start, at a checkpoint, at the end."""
    data = dataclasses.replace(straight.data, num_workers=num_workers)
    config = dataclasses.replace(straight, output=tmp_path / "run", data=data)
    with monkeypatch.context() as patches:
        stop_after(patches, step)
        with pytest.raises(SystemExit) as stopped:
            train_vqgan(config)
    assert stopped.value.code == 143
    found, _ = latest_checkpoint(config.output)
    assert found is not None
    assert found.step == step
    train_vqgan(config)
    if step != 8:
        # A stop leaves one checkpoint more than the intervals make.
        keep = {"step_00000016", "step_00000020"}
        assert {path.name for path in config.output.glob("step_*")} == keep
    assert_same_outcome(config.output, straight.output)


def test_a_gradient_codebook_and_plain_adam_go_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = everything(tmp_path)
    config = dataclasses.replace(
        config,
        codebook=dataclasses.replace(config.codebook, method="gradient"),
        optimizer=dataclasses.replace(config.optimizer, muon_learning_rate=None),
        loss=dataclasses.replace(config.loss, discriminator=0.0),
        channels_last=False,
    )
    train_vqgan(config)
    other = other_folder(config, tmp_path / "run")
    with monkeypatch.context() as patches:
        stop_after(patches, 10, signal.SIGINT)
        with pytest.raises(SystemExit) as stopped:
            train_vqgan(other)
    assert stopped.value.code == 130
    train_vqgan(other)
    assert_same_outcome(other.output, config.output)


@pytest.mark.parametrize(
    ("method", "step"),
    [("_update", 0), ("_update", 13), ("_export", 8), ("_save", 8), ("_save", NUM_STEPS)],
)
def test_a_crashed_run_goes_on_exactly(
    straight: VQGANTrainingConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    step: int,
) -> None:
    original = getattr(VQGANRecipe, method)

    def mortal(self: VQGANRecipe, *arguments: Any) -> Any:
        if self.step == step:
            raise CrashError
        return original(self, *arguments)

    config = other_folder(straight, tmp_path / "run")
    with monkeypatch.context() as patches:
        patches.setattr(VQGANRecipe, method, mortal)
        with pytest.raises(CrashError):
            train_vqgan(config)
    train_vqgan(config)
    assert_same_outcome(config.output, straight.output)


def test_a_finished_run_is_left_as_it_is(
    straight: VQGANTrainingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [p for p in straight.output.rglob("*") if p.is_file() and p.name != ".lock"]
    before = {path: path.stat().st_mtime_ns for path in files}
    model = train_vqgan(straight)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert "done: this run finished after step 20" in capsys.readouterr().out
    codebook = np.load(straight.output / "codebook.npy")
    assert np.array_equal(model.codebook.detach().numpy(), codebook)


def test_another_run_is_refused_with_both_values(straight: VQGANTrainingConfig) -> None:
    before = logged(straight.output)
    rates = dataclasses.replace(straight.optimizer, learning_rate=0.5)
    other = dataclasses.replace(straight, max_steps=30, seed=9, optimizer=rates)
    with pytest.raises(InputError, match="made by a run with another setup") as refused:
        train_vqgan(other)
    for difference in (
        "max_steps: then '20', now '30'",
        "seed: then '0', now '9'",
        "optimizer.learning_rate: then '0.001', now '0.5'",
    ):
        assert difference in str(refused.value)
    assert logged(straight.output) == before


def test_images_count_by_what_they_are_and_not_by_where(
    straight: VQGANTrainingConfig, tmp_path: Path
) -> None:
    def with_images(count: int) -> VQGANTrainingConfig:
        folder = write_images(tmp_path / f"images-{count}", random_images(count))
        data = dataclasses.replace(straight.data, train=(folder,))
        return dataclasses.replace(straight, data=data)

    train_vqgan(with_images(16))
    with pytest.raises(InputError, match=r"data\.train: then '12 images .*, now '14 images"):
        train_vqgan(with_images(18))


def test_a_folder_with_checkpoints_is_not_started_over(straight: VQGANTrainingConfig) -> None:
    with pytest.raises(InputError, match="holds checkpoints"):
        train_vqgan(dataclasses.replace(straight, resume="never"))


def test_a_model_without_checkpoints_is_not_replaced(tmp_path: Path) -> None:
    config = everything(tmp_path)
    model = config.output / "small" / "checkpoints" / "last.ckpt"
    model.parent.mkdir(parents=True)
    model.write_text("another's")
    with pytest.raises(InputError, match="no checkpoint to go on from"):
        train_vqgan(config)
    assert model.read_text() == "another's"


def test_a_second_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    config = everything(tmp_path)
    with (
        folder_lock(config.output),
        pytest.raises(InputError, match="in use by another run"),
    ):
        train_vqgan(config)


def test_seconds_before_an_interruption_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = everything(tmp_path, max_steps=10**6, max_seconds=10.0**6)
    with monkeypatch.context() as patches:
        stop_after(patches, 2)
        patches.setattr(VQGANRecipe, "_seconds", lambda _: 1e6 - 1e-3)
        with pytest.raises(SystemExit):
            train_vqgan(config)
    train_vqgan(config)
    last, _ = latest_checkpoint(config.output)
    assert last is not None
    assert last.step == 3


def test_the_command_says_that_a_run_is_done(
    straight: VQGANTrainingConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The published config, shrunk; the command runs twice."""
    images = write_images(tmp_path / "world", random_images(8, 64))
    main = runpy.run_path(str(ROOT / "scripts/train_vqgan.py"))["main"]
    arguments = [
        "--config",
        str(ROOT / "configs/mini/vqgan.yaml"),
        f"output={tmp_path}/out",
        f"data.train=[{images}]",
        "data.validation=null",
        "data.validation_share=0.5",
        "codebook.start_step=1",
        "max_steps=2",
    ]
    main(arguments)
    assert "done" not in capsys.readouterr().out
    main(arguments)
    assert "done: this run finished after step 2" in capsys.readouterr().out


def everything_in(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_run_of_which_no_checkpoint_can_be_read_is_left_as_it_is(
    straight: VQGANTrainingConfig, tmp_path: Path
) -> None:
    config = other_folder(straight, tmp_path / "run")
    shutil.copytree(straight.output, config.output)
    for path in config.output.glob("step_*/optimizer.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    before = everything_in(config.output)
    with pytest.raises(InputError, match=r"no checkpoint in .* can be read") as caught:
        train_vqgan(config)
    assert str(caught.value).count("optimizer.safetensors is damaged") == 2
    assert f"exported last is in {config.output / config.name}" in str(caught.value)
    assert everything_in(config.output) == before


def test_nan_that_no_gradient_shows_is_not_published(
    straight: VQGANTrainingConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a moving average of the codebook."""
    config = other_folder(straight, tmp_path / "run")
    after_step = VQGANRecipe._after_step

    def poisoned(self: VQGANRecipe, *arguments: Any) -> None:
        if self.step == 16:
            self.trainer.codebook.sums_KD[3, 0] = torch.nan
        after_step(self, *arguments)

    monkeypatch.setattr(VQGANRecipe, "_after_step", poisoned)
    with pytest.raises(InputError, match=r"NaN or infinite: optimizer.safetensors: codebook-sums"):
        train_vqgan(config)
    found, skipped = latest_checkpoint(config.output)
    assert found is not None
    assert (found.step, skipped) == (8, [])
