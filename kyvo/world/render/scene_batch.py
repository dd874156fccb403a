"""Scenes as tensors: everything the tracer reads, checked at the door.

Shapes: G scenes, K slots of the fullest scene, one for each solid, L lamps (the sun is the last
one), N = G * K slots in all (slot = scene * K + k); a leading 3 holds x, y, z or red, green, blue.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.world.camera import view_axes
from kyvo.world.constants import (
    AMBIENT,
    CAMERA,
    COLORS,
    GROUND_ALBEDO,
    LAMPS,
    MATERIALS,
    SHAPES,
    SIZES,
    SUN,
)

Vector = tuple[float, float, float]

REACH: dict[str, Callable[[Vector], float]] = {
    "cube": lambda half: math.hypot(*half),
    "sphere": max,
    "cylinder": lambda half: math.hypot(max(half[:2]), half[2]),
}
"""Radius of the bounding sphere of a shape with these half extents."""
AREA = {"cube": 6 / math.pi, "sphere": 1.0, "cylinder": 1.5}
"""Surface area of a sharp unit shape over that of the unit sphere."""
SLACK = 1.02
"""Bounding spheres are a little too large, so that rounding never hides an object."""
NO_OWNER = -1
"""The owner of a solid that is no part of any object, such as a wall."""


@dataclass(frozen=True)
class Viewers:
    """Things that look at the origin: one camera (3, G), or lamps (3, L, G), of each scene."""

    positions: Tensor
    right: Tensor
    up: Tensor
    forward: Tensor


@dataclass(frozen=True)
class Solids:
    """The solids of all scenes: unit shapes, stretched, turned and moved.

    Attributes:
        placement_FN: F = 15 rows: the centre, half extents along the solid's own axes, and these
            three axes as unit vectors.
        shape_N: index into SHAPES.
        center_3KG: centres, once more, by slot and scene.
        reach_KG: squared radius of the bounding sphere; minus infinity marks an empty slot.
        area_KG: surface area over 4 pi (square metres, of stretched shapes roughly); 0 marks an
            empty slot or a solid without an owner, which bounces no light: walls are no balls.
        albedo_3N: linear albedo.
        metal_M: whether the surface is metal; M = N + 1, the last entry is the ground.
        owner_N: index of the scene's object that the solid is a part of, or NO_OWNER.
    """

    placement_FN: Tensor
    shape_N: Tensor
    center_3KG: Tensor
    reach_KG: Tensor
    area_KG: Tensor
    albedo_3N: Tensor
    metal_M: Tensor
    owner_N: Tensor

    @property
    def ground(self) -> int:
        """The slot that stands for the ground."""
        return self.shape_N.shape[0]


@dataclass(frozen=True)
class Surroundings:
    """The ``Setting`` of each scene: radiance (sky) and albedo in colours, the rest in metres."""

    even_3G: Tensor
    odd_3G: Tensor
    stripe_G: Tensor
    horizon_G: Tensor
    sky_3G: Tensor
    ambient_G: Tensor


@dataclass(frozen=True)
class Stage:
    """Several scenes, ready to trace."""

    cameras: Viewers
    lamps: Viewers
    solids: Solids
    surroundings: Surroundings


@dataclass(frozen=True)
class Solid:
    """One stretched, turned and moved unit shape.

    Attributes:
        shape: of SHAPES.
        center: metres.
        half: half extents along the solid's own axes (metres).
        axes: these axes, orthogonal unit vectors.
        albedo: linear RGB.
        metal: whether it is a mirror; otherwise it is diffuse.
        owner: index of the object that it is a part of.
    """

    shape: str
    center: Vector
    half: Vector
    axes: tuple[Vector, Vector, Vector]
    albedo: Vector
    metal: bool = False
    owner: int = NO_OWNER


@dataclass(frozen=True)
class Setting:
    """The ground, in stripes of two colours, and the sky; the defaults are CLEVR's.

    Attributes:
        even, odd: linear albedo of the stripes, which run along y.
        stripe: their width (metres).
        horizon: the ground ends where it rises higher than this (metres).
        sky: radiance beyond it, linear RGB.
        ambient: radiance over albedo that reaches every surface from all around.
    """

    even: Vector = (GROUND_ALBEDO, GROUND_ALBEDO, GROUND_ALBEDO)
    odd: Vector = (GROUND_ALBEDO, GROUND_ALBEDO, GROUND_ALBEDO)
    stripe: float = 1.0
    horizon: float = math.inf
    sky: Vector = (0.0, 0.0, 0.0)
    ambient: float = AMBIENT


@dataclass(frozen=True)
class SceneContent:
    """A scene as its reader understood it: positions of camera, lamps and sun, and what stands."""

    viewpoints: list[list[float]]
    solids: list[Solid]
    setting: Setting = Setting()


SceneReader = Callable[[dict[str, Any], str], SceneContent]
"""Reads a scene dict; its second argument is the scene's name in error messages."""


def read_clevr_scene(scene: dict[str, Any], name: str) -> SceneContent:
    """Read a CLEVR scene dict.

    An object's radius follows from its size and it stands on the ground, whatever its z says; a
    missing rotation is 0. Without the key "world" camera and lamps stand where CLEVR puts them.

    Raises:
        InputError: an unknown word, or a position that is not three finite numbers.
    """
    solids = [
        _clevr_solid(item, index, where)
        for index, (item, where) in enumerate(scene_objects(scene, name))
    ]
    return SceneContent(viewpoints(scene, name), solids)


def build_stage(
    scenes: Sequence[dict[str, Any]], device: torch.device, read: SceneReader = read_clevr_scene
) -> Stage:
    """Read scene dicts and lay them out for the tracer.

    Raises:
        InputError: ``read`` does not understand a scene.
    """
    contents = [
        read(scene, f"scene {index} ({scene.get('image_filename', 'no image_filename')})")
        for index, scene in enumerate(scenes)
    ]
    cameras, lamps = _viewers([content.viewpoints for content in contents], device)
    solids = _solids([content.solids for content in contents], device)
    return Stage(cameras, lamps, solids, _surroundings([c.setting for c in contents], device))


def scene_objects(scene: dict[str, Any], name: str) -> list[tuple[dict[str, Any], str]]:
    """Return the objects of a scene dict, each with its place for error messages.

    Raises:
        InputError: there is no list of objects that are dicts.
    """
    items = scene.get("objects")
    if not isinstance(items, list):
        raise InputError(f"{name}: no list under 'objects'. Expected a scene's JSON.")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise InputError(
                f"{name}, object {index}: {item!r}. Expected an object of a scene's JSON."
            )
    return [(item, f"{name}, object {index}") for index, item in enumerate(items)]


def _clevr_solid(item: dict[str, Any], index: int, where: str) -> Solid:
    x, y, _ = read_numbers(item.get("3d_coords"), 3, f"{where}, '3d_coords'")
    (rotation,) = read_numbers([item.get("rotation", 0.0)], 1, f"{where}, 'rotation'")
    radius = SIZES[read_word(item, "size", tuple(SIZES), where)]
    red, green, blue = COLORS[read_word(item, "color", tuple(COLORS), where)]
    return Solid(
        read_word(item, "shape", SHAPES, where),
        (x, y, radius),
        (radius, radius, radius),
        upright_axes(rotation),
        (red / 255, green / 255, blue / 255),
        read_word(item, "material", MATERIALS, where) == "metal",
        index,
    )


def upright_axes(yaw: float) -> tuple[Vector, Vector, Vector]:
    """Return the world's axes turned by ``yaw`` (radians) about z."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    return (cosine, sine, 0.0), (-sine, cosine, 0.0), (0.0, 0.0, 1.0)


def read_word(item: dict[str, Any], field: str, words: Sequence[str], where: str) -> str:
    """Return the word under ``field``, or raise InputError if it is none of ``words``."""
    word = item.get(field)
    if word not in words:
        raise InputError(f"{where}: '{field}' is {word!r}. Expected one of: {', '.join(words)}.")
    return str(word)


def read_numbers(value: Any, count: int, where: str) -> list[float]:
    """Return a list of ``count`` finite numbers, or raise InputError if ``value`` is none."""
    good = isinstance(value, list | tuple) and len(value) == count
    if not good or not all(isinstance(x, int | float) and math.isfinite(x) for x in value):
        raise InputError(f"{where}: {value!r}. Expected finite numbers, {count} in all.")
    return [float(x) for x in value]


def viewpoints(scene: dict[str, Any], name: str, camera: Vector = CAMERA) -> list[list[float]]:
    """Return the positions of the camera, the lamps and the sun.

    Raises:
        InputError: a position that is not three finite numbers, or a lamp that does not exist.
    """
    world = scene.get("world", {})
    lamps = world.get("lamps", {})
    unknown = set(lamps) - {lamp.name for lamp in LAMPS}
    if unknown:
        expected = ", ".join(lamp.name for lamp in LAMPS)
        raise InputError(f"{name}: unknown lamps {sorted(unknown)}. Expected some of: {expected}.")
    places = {"camera": world.get("camera", camera)}
    places |= {f"lamp {lamp.name}": lamps.get(lamp.name, lamp.position) for lamp in LAMPS}
    positions = [read_numbers(place, 3, f"{name}, {what}") for what, place in places.items()]
    if not all(map(any, positions)):
        raise InputError(f"{name}: camera and lamps look at the origin and cannot stand there.")
    return [*positions, list(SUN.position)]


def _viewers(viewpoints: list[list[list[float]]], device: torch.device) -> tuple[Viewers, Viewers]:
    positions_GV3 = np.array(viewpoints)
    fields = [
        torch.from_numpy(np.ascontiguousarray(field.transpose(2, 1, 0), dtype=np.float32))
        for field in (positions_GV3, *view_axes(positions_GV3))
    ]
    cameras = Viewers(*(field[:, 0].contiguous().to(device) for field in fields))
    return cameras, Viewers(*(field[:, 1:].contiguous().to(device) for field in fields))


def _solids(scenes: list[list[Solid]], device: torch.device) -> Solids:
    num_scenes = len(scenes)
    num_slots = max([1, *map(len, scenes)])
    num_all = num_scenes * num_slots
    placement_NF = np.zeros((num_all, 15), np.float32)
    placement_NF[:, 3:6] = 1
    shape_N = np.zeros(num_all, np.int64)
    reach_N = np.full(num_all, -np.inf, np.float32)
    area_N = np.zeros(num_all, np.float32)
    albedo_N3 = np.zeros((num_all, 3), np.float32)
    metal_M = np.zeros(num_all + 1, bool)
    owner_N = np.full(num_all, NO_OWNER, np.int64)
    for scene, solids in enumerate(scenes):
        for slot, solid in enumerate(solids, scene * num_slots):
            placement_NF[slot] = np.concatenate([solid.center, solid.half, *solid.axes])
            shape_N[slot] = SHAPES.index(solid.shape)
            reach_N[slot] = REACH[solid.shape](solid.half) ** 2 * SLACK
            area_N[slot] = _ball_area(solid)
            albedo_N3[slot] = solid.albedo
            metal_M[slot] = solid.metal
            owner_N[slot] = solid.owner
    arrays = (
        placement_NF.T,
        shape_N,
        placement_NF[:, :3].reshape(num_scenes, num_slots, 3).transpose(2, 1, 0),
        reach_N.reshape(num_scenes, num_slots).T,
        area_N.reshape(num_scenes, num_slots).T,
        albedo_N3.T,
        metal_M,
        owner_N,
    )
    return Solids(*(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays))


def _ball_area(solid: Solid) -> float:
    a, b, c = solid.half
    return AREA[solid.shape] * (a * b + b * c + c * a) / 3 * (solid.owner != NO_OWNER)


def _surroundings(settings: list[Setting], device: torch.device) -> Surroundings:
    columns = (
        [setting.even for setting in settings],
        [setting.odd for setting in settings],
        [setting.stripe for setting in settings],
        [setting.horizon for setting in settings],
        [setting.sky for setting in settings],
        [setting.ambient for setting in settings],
    )
    return Surroundings(*(torch.tensor(column).t().contiguous().to(device) for column in columns))
