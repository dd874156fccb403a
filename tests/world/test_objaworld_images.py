"""Images of the ObjaWorld-like world against what is known of their scenes."""

import math

import numpy as np
import pytest
import torch

from kyvo.world import render
from kyvo.world.camera import project
from kyvo.world.json_values import Vector
from kyvo.world.objaworld import (
    ENVIRONMENTS,
    MODELS,
    ObjaWorldObject,
    ObjaWorldOptions,
    ObjaWorldScene,
    sample_objaworld_scene,
)
from kyvo.world.objaworld.models import ASSETS, center_height, variant_name
from kyvo.world.objaworld.scene import CAMERA
from kyvo.world.render import tracer
from kyvo.world.render.geometry import FAR
from kyvo.world.render.intersection import find_surface, nearest_primitive
from kyvo.world.render.rays import Frame
from kyvo.world.render.scene_batch import build_scene_batch
from kyvo.world.render.tracer import visible_shares
from kyvo.world.viewpoints import Viewpoints

CLOSE = (3.3, -2.9, 2.0)
HOMES = {kind: home for home, place in ENVIRONMENTS.items() for kind in place.kinds}


def thing(asset: str, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> ObjaWorldObject:
    return ObjaWorldObject(asset, (x, y, center_height(asset)), yaw)


def scene_of(
    *items: ObjaWorldObject, environment: str = "park", camera: Vector = CAMERA
) -> ObjaWorldScene:
    return ObjaWorldScene(items, environment, Viewpoints(camera))


def object_indices(scene: ObjaWorldScene, height: int = 60, width: int = 60) -> np.ndarray:
    """Which object each pixel shows; -1: none."""
    batch = build_scene_batch([scene], torch.device("cpu"))
    rays = Frame(height, width, 1, 0, torch.device("cpu")).rays(batch.cameras, slice(None))
    _, index = nearest_primitive(batch.primitives, rays)
    object_index = torch.where(index >= 0, batch.primitives.object_index_N[index], -1)
    return object_index.view(height, width).numpy()


def around(position: Vector, angle: float) -> Vector:
    x, y, z = position
    cosine, sine = math.cos(angle), math.sin(angle)
    return cosine * x - sine * y, sine * x + cosine * y, z


@pytest.mark.parametrize("kind", MODELS)
def test_turning_object_and_camera_together_changes_nothing(kind: str) -> None:
    asset, angle = variant_name(kind, 1), 0.8
    still = scene_of(thing(asset, 0.6, 0.2, -0.5), camera=CLOSE)
    x, y, _ = around((0.6, 0.2, 0.0), angle)
    turned = scene_of(thing(asset, x, y, angle - 0.5), camera=around(CLOSE, angle))
    wrong = scene_of(thing(asset, x, y, -angle - 0.5), camera=around(CLOSE, angle))
    first, second, third = (object_indices(scene) >= 0 for scene in (still, turned, wrong))
    assert first.sum() > 40
    assert (first != second).sum() <= 0.02 * first.sum()
    assert (first != third).sum() > 0.1 * first.sum()


@pytest.mark.parametrize("kind", MODELS)
def test_every_quarter_turn_looks_different(kind: str) -> None:
    scenes = [
        scene_of(
            thing(variant_name(kind, 0), yaw=turn * math.pi / 2 + 0.2),
            environment=HOMES[kind],
            camera=(5, -4.2, 2.6),
        )
        for turn in range(4)
    ]
    mask = np.any([object_indices(scene) >= 0 for scene in scenes], axis=0)
    images = [image[mask].astype(int) for image in render(scenes, 60, 60, 2)]
    for one in range(4):
        for other in range(one):
            change = abs(images[one] - images[other]).max(-1)
            assert (change > 25).mean() > 0.12


def test_kinds_differ_in_their_outlines() -> None:
    views = (0.3, 1.5, 2.7, 3.9)
    outlines = {
        asset: np.stack([object_indices(scene_of(thing(asset, yaw=v)), 48, 48) >= 0 for v in views])
        for asset in ASSETS
    }

    def overlap(one: str, other: str) -> float:
        first, second = outlines[one], outlines[other]
        return (first & second).sum() / (first | second).sum()

    for asset, (kind, _) in ASSETS.items():
        rivals = [other for other in ASSETS if ASSETS[other][0] != kind]
        relatives = [other for other in ASSETS if ASSETS[other][0] == kind and other != asset]
        assert max(overlap(asset, other) for other in relatives) > max(
            overlap(asset, other) for other in rivals
        )


@pytest.mark.parametrize("kind", MODELS)
def test_an_object_appears_at_its_place_and_is_large_enough(kind: str) -> None:
    item = thing(variant_name(kind, 0), 1.1, 0.7, 0.4)
    scene = scene_of(item)
    mask = object_indices(scene, 128, 128) >= 0
    row, column = (axis.mean() for axis in np.nonzero(mask))
    expected = project(CAMERA, item.position, 128, 128)
    assert (column, row) == pytest.approx(expected[:2], abs=7)
    share = visible_shares(scene)[0]
    assert share == pytest.approx(mask.mean(), rel=0.15)
    assert share > 0.001


def test_paint_shows() -> None:
    scene = scene_of(thing("bench-01", yaw=-0.7), camera=CLOSE)
    bench = render([scene], 60, 60, 4)[0][object_indices(scene) >= 0].astype(int)
    red = bench[:, 0] > 1.5 * bench[:, 1:].max(-1)
    assert red.mean() > 0.5


def test_park_has_grass_under_a_sky_and_the_living_room_is_closed() -> None:
    park, room = render([scene_of(environment=name) for name in ENVIRONMENTS], 64, 64, 2)
    red, green, blue = np.moveaxis(park.astype(int), -1, 0)
    assert (green[32:] > 1.4 * np.maximum(red, blue)[32:]).all()
    assert (blue[0] > 1.3 * red[0]).mean() > 0.3
    sky = park[(park == park[0, 32]).all(-1)]
    assert 64 * 4 < len(sky) < 64 * 16
    red, green, blue = np.moveaxis(room.astype(int), -1, 0)
    assert (red[40:] > 1.3 * green[40:]).all()
    assert (green[40:] > blue[40:]).all()
    assert room[:8].mean() > 1.2 * room[40:].mean()
    batch = build_scene_batch([scene_of(environment="livingroom")], torch.device("cpu"))
    rays = Frame(32, 32, 1, 0, torch.device("cpu")).rays(batch.cameras, slice(None))
    assert find_surface(batch, rays)[0].max() < 40


def test_the_ground_is_striped_along_y_and_ends_at_the_horizon() -> None:
    batch = build_scene_batch([scene_of()], torch.device("cpu"))
    environment = ENVIRONMENTS["park"].environment
    rays = Frame(40, 40, 1, 0, torch.device("cpu")).rays(batch.cameras, slice(None))
    distance, surface = find_surface(batch, rays)
    seen = surface.ground_R & (distance < FAR)
    assert 800 < seen.sum() < 1600
    assert surface.point_3R[2, seen].max() <= environment.horizon
    for (x, *_), albedo in zip(surface.point_3R.T[seen], surface.albedo_3R.T[seen], strict=True):
        wanted = environment.odd if math.floor(x / environment.stripe) % 2 else environment.even
        assert albedo.tolist() == pytest.approx(wanted)


def test_bytes_do_not_depend_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [
        sample_objaworld_scene(index, "train", 1, ObjaWorldOptions(environment=name))
        for index in range(2)
        for name in ENVIRONMENTS
    ]
    alone = np.concatenate([render([scene], 21, 29, 2) for scene in scenes])
    for limit in (700, 1 << 20):
        monkeypatch.setitem(tracer.RAYS_PER_PASS, "cpu", limit)
        assert (render(scenes[::-1], 21, 29, 2)[::-1] == alone).all()


def test_a_model_s_objects_are_drawn_like_the_assets_they_mean() -> None:
    asset = thing("sofa-03", -0.5, 0.2, 1.0)
    predicted = ObjaWorldObject("sofa", (-0.5, 0.2, 0.47), 1.0)
    scenes = [scene_of(item, environment="livingroom") for item in (asset, predicted)]
    first, second = render(scenes, 32, 32, 1)
    assert (first == second).all()
