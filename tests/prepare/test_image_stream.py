"""Images made while a model trains: the world's own, in an order that only their numbers decide."""

import numpy as np
import pytest
import torch

from kyvo.common.errors import InputError
from kyvo.prepare import image_stream
from kyvo.prepare.image_stream import WorldImages, world_images
from kyvo.prepare.stream import FIRST_NOISE
from kyvo.world import SceneOptions
from kyvo.world.clevr.batch_sampler import complete_scenes, sample_scenes
from kyvo.world.render.tracer import render

CPU = torch.device("cpu")
EASY = {"min_objects": 1, "max_objects": 2, "shapes": ["cube", "sphere"]}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two batches of 3 in a chunk of images, two of those in a chunk of scenes."""
    monkeypatch.setattr(image_stream, "_IMAGES_AT_ONCE", {"cpu": 8})
    monkeypatch.setattr(image_stream, "_SCENES_AT_ONCE", {"cpu": 13})


def stream(batch_size: int = 3, seed: int = 5) -> WorldImages:
    return world_images(16, batch_size, CPU, seed=seed, samples_per_pixel=2, scenes=EASY)


def expected(numbers: list[int], split: str, noise: int | None = None) -> np.ndarray:
    """The scenes one by one, through the renderer that files are written with.

    ``noise``: its seed; None: each batch of three has its own.
    """
    options = SceneOptions(min_objects=1, max_objects=2, shapes=("cube", "sphere"))
    scenes = complete_scenes(sample_scenes(numbers, split, 5, options), options)
    noises = [FIRST_NOISE + i // 3 if noise is None else noise for i in range(len(scenes))]
    images = [
        render([scene], 16, 16, 2, seed=seed) for scene, seed in zip(scenes, noises, strict=True)
    ]
    return np.concatenate(images)


def test_batches_are_the_worlds_scenes_in_order() -> None:
    images = stream()
    found = torch.cat([images.batch(number) for number in range(6)])
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), expected(list(range(18)), "train"))
    assert len(torch.unique(found, dim=0)) == 18


@pytest.mark.parametrize("number", [1, 2, 5])
def test_a_batch_depends_on_its_number_alone(number: int) -> None:
    images = stream()
    in_order = [images.batch(before).clone() for before in range(number + 1)]
    assert torch.equal(stream().batch(number), in_order[-1])
    assert torch.equal(images.batch(0), in_order[0])
    assert not torch.equal(stream(seed=6).batch(number), in_order[-1])


def test_chunks_do_not_decide_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    small = torch.cat([stream(4).batch(number) for number in range(3)])
    monkeypatch.setattr(image_stream, "_IMAGES_AT_ONCE", {"cpu": 1})
    monkeypatch.setattr(image_stream, "_SCENES_AT_ONCE", {"cpu": 1})
    assert torch.equal(torch.cat([stream(4).batch(number) for number in range(3)]), small)


def test_held_out_images_are_those_of_another_split() -> None:
    images = stream()
    held_out = images.validation(10)
    assert np.array_equal(held_out.numpy(), expected(list(range(10)), "val", noise=0))
    images.batch(3)
    assert torch.equal(images.validation(10), held_out)
    assert torch.equal(images.validation(4), held_out[:4])


def test_scenes_of_a_test_are_never_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def recorded(indices, split, *rest):
        drawn.append(split)
        return sample_scenes(indices, split, *rest)

    monkeypatch.setattr(image_stream, "sample_scenes", recorded)
    images = stream()
    for number in range(5):
        images.batch(number)
    images.validation(5)
    assert set(drawn) == {"train", "val"}


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"scenes": {"max_object": 3}}, "max_object: unknown key; did you mean 'max_objects'"),
        ({"scenes": {"shapes": ["cone"]}}, "shapes 'cone': expected one or more of"),
        ({"samples_per_pixel": 0}, "samples_per_pixel 0"),
    ],
)
def test_wrong_choices_are_refused(choice: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        world_images(16, 3, CPU, **choice)
