"""The model that comes with the package: what its card says, on scenes that were never drawn."""

from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import kyvo
from kyvo.common.weight_files import compact, read_safetensors
from kyvo.metrics import ImagePair
from kyvo.metrics.images import ssim
from kyvo.models import MODEL
from kyvo.models.checkpoints import ASSETS
from kyvo.prepare.tokenization import in_order
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


@pytest.fixture(scope="module")
def drawn():
    """Scenes and their images, from a split and seed that no training draws."""
    items = TASKS["scenes"].sample_many(range(16), "test", 77, scene_options("scenes"))
    scenes = [item.scenes[""] for item in items]
    return scenes, render(scenes, 128, 128, 2)


@pytest.mark.slow
def test_it_recognises_scenes_of_full_difficulty(model, drawn):
    truth, images = drawn
    found = model.recognize([Image.fromarray(image) for image in images])
    right = total = 0
    for scene, true in zip(found, truth, strict=True):
        wanted = near_to_far(model, true)
        right += matched(scene, wanted)
        total += max(len(scene.objects), len(wanted.objects))
    assert right / total > 0.75


@pytest.mark.slow
def test_it_draws_and_edits_what_looks_like_the_truth(model, drawn):
    """Far more than chance: the images of two scenes have an SSIM of 0.6 with each other."""
    truth, images = (part[:6] for part in drawn)
    scenes = [near_to_far(model, scene) for scene in truth]
    drawings = model.render(scenes)
    similar = [likeness(drawing, image) for drawing, image in zip(drawings, images, strict=True)]
    others = [
        likeness(drawing, image) for drawing, image in zip(drawings, images[::-1], strict=True)
    ]
    assert fmean(similar) > 0.75 > fmean(others)
    pictures = [Image.fromarray(image) for image in images]
    words = [f"Remove the {' '.join(scene.objects[0].words.values())}" for scene in scenes]
    for edited, scene in zip(model.edit(pictures, scenes, words), scenes, strict=True):
        assert edited.image is not None
        assert abs(len(edited.scene.objects) - len(scene.objects)) <= 1
    assert set(model.answer(pictures, scenes, ["Is there a sphere?"] * 6)) <= {"yes", "no"}


def likeness(drawing, image):
    return ssim(ImagePair(np.asarray(drawing), image))


def near_to_far(model, true):
    values = true.to_json()
    scene = model.schema.parse_scene(values["objects"], "truth")
    return in_order(scene, "near-to-far", values["directions"], "truth")


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
