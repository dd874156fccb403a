"""Pictures of the ObjaWorld-like world against what is known of their scenes."""

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from kyvo.common.errors import InputError
from kyvo.world.camera import project
from kyvo.world.constants import LAMPS
from kyvo.world.objaworld import (
    ENVIRONMENTS,
    MODELS,
    ObjaWorldOptions,
    render,
    sample_objaworld_scene,
    visible_shares,
)
from kyvo.world.objaworld.models import ASSETS, center_height, variant_name
from kyvo.world.objaworld.pictures import CAMERA, read_scene
from kyvo.world.render import tracer
from kyvo.world.render.geometry import FAR
from kyvo.world.render.intersection import find_surface, nearest_object
from kyvo.world.render.rays import Frame
from kyvo.world.render.scene_batch import build_stage

CLOSE = [3.3, -2.9, 2.0]
HOMES = {kind: home for home, place in ENVIRONMENTS.items() for kind in place.kinds}


def thing(asset: str, x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> dict[str, Any]:
    return {"shape": asset, "3d_coords": [x, y, center_height(asset)], "rotation": yaw}


def scene_of(*items: dict, environment: str = "park", **world: Any) -> dict[str, Any]:
    return {"environment": environment, "objects": list(items), "world": world}


def owners(scene: dict[str, Any], height: int = 60, width: int = 60) -> np.ndarray:
    """Which object each pixel shows; -1: none."""
    stage = build_stage([scene], torch.device("cpu"), read_scene)
    rays = Frame(height, width, 1, 0, torch.device("cpu")).rays(stage.cameras, slice(None))
    _, slot = nearest_object(stage.solids, rays)
    owner = torch.where(slot >= 0, stage.solids.owner_N[slot], -1)
    return owner.view(height, width).numpy()


def around(position: Any, angle: float) -> list[float]:
    x, y, z = position
    cosine, sine = math.cos(angle), math.sin(angle)
    return [cosine * x - sine * y, sine * x + cosine * y, z]


@pytest.mark.parametrize("kind", MODELS)
def test_turning_object_and_camera_together_changes_nothing(kind: str) -> None:
    asset, angle = variant_name(kind, 1), 0.8
    still = scene_of(thing(asset, 0.6, 0.2, -0.5), camera=CLOSE)
    x, y, _ = around([0.6, 0.2, 0.0], angle)
    turned = scene_of(thing(asset, x, y, angle - 0.5), camera=around(CLOSE, angle))
    wrong = scene_of(thing(asset, x, y, -angle - 0.5), camera=around(CLOSE, angle))
    first, second, third = (owners(scene) >= 0 for scene in (still, turned, wrong))
    assert first.sum() > 40
    assert (first != second).sum() <= 0.02 * first.sum()
    assert (first != third).sum() > 0.1 * first.sum()


@pytest.mark.parametrize("kind", MODELS)
def test_every_quarter_turn_looks_different(kind: str) -> None:
    scenes = [
        scene_of(
            thing(variant_name(kind, 0), yaw=turn * math.pi / 2 + 0.2),
            environment=HOMES[kind],
            camera=[5, -4.2, 2.6],
        )
        for turn in range(4)
    ]
    mask = np.any([owners(scene) >= 0 for scene in scenes], axis=0)
    pictures = [picture[mask].astype(int) for picture in render(scenes, 60, 60, 2)]
    for one in range(4):
        for other in range(one):
            change = abs(pictures[one] - pictures[other]).max(-1)
            assert (change > 25).mean() > 0.12


def test_kinds_are_told_apart_by_their_outlines() -> None:
    views = (0.3, 1.5, 2.7, 3.9)
    outlines = {
        asset: np.stack([owners(scene_of(thing(asset, yaw=v)), 48, 48) >= 0 for v in views])
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
    mask = owners(scene, 128, 128) >= 0
    row, column = (axis.mean() for axis in np.nonzero(mask))
    expected = project(CAMERA, item["3d_coords"], 128, 128)
    assert (column, row) == pytest.approx(expected[:2], abs=7)
    share = visible_shares(scene)[0]
    assert share == pytest.approx(mask.mean(), rel=0.15)
    assert share > 0.001


def test_paint_shows() -> None:
    scene = scene_of(thing("bench-01", yaw=-0.7), camera=CLOSE)
    bench = render([scene], 60, 60, 4)[0][owners(scene) >= 0].astype(int)
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
    stage = build_stage([scene_of(environment="livingroom")], torch.device("cpu"), read_scene)
    rays = Frame(32, 32, 1, 0, torch.device("cpu")).rays(stage.cameras, slice(None))
    assert find_surface(stage, rays)[0].max() < 40


def test_the_ground_is_striped_along_y_and_ends_at_the_horizon() -> None:
    stage = build_stage([scene_of()], torch.device("cpu"), read_scene)
    setting = ENVIRONMENTS["park"].setting
    rays = Frame(40, 40, 1, 0, torch.device("cpu")).rays(stage.cameras, slice(None))
    distance, surface = find_surface(stage, rays)
    seen = surface.ground_R & (distance < FAR)
    assert 800 < seen.sum() < 1600
    assert surface.point_3R[2, seen].max() <= setting.horizon
    for (x, *_), albedo in zip(surface.point_3R.T[seen], surface.albedo_3R.T[seen], strict=True):
        wanted = setting.odd if math.floor(x / setting.stripe) % 2 else setting.even
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
    told = thing("sofa-03", -0.5, 0.2, 1.0)
    predicted = {"shape": "sofa", "3d_coords": [-0.5, 0.2, 0.47, 1.0]}
    lamps = {lamp.name: list(lamp.position) for lamp in LAMPS}
    first, second = render(
        [
            scene_of(told, environment="livingroom", camera=list(CAMERA), lamps=lamps),
            scene_of(predicted, environment="livingroom"),
        ],
        32,
        32,
        1,
    )
    assert (first == second).all()


def test_the_renderer_travels_to_other_processes() -> None:
    scenes = [scene_of(thing("bird-02"))]
    assert (pickle.loads(pickle.dumps(render))(scenes, 16, 16) == render(scenes, 16, 16)).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": "bench-99"}, "'shape' is 'bench-99'.*lamppost"),
        ({"shape": None}, "'shape' is None"),
        ({"3d_coords": [0, 1]}, "'3d_coords' and 'rotation'.*4 in all"),
        ({"rotation": float("nan")}, "finite"),
    ],
)
def test_broken_objects_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"scene 1 .*object 0.*{message}"):
        render([scene_of(), scene_of(thing("bench-00") | fields)], 8, 8)


def test_broken_scenes_are_refused() -> None:
    with pytest.raises(InputError, match=r"scene 0 .*'environment' is 'moon'.*park, livingroom"):
        render([scene_of(environment="moon")], 8, 8)
    with pytest.raises(InputError, match="object 0"):
        render([scene_of() | {"objects": ["bench"]}], 8, 8)
    unturned = {"shape": "bench-00", "3d_coords": [0, 0, 0.4]}
    with pytest.raises(InputError, match="'rotation'"):
        render([scene_of(unturned)], 8, 8)
