"""Scenes as tensors: everything the tracer reads, checked at the door.

Shapes: G scenes, K object slots of the fullest scene, L lamps (the sun is the last one),
N = G * K slots in all (slot = scene * K + k); a leading 3 holds x, y, z or red, green, blue.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kyvo.errors import InputError
from kyvo.world.camera import view_axes
from kyvo.world.constants import (
    CAMERA,
    COLORS,
    GROUND_ALBEDO,
    LAMPS,
    MATERIALS,
    SHAPES,
    SIZES,
    SUN,
)

REACH = {"cube": math.sqrt(3), "sphere": 1.0, "cylinder": math.sqrt(2)}
"""Radius of the bounding sphere of a unit shape."""
SLACK = 1.02
"""Bounding spheres are a little too large, so that rounding never hides an object."""


@dataclass(frozen=True)
class Viewers:
    """Things that look at the origin: one camera (3, G), or lamps (3, L, G), of each scene."""

    positions: Tensor
    right: Tensor
    up: Tensor
    forward: Tensor


@dataclass(frozen=True)
class Solids:
    """The objects of all scenes.

    Attributes:
        placement_5N: x, y, radius (= z of the centre), cosine and sine of the rotation.
        shape_N: index into SHAPES.
        center_3KG: centres, once more, by slot and scene.
        reach_KG: squared radius of the bounding sphere; minus infinity marks an empty slot.
        albedo_3M: linear albedo; M = N + 1, the last entry is the ground.
        metal_M: whether the surface is metal.
    """

    placement_5N: Tensor
    shape_N: Tensor
    center_3KG: Tensor
    reach_KG: Tensor
    albedo_3M: Tensor
    metal_M: Tensor

    @property
    def ground(self) -> int:
        """The slot that stands for the ground."""
        return self.shape_N.shape[0]


@dataclass(frozen=True)
class Stage:
    """Several scenes, ready to trace."""

    cameras: Viewers
    lamps: Viewers
    solids: Solids


@dataclass(frozen=True)
class _Solid:
    x: float
    y: float
    radius: float
    rotation: float
    shape: str
    color: str
    metal: bool


def build_stage(scenes: Sequence[dict[str, Any]], device: torch.device) -> Stage:
    """Read CLEVR scene dicts.

    An object's radius follows from its size and it stands on the ground, whatever its z says; a
    missing rotation is 0. Without the key "world" camera and lamps stand where CLEVR puts them.

    Raises:
        InputError: an unknown word, or a position that is not three finite numbers.
    """
    viewers = _viewers([_viewpoints(scene, name) for name, scene in _named(scenes)], device)
    solids = _solids([_read_objects(scene, name) for name, scene in _named(scenes)], device)
    return Stage(viewers[0], viewers[1], solids)


def _named(scenes: Sequence[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"scene {index} ({scene.get('image_filename', 'no image_filename')})", scene)
        for index, scene in enumerate(scenes)
    ]


def _read_objects(scene: dict[str, Any], name: str) -> list[_Solid]:
    if not isinstance(scene.get("objects"), list):
        raise InputError(f"{name}: no list under 'objects'. Expected CLEVR's scene JSON.")
    return [
        _read_object(item, f"{name}, object {index}") for index, item in enumerate(scene["objects"])
    ]


def _read_object(item: Any, where: str) -> _Solid:
    if not isinstance(item, dict):
        raise InputError(f"{where}: {item!r}. Expected an object of CLEVR's scene JSON.")
    x, y, _ = _numbers(item.get("3d_coords"), 3, f"{where}, '3d_coords'")
    (rotation,) = _numbers([item.get("rotation", 0.0)], 1, f"{where}, 'rotation'")
    return _Solid(
        x,
        y,
        SIZES[_word(item, "size", tuple(SIZES), where)],
        rotation,
        _word(item, "shape", SHAPES, where),
        _word(item, "color", tuple(COLORS), where),
        _word(item, "material", MATERIALS, where) == "metal",
    )


def _word(item: dict[str, Any], field: str, words: Sequence[str], where: str) -> str:
    word = item.get(field)
    if word not in words:
        raise InputError(f"{where}: '{field}' is {word!r}. Expected one of: {', '.join(words)}.")
    return str(word)


def _numbers(value: Any, count: int, where: str) -> list[float]:
    good = isinstance(value, list | tuple) and len(value) == count
    if not good or not all(isinstance(x, int | float) and math.isfinite(x) for x in value):
        raise InputError(f"{where}: {value!r}. Expected finite numbers, {count} in all.")
    return [float(x) for x in value]


def _viewpoints(scene: dict[str, Any], name: str) -> list[list[float]]:
    """Return the positions of the camera, the lamps and the sun."""
    world = scene.get("world", {})
    lamps = world.get("lamps", {})
    unknown = set(lamps) - {lamp.name for lamp in LAMPS}
    if unknown:
        expected = ", ".join(lamp.name for lamp in LAMPS)
        raise InputError(f"{name}: unknown lamps {sorted(unknown)}. Expected some of: {expected}.")
    places = {"camera": world.get("camera", CAMERA)}
    places |= {f"lamp {lamp.name}": lamps.get(lamp.name, lamp.position) for lamp in LAMPS}
    positions = [_numbers(place, 3, f"{name}, {what}") for what, place in places.items()]
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


def _solids(scenes: list[list[_Solid]], device: torch.device) -> Solids:
    num_scenes = len(scenes)
    num_slots = max([1, *map(len, scenes)])
    placement_GK5 = np.zeros((num_scenes, num_slots, 5), np.float32)
    shape_GK = np.zeros((num_scenes, num_slots), np.int64)
    reach_GK = np.full((num_scenes, num_slots), -np.inf, np.float32)
    albedo_M3 = np.full((num_scenes * num_slots + 1, 3), GROUND_ALBEDO, np.float32)
    metal_M = np.zeros(num_scenes * num_slots + 1, bool)
    for scene, solids in enumerate(scenes):
        for k, solid in enumerate(solids):
            turn = math.cos(solid.rotation), math.sin(solid.rotation)
            placement_GK5[scene, k] = solid.x, solid.y, solid.radius, *turn
            shape_GK[scene, k] = SHAPES.index(solid.shape)
            reach_GK[scene, k] = (REACH[solid.shape] * solid.radius) ** 2 * SLACK
            albedo_M3[scene * num_slots + k] = np.divide(COLORS[solid.color], 255)
            metal_M[scene * num_slots + k] = solid.metal
    arrays = (
        placement_GK5.reshape(-1, 5).T,
        shape_GK.reshape(-1),
        placement_GK5[:, :, :3].transpose(2, 1, 0),
        reach_GK.T,
        albedo_M3.T,
        metal_M,
    )
    return Solids(*(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays))
