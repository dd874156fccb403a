"""Pictures against what is known of their scenes, and rays against a naive search."""

import math

import numpy as np
import pytest
import torch

from kyvo.common.errors import InputError
from kyvo.world import COLORS, SHAPES, SceneOptions, render, sample_scene
from kyvo.world.camera import view_axes
from kyvo.world.render import tracer
from kyvo.world.render.intersection import nearest_object
from kyvo.world.render.rays import Frame
from kyvo.world.render.scene_batch import build_stage
from kyvo.world.render.tracer import visible_shares

OPTIONS = SceneOptions(min_objects=2, max_objects=5)


def thing(x: float, y: float, **fields: object) -> dict:
    words = {"size": "large", "color": "gray", "material": "rubber", "shape": "sphere"}
    return words | {"3d_coords": [x, y, 0.7], "rotation": 0.0} | fields


def marched(item: dict, origin: np.ndarray, direction: np.ndarray, grown: float = 0.0) -> float:
    """Distance at which a ray enters one object, its edges ``grown``, by steps of 2 mm."""
    steps = np.arange(2, 18, 0.002)
    x, y, radius = item["3d_coords"]
    offset = (origin + steps[:, None] * direction - (x, y, radius)) / radius
    turn = item["rotation"]
    across = offset[:, 0] * math.cos(turn) + offset[:, 1] * math.sin(turn)
    along = offset[:, 1] * math.cos(turn) - offset[:, 0] * math.sin(turn)
    z = offset[:, 2]
    rim = (np.hypot(across, along) - 0.95).clip(0)
    inside = {
        "sphere": across**2 + along**2 + z**2 <= 1 + grown,
        "cylinder": np.hypot(rim, (abs(z) - 0.95).clip(0)) <= 0.05 + grown,
        "cube": sum((abs(part) - 0.9).clip(0) ** 2 for part in (across, along, z))
        <= (0.1 + grown) ** 2,
    }[item["shape"]]
    return float(steps[inside.argmax()]) if inside.any() else math.inf


def test_camera_rays_meet_what_a_naive_search_finds() -> None:
    scenes = [sample_scene(index, "train", 0, OPTIONS) for index in range(3)]
    stage = build_stage(scenes, torch.device("cpu"))
    height, width = 14, 18
    rays = Frame(height, width, 1, 0, torch.device("cpu")).rays(stage.cameras, slice(None))
    distance, slot = nearest_object(stage.solids, rays)
    num_slots = max(len(scene["objects"]) for scene in scenes)
    num_hits = num_grazed = 0
    for number, scene in enumerate(scenes):
        camera = np.array(scene["world"]["camera"])
        right, up, forward = view_axes(camera)
        for pixel in range(height * width):
            x = (2 * (pixel % width + 0.5) / width - 1) * 16 / 35
            y = (1 - 2 * (pixel // width + 0.5) / height) * 12 / 35
            direction = forward + x * right + y * up
            direction /= np.linalg.norm(direction)
            found = [marched(item, camera, direction) for item in scene["objects"]]
            ray = number * height * width + pixel
            if min(found) < math.inf:
                num_hits += 1
                assert distance[ray].item() == pytest.approx(min(found), abs=0.004)
                assert slot[ray].item() == number * num_slots + int(np.argmin(found))
            elif slot[ray].item() != -1:
                item = scene["objects"][slot[ray].item() - number * num_slots]
                assert marched(item, camera, direction, grown=0.005) < math.inf
                num_grazed += 1
    assert num_hits > 30
    assert num_grazed < 3


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_appears_at_its_pixel_coordinates(shape: str) -> None:
    for index in range(3):
        scene = sample_scene(index, "train", 5, OPTIONS)
        item = scene["objects"][0] | {"shape": shape, "color": "red", "material": "rubber"}
        picture = render([scene | {"objects": [item]}], 128, 128, 1)[0].astype(int)
        red = picture[..., 0] > 1.4 * picture[..., 1:].max(-1)
        assert red.sum() == pytest.approx(
            visible_shares(scene | {"objects": [item]})[0] * 128 * 128, rel=0.1
        )
        row, column = (axis.mean() for axis in np.nonzero(red))
        expected = np.divide(item["pixel_coords"], 2)
        assert (column, row) == pytest.approx(expected[:2], abs=1.8)


def test_visible_shares_of_a_sphere_and_of_one_behind_another() -> None:
    camera = [10.0, 0.0, 0.7]
    front, hidden = thing(0, 0), thing(-4, 0, size="small")
    scene = {"objects": [front, hidden], "world": {"camera": camera}}
    share, nothing = visible_shares(scene)
    angle = math.asin(0.7 / 10)
    area = math.pi * (math.tan(angle) * 35 / 16 / 2) ** 2 * 4 / 3
    assert share == pytest.approx(area, rel=0.05)
    assert nothing == 0


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("material", ["rubber", "metal"])
def test_colors_show(color: str, material: str) -> None:
    item = thing(0.5, -0.5, color=color, material=material)
    picture = render([{"objects": [item]}], 48, 48, 2)[0]
    column, row = 24, 20
    patch = picture[row - 2 : row + 3, column - 2 : column + 3].reshape(-1, 3).mean(0)
    albedo = np.array(COLORS[color], float)
    if color == "gray":
        assert np.ptp(patch) < 25
        return
    strong = albedo > albedo.mean()
    assert patch[strong].min() > patch[~strong].max() + 10


def test_a_sphere_shades_the_ground_on_the_far_side_of_the_key_lamp() -> None:
    lamp = {"key": [6.0, 0.0, 4.0], "fill": [-4.0, -4.0, 0.01], "back": [0.0, 4.0, 0.01]}
    world = {"camera": [0.1, -8.0, 8.0], "lamps": lamp}
    bare, full = render([{"objects": o, "world": world} for o in ([], [thing(0, 0)])], 60, 80, 4)
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


def test_published_scene_renders_like_one_with_camera_and_lamps_in_their_places() -> None:
    item = thing(1, 1, size="small", material="metal", shape="cylinder", color="cyan")
    lamps = {
        "key": [6.44671, -2.90517, 4.2584],
        "fill": [-4.67112, -4.0136, 3.01122],
        "back": [-1.1685, 2.64602, 5.81574],
    }
    camera = [7.48113155, -6.50763988, 5.34366512]
    told = {"objects": [item], "world": {"camera": camera, "lamps": lamps}}
    bare, full = render([{"objects": [item]}, told], 40, 40, 2)
    assert (bare == full).all()


def test_predicted_objects_may_lack_rotation_and_float() -> None:
    exact = thing(0, 1, shape="cube", size="small") | {"3d_coords": [0, 1, 0.35]}
    predicted = {key: value for key, value in exact.items() if key != "rotation"}
    predicted["3d_coords"] = [0, 1, 0.9]
    first, second = render([{"objects": [exact]}, {"objects": [predicted]}], 32, 32, 1)
    assert (first == second).all()


def test_an_empty_scene_is_smooth_grey_ground() -> None:
    picture = render([{"objects": []}], 32, 32, 4)[0].astype(int)
    assert np.ptp(picture, axis=-1).max() < 25
    assert picture.min() > 40
    assert abs(np.diff(picture, axis=0)).max() < 20
    assert render([], 8, 8).shape == (0, 8, 8, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"color": "pink"}, "'color' is 'pink'.*gray"),
        ({"shape": ["cube"]}, "'shape'"),
        ({"3d_coords": [0, 1]}, "'3d_coords'.*3 in all"),
        ({"3d_coords": [0, float("nan"), 1]}, "finite"),
        ({"rotation": "much"}, "'rotation'"),
    ],
)
def test_broken_objects_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=f"scene 1 .*object 0.*{message}"):
        render([{"objects": []}, {"objects": [thing(0, 0) | fields]}], 8, 8)


@pytest.mark.parametrize(
    "world", [{"camera": [0, 0, 0]}, {"lamps": {"moon": [1, 1, 1]}}, {"camera": [1, 2]}]
)
def test_broken_worlds_are_refused(world: dict) -> None:
    with pytest.raises(InputError, match=r"scene 0 \(CLEVR_a.png\)"):
        render([{"image_filename": "CLEVR_a.png", "objects": [], "world": world}], 8, 8)


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
