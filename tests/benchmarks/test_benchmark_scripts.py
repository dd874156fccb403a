"""The benchmark scripts at their smallest: they run, and what they count is right."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.images.codebook import save_codebook
from kyvo.images.vqgan import VQGAN
from kyvo.training.vqgan import VQGANTrainingConfig
from kyvo.world import SceneOptions, sample_scene

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
data_store, streaming, vqgan, vqgan_training, world, world_files = map(
    importlib.import_module,
    ("data_store", "streaming", "vqgan", "vqgan_training", "world", "world_files"),
)


def rows_of(main, output, *argv):
    """What a script writes, by name and unit."""
    main([*argv, "--device", "cpu", "--output", str(output)])
    rows = json.loads(output.read_text())["rows"]
    named = {(row["what"], row["unit"]): row for row in rows}
    assert len(named) == len(rows)
    return named


def flops_of(module, *inputs):
    """FLOP of a module's convolutions, counted from their shapes."""
    counted = []

    def count(layer, _, output):
        kernel = layer.kernel_size[0] * layer.kernel_size[1]
        counted.append(2 * output.numel() * layer.in_channels * kernel)

    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    module(*inputs)
    return sum(counted)


def test_vqgan_without_faster_arithmetic_changes_nothing(tmp_path):
    argv = ("--config", "mini", "--ways", "float32", "--batches", "2", "--repeats", "1")
    rows = rows_of(vqgan.main, tmp_path / "vqgan.json", *argv)
    assert rows["equal codes", "share"]["value"] == 1.0
    assert rows["images of equal codes, largest difference", "levels"]["value"] == 0.0
    assert rows["images of equal codes, PSNR", "dB"]["value"] == 100.0

    record = json.loads((tmp_path / "vqgan.json").read_text())
    decoded = rows["decode, float32, batch 2, the best", "images/s"]
    released = rows[f"decode, {vqgan.REFERENCE}", "images/s"]
    assert decoded["reference"] == released["value"] > 0
    gflop = rows["decode, matmuls of an image", "GFLOP"]["value"]
    limit = record["ceilings"]["matmul_flops_per_s"] / (gflop * 1e9)
    assert decoded["ceiling"] == pytest.approx(limit)


def test_vqgan_counts_the_flops_of_its_convolutions_and_attention():
    config = vqgan.SUBJECTS["mini"].config
    model = VQGAN(config).eval().requires_grad_(False)
    codes = torch.zeros(1, 8, 8, dtype=torch.long)
    expected = flops_of(model.post_quant_conv, model.embed_codes(codes))
    expected += flops_of(model.decoder, torch.zeros(1, config.z_channels, 8, 8))
    # The block in the middle attends: two matmuls over 64 x 64 positions and 64 channels.
    expected += 2 * (2 * 64 * 64 * 64)
    measured = vqgan.Bench(vqgan.SUBJECTS["mini"], (), torch.device("cpu"), 1)
    flops, _ = measured._reference("decode", codes.numpy())
    assert flops == expected


def test_vqgan_training_times_each_lever_beside_float32(tmp_path, monkeypatch):
    monkeypatch.setattr("kyvo.prepare.image_stream._SCENES_AT_ONCE", {"cpu": 4})
    small = ("model.ch=4", "model.resolution=16", "model.n_embed=8", "data.stream.scenes={}")
    levers = ("--levers", "float32", "bf16, channels last", "--batches", "2")
    rows = rows_of(vqgan_training.main, tmp_path / "training.json", *levers, *small)
    plain, fast = (
        rows[f"{name}, batch 2", "images/s"] for name in ("float32", "bf16, channels last")
    )
    assert plain["reference"] == fast["reference"] == plain["value"] > 0
    assert rows["images of the stream", "images/s"]["value"] > 0
    # Backward passes take twice the forward pass, but for the image's own gradient.
    gflop = rows["matmuls of a step, per image", "GFLOP"]["value"]
    config = load_config(VQGANTrainingConfig, vqgan_training.DEFAULT_CONFIG, small).model
    forward = flops_of_both_ways(VQGAN(config), torch.zeros(1, 3, 16, 16)) / 1e9
    assert 2.8 * forward < gflop <= 3.05 * forward


@pytest.mark.slow
def test_streaming_times_every_part_of_a_run(tmp_path):
    sizes = {"num_layers": 1, "embed_dim": 32, "num_heads": 1, "num_kv_heads": 1}
    small = [f"model.{name}={value}" for name, value in sizes.items()]
    save_codebook(tmp_path / "codebook.npy", np.zeros((1024, 16), np.float32))
    folders = [f"output_dir={tmp_path}/run", f"data_root={tmp_path}"]
    codebook = f"codebook={tmp_path}/codebook.npy"
    config = ("--quick", "--config", "configs/mid/train/scenes.yaml", codebook)
    plain = ("batch_size=2", "compile=false", "num_workers=0", "dataset.options.max_objects=4")
    rows = rows_of(streaming.main, tmp_path / "rows.json", *config, *folders, *small, *plain)
    whole = rows["training, all parts together", "samples/s"]["value"]
    for part in ("placing alone: rendered, encoded", "the update alone"):
        assert rows[part, "samples/s"]["value"] > whole / 2
    assert rows["the update alone", "tokens/s"]["value"] > 0
    assert rows["the update alone", "tokens/s"]["ceiling"] > 0


def flops_of_both_ways(model, images):
    features = model.features(images)
    return flops_of(model.encoder, images) + flops_of(
        model.decoder, model.post_quant_conv(features)
    )


def test_psnr_is_that_of_its_definition():
    first = np.zeros((2, 4, 4, 3))
    assert vqgan.psnr(first, first + 25.5) == pytest.approx(20.0)
    assert vqgan.psnr(first, first) == pytest.approx(100.0)


def test_operations_are_counted_by_their_numbers():
    first, second = torch.ones(6, 5), torch.ones(5)
    with world.OperationCounter() as counter:
        total = (first * second + 1).sqrt().clone().sum()
    assert total > 0
    assert counter.operations == 4 * 30


def test_rays_are_counted_by_their_kind():
    settings = world.RenderSettings(8, 2)
    scenes = {
        material: [sample_scene(i, "test", 0, SceneOptions(materials=(material,))) for i in (0, 1)]
        for material in ("rubber", "metal")
    }
    rubber = world.count_work(scenes["rubber"], settings)
    metal = world.count_work(scenes["metal"], settings)
    assert rubber.rays["camera"] == metal.rays["camera"] == 8 * 8 * 2
    assert "mirror" not in rubber.rays
    assert 0 < metal.rays["mirror"] < metal.rays["camera"]
    for work in (rubber, metal):
        traced = work.rays["camera"] + work.rays.get("mirror", 0)
        # Three lights and the sun.
        assert 0 < work.rays["shadow"] <= 4 * traced
        assert work.operations > 100 * traced


def test_world_measures_rendering_encoding_and_every_kind_of_item(tmp_path):
    argv = ["--count=1", "--items=1", "--workers=0", "--repeats=1", "--sides=64"]
    rows = rows_of(world.main, tmp_path / "world.json", *argv)
    assert rows["camera rays of an image of 64 x 64 x 2 rays", "rays"]["value"] == 64 * 64 * 2
    for task in ("scenes", "instructions", "questions", "objaworld"):
        assert rows[f"make_world, {task}, 32 x 32 x 1 rays, 0 workers", "items/s"]["value"] > 0
    assert rows["rendering, 64 x 64 x 2 rays", "images/s"]["ceiling"] is None


def test_files_of_a_world_are_measured_stage_by_stage_and_whole(tmp_path):
    argv = ["--side=16", "--items=3", "--workers=1", "--repeats=1", "--precisions=fp32"]
    rows = rows_of(world_files.main, tmp_path / "files.json", *argv)
    for stage in ("sampling scenes", "writing PNG", "reading PNG", "scenes as tokens"):
        assert rows[f"{stage}, a core, 16 x 16", "ms/item"]["value"] > 0
    assert 0 < rows["start of 1 workers", "s"]["value"] < 60
    made = rows["make_world, 16 x 16 x 2 rays, 1 workers", "items/s"]
    tokenized = rows["tokenize_world, 16 x 16, fp32, 1 workers", "items/s"]
    assert made["note"].startswith("3 items in")
    assert tokenized["note"].startswith("3 items in")


def test_encoded_images_can_be_read_again():
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    assert world.encode(noise) > noise.size
    assert world.encode(np.zeros_like(noise)) < noise.size


def test_data_store_is_compared_with_plain_json(tmp_path):
    argv = ("--entries", "20", "--repeats", "1")
    rows = rows_of(data_store.main, tmp_path / "store.json", *argv)
    plain = rows["json.load of both files", "s"]
    assert plain["reference"] is None
    for step in list(data_store.STEPS)[1:]:
        row = rows[step, "s"]
        assert row["value"] > 0
        assert row["reference"] == plain["value"]
        peak = rows[step, "MB"]
        assert peak["value"] > 5
        assert peak["reference"] == rows["json.load of both files", "MB"]["value"]


@pytest.mark.parametrize(
    ("script", "argv"),
    [
        (vqgan, ["--batches", "0"]),
        (vqgan_training, ["--batches", "0"]),
        (world, ["--count", "0"]),
        (world_files, ["--items", "0"]),
        (data_store, ["--entries", "0"]),
    ],
    ids=["vqgan", "vqgan_training", "world", "world_files", "data_store"],
)
def test_nothing_to_measure_is_refused(script, argv):
    with pytest.raises(InputError, match="expected 1 or more"):
        script.main(argv)


def test_renderers_writes_likeness_and_speed(tmp_path):
    pytest.importorskip("mitsuba")
    renderers = importlib.import_module("renderers")
    size = ["--scenes=1", "--size=16", "--tracer-samples=2", "--mitsuba-samples=4"]
    renderers.main([*size, "--json", str(tmp_path / "r.json"), "--output", str(tmp_path / "r.png")])
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    values = {(row["what"], row["unit"]): row["value"] for row in rows}
    likeness = values["tracer and Mitsuba, mean", "dB PSNR"]
    # Two renderings of one scene, not of two: those are below 15 dB.
    assert 18 < likeness < 60
    assert likeness == values["tracer and Mitsuba, least", "dB PSNR"]
    assert (tmp_path / "r.png").stat().st_size > 100
