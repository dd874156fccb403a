"""The model that comes with the package: what its card says, on scenes that were never drawn."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import kyvo
from kyvo.common.weight_files import compact, read_safetensors
from kyvo.models import MODEL
from kyvo.models.checkpoints import ASSETS
from kyvo.world.render.tracer import render
from kyvo.world.tasks import TASKS, scene_options

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def model():
    return kyvo.load("mini", device="cpu")


def test_it_is_small_enough_to_travel():
    files = [path for path in (ASSETS / "mini").iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 32 * MEGABYTE
    assert max(path.stat().st_size for path in files) <= 16 * MEGABYTE
    assert "Jaccard" in (ASSETS / "mini/MODEL_CARD.md").read_text()


@pytest.mark.slow
def test_it_recognises_scenes_of_full_difficulty(model):
    """Drawn here, from a split and seed that no training draws."""
    items = TASKS["scenes"].sample_many(range(16), "test", 77, scene_options("scenes"))
    truth = [item.scenes[""] for item in items]
    images = render(truth, 128, 128, 2)
    found = model.recognize([Image.fromarray(image) for image in images])
    right = total = 0
    for scene, true in zip(found, truth, strict=True):
        wanted = model.schema.parse_scene(true.to_json()["objects"], "truth")
        right += matched(scene, wanted)
        total += max(len(scene.objects), len(wanted.objects))
    assert right / total > 0.93


def matched(found, wanted):
    """Objects whose words are right and whose position is within 0.1, each of the truth once."""
    left, count = list(wanted.objects), 0
    for item in found.objects:
        near = [
            other
            for other in left
            if other.words == item.words
            and np.linalg.norm(np.subtract(other.position, item.position)) < 0.1
        ]
        if near:
            left.remove(near[0])
            count += 1
    return count


def test_compact_weights_come_back_to_a_part_in_a_hundred(tmp_path):
    torch.manual_seed(0)
    weights = {
        "matrix": torch.randn(80, 70) * torch.logspace(-3, 2, 80)[:, None],
        "convolution": torch.randn(16, 32, 4, 4),
        "small": torch.randn(3, 3),
        "vector": torch.randn(9000),
        "zeros": torch.zeros(80, 80),
    }
    save_file(compact(weights), tmp_path / MODEL)
    found = read_safetensors(tmp_path / MODEL, "test")
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        rows, expected = found[name].reshape(len(value), -1), value.reshape(len(value), -1)
        assert found[name].shape == value.shape
        assert ((rows - expected).norm(dim=1) <= 0.01 * expected.norm(dim=1) + 1e-9).all(), name
    assert torch.equal(found["small"], weights["small"])
    assert torch.equal(found["vector"], weights["vector"])
    shapes = read_safetensors(tmp_path / MODEL, "test", shapes_only=True)
    assert {n: t.shape for n, t in shapes.items()} == {n: t.shape for n, t in weights.items()}
    assert (tmp_path / MODEL).stat().st_size < sum(w.nbytes for w in weights.values()) / 2
