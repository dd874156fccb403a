"""The Triton kernel's pictures against those that PyTorch draws on the CPU."""

from typing import Any

import numpy as np
import pytest
import torch

from kyvo.world import SceneOptions, render, sample_scene
from kyvo.world.objaworld import ENVIRONMENTS, ObjaWorldOptions, sample_objaworld_scene
from kyvo.world.objaworld import render as render_objaworld
from kyvo.world.objaworld.pictures import read_scene
from kyvo.world.render import tracer
from kyvo.world.render.rays import Frame
from kyvo.world.render.scene_batch import SceneReader, build_stage, read_clevr_scene

pytest.importorskip("triton")

EMPTY: dict[str, Any] = {"objects": []}


def scenes_of(count: int, seed: int = 1) -> list[dict[str, Any]]:
    return [sample_scene(index, "train", seed, SceneOptions()) for index in range(count)]


def homes(environment: str, count: int) -> list[dict[str, Any]]:
    options = ObjaWorldOptions(environment=environment)
    return [sample_objaworld_scene(index, "train", 1, options) for index in range(count)]


def assert_same_up_to_rounding(found: np.ndarray, expected: np.ndarray) -> None:
    """Levels differ by more than 1 only where a rounded ray passes an edge on its other side."""
    difference = abs(found.astype(int) - expected.astype(int))
    assert expected.std() > 5
    assert (difference > 0).mean() < 0.01
    assert (difference > 1).mean() < 0.001


@pytest.mark.slow
@pytest.mark.interpreted
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(
    ("scenes", "read"),
    [
        ([*scenes_of(2), EMPTY], read_clevr_scene),
        *((homes(environment, 1), read_scene) for environment in ENVIRONMENTS),
    ],
    ids=["clevr", *ENVIRONMENTS],
)
def test_the_kernel_interpreted_draws_what_pytorch_draws(
    scenes: list[dict[str, Any]], read: SceneReader
) -> None:
    from kyvo.world.render.triton_tracer import trace_stage

    height, width, samples = 30, 32, 1
    device = torch.device("cpu")
    stage, frame = build_stage(scenes, device, read), Frame(height, width, samples, 0, device)
    constants = (tracer.MIRRORS, tracer.MIRROR_TINT, tracer.BRIGHTEST)
    # One program for a whole picture: the interpreter's time goes by programs.
    radiance_3GA = trace_stage(stage, frame, *constants, tile=(32, 32))
    found = tracer._encode_srgb(radiance_3GA).permute(1, 2, 0).numpy()
    expected = tracer.render(scenes, height, width, samples, read=read)
    assert_same_up_to_rounding(found.reshape(expected.shape), expected)


@pytest.mark.gpu
@pytest.mark.parametrize(("height", "width", "samples"), [(64, 64, 2), (45, 61, 3), (96, 128, 1)])
def test_clevr_scenes_look_as_on_the_cpu(height: int, width: int, samples: int) -> None:
    scenes = [*scenes_of(4), EMPTY]
    size = (height, width, samples)
    assert_same_up_to_rounding(render(scenes, *size, "cuda"), render(scenes, *size))


@pytest.mark.gpu
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_objaworld_scenes_look_as_on_the_cpu(environment: str) -> None:
    scenes = homes(environment, 3)
    found = render_objaworld(scenes, 64, 64, 2, "cuda")
    assert_same_up_to_rounding(found, render_objaworld(scenes, 64, 64, 2))


@pytest.mark.gpu
def test_seeds_choose_the_same_noise_as_on_the_cpu() -> None:
    scene = scenes_of(1)
    first, second = (render(scene, 48, 48, 1, "cuda", seed) for seed in (0, 1))
    assert_same_up_to_rounding(second, render(scene, 48, 48, 1, seed=1))
    assert (first != second).any()


@pytest.mark.gpu
def test_pictures_of_one_pixel_and_of_no_scene() -> None:
    scenes = scenes_of(3)
    found = render(scenes, 1, 1, 5, "cuda").astype(int)
    assert abs(found - render(scenes, 1, 1, 5)).max() <= 1
    assert render([], 8, 8, device="cuda").shape == (0, 8, 8, 3)


@pytest.mark.gpu
def test_the_lone_empty_scene_is_smooth_ground() -> None:
    found = render([EMPTY], 32, 32, 4, "cuda").astype(int)
    assert abs(found - render([EMPTY], 32, 32, 4)).max() <= 1


@pytest.mark.gpu
def test_bytes_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [*scenes_of(5), EMPTY]
    alone = np.concatenate([render([scene], 23, 31, 3, "cuda") for scene in scenes])
    for limit in (700, 5000, 1 << 24):
        monkeypatch.setitem(tracer.RAYS_PER_PASS, "cuda", limit)
        assert (render(scenes[::-1], 23, 31, 3, "cuda")[::-1] == alone).all()
