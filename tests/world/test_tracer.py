"""Images against what is known of their scenes, and rays against a naive search."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from kyvo.common.errors import InputError
from kyvo.world import (
    COLORS,
    SHAPES,
    ClevrObject,
    ClevrScene,
    SceneOptions,
    render,
    sample_scene,
)
from kyvo.world.camera import view_axes
from kyvo.world.render import tracer
from kyvo.world.render.intersection import nearest_primitive
from kyvo.world.render.rays import Frame
from kyvo.world.render.scene_batch import build_scene_batch
from kyvo.world.render.tracer import visible_shares
from kyvo.world.viewpoints import Viewpoints

OPTIONS = SceneOptions(min_objects=2, max_objects=5)


def thing(x: float, y: float, **fields: Any) -> ClevrObject:
    return replace(ClevrObject("large", "gray", "rubber", "sphere", (x, y, 0.7)), **fields)


def scene_of(*objects: ClevrObject) -> ClevrScene:
    return ClevrScene(objects)


def marched(
    item: ClevrObject, origin: np.ndarray, direction: np.ndarray, grown: float = 0.0
) -> float:
    """Distance at which a ray enters one object, its edges ``grown``, by steps of 2 mm."""
    steps = np.arange(2, 18, 0.002)
    x, y, radius = item.position
    offset = (origin + steps[:, None] * direction - (x, y, radius)) / radius
    turn = item.rotation
    across = offset[:, 0] * math.cos(turn) + offset[:, 1] * math.sin(turn)
    along = offset[:, 1] * math.cos(turn) - offset[:, 0] * math.sin(turn)
    z = offset[:, 2]
    rim = (np.hypot(across, along) - 0.95).clip(0)
    inside = {
        "sphere": across**2 + along**2 + z**2 <= 1 + grown,
        "cylinder": np.hypot(rim, (abs(z) - 0.95).clip(0)) <= 0.05 + grown,
        "cube": sum((abs(part) - 0.9).clip(0) ** 2 for part in (across, along, z))
        <= (0.1 + grown) ** 2,
    }[item.shape]
    return float(steps[inside.argmax()]) if inside.any() else math.inf


def test_camera_rays_hit_what_a_naive_search_finds() -> None:
    scenes = [sample_scene(index, "train", 0, OPTIONS) for index in range(3)]
    batch = build_scene_batch(scenes, torch.device("cpu"))
    height, width = 14, 18
    rays = Frame(height, width, 1, 0, torch.device("cpu")).rays(batch.cameras, slice(None))
    distance, found_index = nearest_primitive(batch.primitives, rays)
    num_primitives = max(len(scene.objects) for scene in scenes)
    num_hits = num_grazed = 0
    for number, scene in enumerate(scenes):
        camera = np.array(scene.viewpoints.camera)
        right, up, forward = view_axes(camera)
        for pixel in range(height * width):
            x = (2 * (pixel % width + 0.5) / width - 1) * 16 / 35
            y = (1 - 2 * (pixel // width + 0.5) / height) * 12 / 35
            direction = forward + x * right + y * up
            direction /= np.linalg.norm(direction)
            found = [marched(item, camera, direction) for item in scene.objects]
            ray = number * height * width + pixel
            if min(found) < math.inf:
                num_hits += 1
                assert distance[ray].item() == pytest.approx(min(found), abs=0.004)
                assert found_index[ray].item() == number * num_primitives + int(np.argmin(found))
            elif found_index[ray].item() != -1:
                item = scene.objects[found_index[ray].item() - number * num_primitives]
                assert marched(item, camera, direction, grown=0.005) < math.inf
                num_grazed += 1
    assert num_hits > 30
    assert num_grazed < 3


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_appears_at_its_pixel_coordinates(shape: str) -> None:
    for index in range(3):
        scene = sample_scene(index, "train", 5, OPTIONS)
        item = replace(scene.objects[0], shape=shape, color="red", material="rubber")
        alone = replace(scene, objects=(item,))
        image = render([alone], 128, 128, 1)[0].astype(int)
        red = image[..., 0] > 1.4 * image[..., 1:].max(-1)
        assert red.sum() == pytest.approx(visible_shares(alone)[0] * 128 * 128, rel=0.1)
        row, column = (axis.mean() for axis in np.nonzero(red))
        expected = np.divide(item.pixel, 2)
        assert (column, row) == pytest.approx(expected[:2], abs=1.8)


def test_visible_shares_of_a_sphere_and_of_one_behind_another() -> None:
    front, hidden = thing(0, 0), thing(-4, 0, size="small")
    scene = ClevrScene((front, hidden), Viewpoints((10.0, 0.0, 0.7)))
    share, nothing = visible_shares(scene)
    angle = math.asin(0.7 / 10)
    area = math.pi * (math.tan(angle) * 35 / 16 / 2) ** 2 * 4 / 3
    assert share == pytest.approx(area, rel=0.05)
    assert nothing == 0


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("material", ["rubber", "metal"])
def test_colors_show(color: str, material: str) -> None:
    item = thing(0.5, -0.5, color=color, material=material)
    image = render([scene_of(item)], 48, 48, 2)[0]
    column, row = 24, 20
    patch = image[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3).mean(0)
    albedo = np.array(COLORS[color], float)
    if color == "gray":
        assert np.ptp(patch) < 25
        return
    strong = albedo > albedo.mean()
    assert patch[strong].min() > patch[~strong].max() + 10


def test_a_sphere_shades_the_ground_on_the_far_side_of_the_key_light() -> None:
    lights = ((6.0, 0.0, 4.0), (-4.0, -4.0, 0.01), (0.0, 4.0, 0.01))
    viewpoints = Viewpoints((0.1, -8.0, 8.0), lights)
    scenes = [ClevrScene(objects, viewpoints) for objects in ((), (thing(0, 0),))]
    bare, full = render(scenes, 60, 80, 4)
    darker = bare.astype(int).sum(-1) - full.astype(int).sum(-1)
    assert darker[26:36, 24:30].mean() > 30
    assert abs(darker[26:36, 54:60]).mean() < 10


def test_bytes_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [sample_scene(index, "train", 1, SceneOptions()) for index in range(5)]
    alone = np.concatenate([render([scene], 23, 31, 3) for scene in scenes])
    assert (render(scenes, 23, 31, 3) == alone).all()
    for limit in (700, 3001, 1 << 20):
        monkeypatch.setitem(tracer.RAYS_PER_PASS, "cpu", limit)
        assert (render(scenes[::-1], 23, 31, 3)[::-1] == alone).all()


def test_seed_changes_noise_only() -> None:
    scene = sample_scene(0, "train", 0, OPTIONS)
    first, second = (render([scene], 48, 48, 1, seed=seed).astype(int) for seed in (0, 1))
    difference = abs(first - second)
    assert difference.max() > 0
    assert difference.mean() < 4


def test_a_scene_without_a_world_is_seen_from_clevrs_camera() -> None:
    assert ClevrScene(()).viewpoints == Viewpoints(
        (7.48113155, -6.50763988, 5.34366512),
        (
            (6.44671, -2.90517, 4.2584),
            (-4.67112, -4.0136, 3.01122),
            (-1.1685, 2.64602, 5.81574),
        ),
    )


def test_objects_are_drawn_on_the_ground() -> None:
    exact = thing(0, 1, shape="cube", size="small", position=(0.0, 1.0, 0.35))
    floating = replace(exact, position=(0.0, 1.0, 0.9))
    first, second = render([scene_of(exact), scene_of(floating)], 32, 32, 1)
    assert (first == second).all()


def test_an_empty_scene_is_smooth_grey_ground() -> None:
    image = render([scene_of()], 32, 32, 4)[0].astype(int)
    assert np.ptp(image, axis=-1).max() < 25
    assert image.min() > 40
    assert abs(np.diff(image, axis=0)).max() < 20
    assert render([], 8, 8).shape == (0, 8, 8, 3)


def test_bad_sizes_and_devices_are_refused() -> None:
    with pytest.raises(InputError, match="height 0"):
        render([], 0, 8)
    with pytest.raises(InputError, match="abacus"):
        render([], 8, 8, device="abacus")


@pytest.mark.gpu
def test_cuda_agrees_with_cpu() -> None:
    scenes = [sample_scene(index, "train", 1, OPTIONS) for index in range(4)]
    difference = abs(render(scenes, 64, 64, 2, "cuda").astype(int) - render(scenes, 64, 64, 2))
    assert difference.mean() < 0.05
