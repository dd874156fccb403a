"""Scenes as tensors: everything the tracer reads.

Shapes: G scenes, K primitives of the fullest scene, L lights (the sun is the last one), N = G * K
primitives in all (primitive index = scene * K + k); a leading 3 holds x, y, z or red, green, blue.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kyvo.world.camera import view_axes
from kyvo.world.constants import SHAPES, SUN
from kyvo.world.json_values import Vector
from kyvo.world.render.description import (
    NO_OBJECT,
    Environment,
    Primitive,
    Renderable,
)
from kyvo.world.viewpoints import Viewpoints

BOUNDING_RADIUS: dict[str, Callable[[Vector], float]] = {
    "cube": lambda half: math.hypot(*half),
    "sphere": max,
    "cylinder": lambda half: math.hypot(max(half[:2]), half[2]),
}
"""Radius of the bounding sphere of a shape with these half extents."""
AREA = {"cube": 6 / math.pi, "sphere": 1.0, "cylinder": 1.5}
"""Surface area of a sharp unit shape over that of the unit sphere."""
SLACK = 1.02
"""Bounding spheres are a little too large, so that rounding never hides an object."""


@dataclass(frozen=True)
class Viewers:
    """Things that look at the origin: one camera (3, G), or lights (3, L, G), of each scene."""

    positions: Tensor
    right: Tensor
    up: Tensor
    forward: Tensor


@dataclass(frozen=True)
class Primitives:
    """The primitives of all scenes: unit shapes, stretched, turned and moved.

    Attributes:
        placement_FN: F = 15 rows: the centre, half extents along the primitive's own axes, and
            these three axes as unit vectors.
        shape_N: index into SHAPES.
        center_3KG: centres, once more, by primitive and scene.
        squared_radius_KG: square of the bounding radius; minus infinity where a scene has fewer
            than K primitives.
        area_KG: surface area over 4 pi (square metres, of stretched shapes roughly); 0 where there
            is no primitive, or one of no object, which bounces no light: walls are no balls.
        albedo_3N: linear albedo.
        metal_M: whether the surface is metal; M = N + 1, the last entry is the ground.
        object_index_N: index of the scene's object that a primitive is a part of, or NO_OBJECT.
    """

    placement_FN: Tensor
    shape_N: Tensor
    center_3KG: Tensor
    squared_radius_KG: Tensor
    area_KG: Tensor
    albedo_3N: Tensor
    metal_M: Tensor
    object_index_N: Tensor

    @property
    def ground(self) -> int:
        """The primitive index of the ground."""
        return self.shape_N.shape[0]


@dataclass(frozen=True)
class Environments:
    """The ``Environment`` of each scene: colours are radiance (sky) and albedo, lengths metres."""

    even_3G: Tensor
    odd_3G: Tensor
    stripe_G: Tensor
    horizon_G: Tensor
    sky_3G: Tensor
    ambient_G: Tensor


@dataclass(frozen=True)
class SceneBatch:
    """Several scenes, ready to trace."""

    cameras: Viewers
    lights: Viewers
    primitives: Primitives
    environments: Environments

    def each(self, function: Callable[[Any], Any]) -> "SceneBatch":
        """Return the batch with ``function`` of each of its tensors."""
        parts = {}
        for part in fields(self):
            record = getattr(self, part.name)
            values = {f.name: function(getattr(record, f.name)) for f in fields(record)}
            parts[part.name] = replace(record, **values)
        return SceneBatch(**parts)


def build_scene_batch(scenes: Sequence[Renderable], device: torch.device) -> SceneBatch:
    """Arrange scenes for the tracer."""
    descriptions = [scene.describe() for scene in scenes]
    cameras, lights = _viewers([description.viewpoints for description in descriptions], device)
    return SceneBatch(
        cameras,
        lights,
        _primitives([description.primitives for description in descriptions], device),
        build_environments([description.environment for description in descriptions], device),
    )


def _viewers(viewpoints: Sequence[Viewpoints], device: torch.device) -> tuple[Viewers, Viewers]:
    positions_GV3 = np.array([[v.camera, *v.lights, SUN.position] for v in viewpoints])
    fields = [
        torch.from_numpy(np.ascontiguousarray(field.transpose(2, 1, 0), dtype=np.float32))
        for field in (positions_GV3, *view_axes(positions_GV3))
    ]
    cameras = Viewers(*(field[:, 0].contiguous().to(device) for field in fields))
    return cameras, Viewers(*(field[:, 1:].contiguous().to(device) for field in fields))


def _primitives(scenes: Sequence[Sequence[Primitive]], device: torch.device) -> Primitives:
    num_scenes = len(scenes)
    num_primitives = max([1, *map(len, scenes)])
    num_all = num_scenes * num_primitives
    placement_NF = np.zeros((num_all, 15), np.float32)
    placement_NF[:, 3:6] = 1
    shape_N = np.zeros(num_all, np.int64)
    squared_radius_N = np.full(num_all, -np.inf, np.float32)
    area_N = np.zeros(num_all, np.float32)
    albedo_N3 = np.zeros((num_all, 3), np.float32)
    metal_M = np.zeros(num_all + 1, bool)
    object_index_N = np.full(num_all, NO_OBJECT, np.int64)
    for scene, primitives in enumerate(scenes):
        for index, primitive in enumerate(primitives, scene * num_primitives):
            placement_NF[index] = np.concatenate(
                [primitive.center, primitive.half, *primitive.axes]
            )
            shape_N[index] = SHAPES.index(primitive.shape)
            squared_radius_N[index] = BOUNDING_RADIUS[primitive.shape](primitive.half) ** 2 * SLACK
            area_N[index] = _ball_area(primitive)
            albedo_N3[index] = primitive.albedo
            metal_M[index] = primitive.metal
            object_index_N[index] = primitive.object_index
    arrays = (
        placement_NF.T,
        shape_N,
        placement_NF[:, :3].reshape(num_scenes, num_primitives, 3).transpose(2, 1, 0),
        squared_radius_N.reshape(num_scenes, num_primitives).T,
        area_N.reshape(num_scenes, num_primitives).T,
        albedo_N3.T,
        metal_M,
        object_index_N,
    )
    return Primitives(*(torch.from_numpy(np.ascontiguousarray(a)).to(device) for a in arrays))


def _ball_area(primitive: Primitive) -> float:
    a, b, c = primitive.half
    if primitive.object_index == NO_OBJECT:
        return 0.0
    return AREA[primitive.shape] * (a * b + b * c + c * a) / 3


def build_environments(environments: Sequence[Environment], device: torch.device) -> Environments:
    """Arrange environments for the tracer, one of each scene."""
    columns = (
        [environment.even for environment in environments],
        [environment.odd for environment in environments],
        [environment.stripe for environment in environments],
        [environment.horizon for environment in environments],
        [environment.sky for environment in environments],
        [environment.ambient for environment in environments],
    )
    return Environments(*(torch.tensor(column).t().contiguous().to(device) for column in columns))
