import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from vqgan_fixtures import SMALL, random_images, small_run, write_images

from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.images.checkpoint import load_vqgan
from kyvo.images.codebook import load_codebook
from kyvo.images.codec import ImageCodec
from kyvo.training.vqgan import VQGANTrainingConfig, plan_vqgan, train_vqgan
from kyvo.training.vqgan.data import busiest_crop, split_images
from kyvo.training.vqgan.recipe import VQGANRecipe

ROOT = Path(__file__).parents[3]


@pytest.fixture
def config(tmp_path: Path) -> VQGANTrainingConfig:
    return small_run(tmp_path)


def rows_of(config: VQGANTrainingConfig) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (config.output / "metrics.jsonl").open()]


def test_learns_and_writes_what_it_learnt(config: VQGANTrainingConfig) -> None:
    model = train_vqgan(config)
    rows = rows_of(config)
    steps = [row for row in rows if "loss" in row]
    validations = [row for row in rows if "val_mse" in row]
    assert [row["step"] for row in steps] == list(range(5, 41, 5))
    assert [row["step"] for row in validations] == [20, 40]
    assert steps[-1]["reconstruction"] < 0.5 * steps[0]["reconstruction"]
    assert validations[-1]["val_mse"] < validations[0]["val_mse"]
    assert validations[-1]["val_psnr"] == pytest.approx(-10 * np.log10(validations[-1]["val_mse"]))
    assert steps[0]["codebook_usage"] == 0
    assert steps[-1]["codebook_usage"] > 0.5
    assert steps[-1]["codebook_perplexity"] > 5
    assert all(row["images_per_second"] > 0 for row in steps)

    loaded = load_vqgan(config.output / "small")
    codebook = load_codebook(config.output / "codebook.npy", SMALL.n_embed, SMALL.embed_dim)
    assert np.array_equal(codebook, loaded.codebook.detach().numpy())
    codes = ImageCodec(loaded).encode(random_images(16))
    assert np.array_equal(codes, ImageCodec(model).encode(random_images(16)))
    assert len(np.unique(codes)) > 8


def test_seed_decides_the_weights(config: VQGANTrainingConfig, tmp_path: Path) -> None:
    short = dataclasses.replace(
        config,
        max_steps=14,
        model=dataclasses.replace(config.model, ch=8, num_groups=4),
        data=dataclasses.replace(config.data, crop_size=16, crop_candidates=2, crop_until=0.8),
    )
    first, again, other = (
        train_vqgan(dataclasses.replace(short, seed=seed, output=tmp_path / name)).state_dict()
        for name, seed in (("first", 0), ("again", 0), ("other", 1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["quant_conv.weight"], other["quant_conv.weight"])


def test_adversary_and_gradient_codebook(config: VQGANTrainingConfig) -> None:
    changed = dataclasses.replace(
        config,
        max_steps=8,
        log_every=1,
        loss=dataclasses.replace(config.loss, discriminator=0.8, discriminator_start=5),
        codebook=dataclasses.replace(config.codebook, method="gradient", start_step=2),
        optimizer=dataclasses.replace(config.optimizer, muon_learning_rate=None),
    )
    train_vqgan(changed)
    steps = [row for row in rows_of(changed) if "loss" in row]
    assert ["discriminator" in row for row in steps] == [False] * 5 + [True] * 3
    assert ["codebook" in row for row in steps] == [False] * 2 + [True] * 6
    assert all(row["adversarial"] != 0 for row in steps[5:])


def test_seconds_end_a_run(config: VQGANTrainingConfig) -> None:
    train_vqgan(dataclasses.replace(config, max_steps=10**6, max_seconds=1.5, log_every=1))
    steps = [row for row in rows_of(config) if "loss" in row]
    assert 1 < len(steps) < 1000
    rates = [row["learning_rate"] for row in steps]
    assert rates[-1] < max(rates)


def test_seconds_of_compilation_do_not_count(
    config: VQGANTrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first step without codes and the first one with them compile; others only learn."""
    recipe = VQGANRecipe(config)
    recipe.setup()
    recipe.config = dataclasses.replace(config, compile=True)
    now = 100.0
    monkeypatch.setattr("kyvo.training.vqgan.recipe.time.perf_counter", lambda: now)

    def update(*_: Any) -> dict[str, Tensor]:
        nonlocal now
        now += 10.0
        return {}

    monkeypatch.setattr(recipe.trainer, "update", update)
    recipe.started, counted = now, []
    start = config.codebook.start_step
    for step in (start - 1, start - 1, start, start + 1):
        recipe.step = step
        recipe._timed_update(torch.zeros(1), 0.0)
        counted.append(recipe._seconds())
    assert counted == [0.0, 10.0, 10.0, 20.0]


def test_a_loss_that_is_not_finite_stops_the_run(config: VQGANTrainingConfig) -> None:
    wild = dataclasses.replace(config.optimizer, learning_rate=1e30, muon_learning_rate=None)
    with pytest.raises(InputError, match=r"step \d: the gradient is not finite"):
        train_vqgan(dataclasses.replace(config, optimizer=wild))
    assert not (config.output / "small").exists()


def test_held_out_images_are_not_trained_on(config: VQGANTrainingConfig, tmp_path: Path) -> None:
    train, held_out = split_images(config.data, seed=0)
    assert (len(train), len(held_out)) == (12, 4)
    assert not set(train) & set(held_out)
    other = write_images(tmp_path / "other", random_images(3))
    train, held_out = split_images(dataclasses.replace(config.data, validation=other), seed=0)
    assert (len(train), len(held_out)) == (16, 3)
    with pytest.raises(InputError, match="0 to validate on"):
        split_images(dataclasses.replace(config.data, validation_share=0.0), seed=0)


def test_busiest_crop_finds_the_object() -> None:
    image = torch.zeros(3, 32, 32)
    image[:, 20:24, 4:8] = 1
    generator = torch.Generator().manual_seed(0)
    crops = [busiest_crop(image, 16, 40, generator) for _ in range(10)]
    assert all(crop.shape == (3, 16, 16) and crop.sum() == 3 * 16 for crop in crops)
    plain = [busiest_crop(image, 16, 1, generator) for _ in range(40)]
    assert any(crop.sum() == 0 for crop in plain)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"device": "cuda"}, "no CUDA device is visible"),
        ({"model": dataclasses.replace(SMALL, quantizer="gumbel", embed_dim=16)}, "Gumbel"),
    ],
)
def test_impossible_runs_are_refused(
    config: VQGANTrainingConfig,
    change: dict[str, Any],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=message):
        train_vqgan(dataclasses.replace(config, **change))


@pytest.mark.parametrize("name", ["mini/vqgan.yaml", "mid/vqgan.yaml", "vqgan/clevr.yaml"])
def test_published_configs_are_valid(name: str) -> None:
    config = load_config(VQGANTrainingConfig, ROOT / "configs" / name)
    assert config.model.quantizer == "nearest"


def test_the_streamed_tokenizer_travels_light() -> None:
    """As its comments say: the weights, and no image twice."""
    path = ROOT / "configs/mid/vqgan.yaml"
    plan = plan_vqgan(load_config(VQGANTrainingConfig, path, ["device=cpu"]))
    assert f"{plan.num_parameters:,} weights" in path.read_text()
    assert 2 * plan.num_parameters <= 5_000_000
    assert plan.config.model.codes_per_side == 16
    assert plan.config.max_steps * plan.config.batch_size == 320_000


def test_command_trains_with_the_mini_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    folder = tmp_path / "world" / "images"
    folder.mkdir(parents=True)
    for index in range(8):
        noise = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((64, 64)).save(folder / f"{index}.png")
    main = runpy.run_path(str(ROOT / "scripts/train_vqgan.py"))["main"]
    main(
        [
            "--config",
            str(ROOT / "configs/mini/vqgan.yaml"),
            f"output={tmp_path}",
            f"data.train=[{folder.parent}]",
            "data.validation=null",
            "data.validation_share=0.5",
            "codebook.start_step=1",
            "max_steps=2",
        ]
    )
    name = capsys.readouterr().out.split("model: ")[1].splitlines()[0]
    assert load_vqgan(name).config.downsampling_factor == 8
