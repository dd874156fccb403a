"""The Triton kernel's images against those that PyTorch draws on the CPU."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from kyvo.world import ClevrScene, SceneOptions, render, sample_scene
from kyvo.world.objaworld import (
    ENVIRONMENTS,
    ObjaWorldOptions,
    ObjaWorldScene,
    sample_objaworld_scene,
)
from kyvo.world.render import tracer
from kyvo.world.render.description import Renderable
from kyvo.world.render.rays import Frame
from kyvo.world.render.scene_batch import build_scene_batch

pytest.importorskip("triton")

EMPTY = ClevrScene(())


def scenes_of(count: int, seed: int = 1) -> list[ClevrScene]:
    return [sample_scene(index, "train", seed, SceneOptions()) for index in range(count)]


def homes(environment: str, count: int) -> list[ObjaWorldScene]:
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
    "scenes",
    [[*scenes_of(2), EMPTY], *(homes(environment, 1) for environment in ENVIRONMENTS)],
    ids=["clevr", *ENVIRONMENTS],
)
def test_the_kernel_interpreted_draws_what_pytorch_draws(scenes: Sequence[Renderable]) -> None:
    from kyvo.world.render.triton_tracer import trace_batch

    height, width, samples = 30, 32, 1
    device = torch.device("cpu")
    batch, frame = build_scene_batch(scenes, device), Frame(height, width, samples, 0, device)
    constants = (tracer.MAX_BOUNCES, tracer.TERMINAL_RADIANCE, tracer.RADIANCE_CLAMP)
    # One program for a whole image: the interpreter's time goes by programs.
    radiance_3GA = trace_batch(batch, frame, *constants, tile=(32, 32))
    found = tracer._encode_srgb(radiance_3GA).permute(1, 2, 0).numpy()
    expected = tracer.render(scenes, height, width, samples)
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
    found = render(scenes, 64, 64, 2, "cuda")
    assert_same_up_to_rounding(found, render(scenes, 64, 64, 2))


@pytest.mark.gpu
def test_seeds_choose_the_same_noise_as_on_the_cpu() -> None:
    scene = scenes_of(1)
    first, second = (render(scene, 48, 48, 1, "cuda", seed) for seed in (0, 1))
    assert_same_up_to_rounding(second, render(scene, 48, 48, 1, seed=1))
    assert (first != second).any()


@pytest.mark.gpu
def test_images_of_one_pixel_and_of_no_scene() -> None:
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
