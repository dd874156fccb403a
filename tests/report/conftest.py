import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kyvo.metrics import load_evaluation, score_images, score_scenes
from kyvo.report import ReportInputs
from kyvo.scenes import get_schema

GOLDENS = Path(__file__).parents[1] / "goldens/metrics"


@pytest.fixture(scope="session")
def flat_renderer():
    """Stands in for the tracer: an image whose brightness counts the objects."""

    def render(scenes, height, width, samples_per_pixel=1):
        shades = np.array([20 * len(scene["objects"]) for scene in scenes], np.uint8)
        return np.broadcast_to(shades[:, None, None, None], (len(scenes), height, width, 3)).copy()

    return render


def write_json(path, value):
    path.write_text(json.dumps(value))
    return path


def write_log(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def training_rows():
    steps = range(1, 401)
    rows = [{"step": s, "loss": 4 / s**0.4, "accuracy": 1 - 1 / s**0.3} for s in steps]
    checks = range(50, 401, 50)
    held_out = [{"step": s, "val_loss": 4.2 / s**0.4, "val_accuracy": 0.7} for s in checks]
    return sorted(rows + held_out, key=lambda row: row["step"])


def tokenizer_rows():
    steps = range(10, 400, 10)
    rows = [
        {"step": s, "loss": 1 / s, "l1": 0.6 / s, "codebook": 0.3 / s, "images_per_second": 90.0}
        | {"codebook_usage": 1 - 1 / s, "codebook_perplexity": 200 - 900 / s}
        for s in steps
    ]
    return [*rows, {"step": 200, "val_mse": 0.004, "val_psnr": 24.0}]


def write_images(folder, names, prefix=""):
    folder.mkdir()
    for seed, name in enumerate(names):
        pixels = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{prefix}{name}.png")
    return folder


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Inputs of a whole report, made up around the metric goldens."""
    root = tmp_path_factory.mktemp("demo")
    predictions = GOLDENS / "clevr/run_x/predicted_scenes_run_x.json"
    scenes = shutil.copytree(GOLDENS / "clevr/gt", root / "scenes")
    names = sorted(path.stem for path in scenes.glob("*.json"))
    score_scenes(load_evaluation(predictions, scenes, get_schema("clevr"))).write(root)
    images = write_images(root / "images", names)
    generated = write_images(root / "GENERATED", names[::-1], "generated_")
    score_images(generated, images).write(root)
    untrained = [{"key": f"{name}.png", "objects": [{"shape": "cube"}]} for name in names]
    return ReportInputs(
        title="A <demo> & more",
        predictions=predictions,
        untrained_predictions=write_json(root / "untrained.json", {"scenes": untrained}),
        scenes_folder=scenes,
        images_folder=images,
        generated_folder=generated,
        reconstructed_folder=write_images(root / "GROUNDTRUTH", names, "ground_truth_"),
        jaccard=root / "jaccard.json",
        similarity=root / "ssim_l2.json",
        parse_report=write_json(root / "parse.json", {"[COLOR] missing": 3}),
        training_logs=[f"recognition={write_log(root / 'metrics.jsonl', training_rows())}"],
        vqgan_log=write_log(root / "vqgan.jsonl", tokenizer_rows()),
        codes=write_json(root / "codes.json", {"a": [0, 1, 1, 3], "b": [1, 1, 0, 3]}),
        num_codes=8,
        timings=write_json(root / "timings.json", {"world": 12.3, "tokenizer": 61, "model": 90.5}),
        num_examples=3,
    )
