"""Simple shapes that add up to an object: stretched, tilted and painted, in the object's own frame.

Lengths are metres, angles radians, colours linear RGB. An object looks along +x, its left is +y,
and it rests on z = 0.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kyvo.world.json_values import Vector
from kyvo.world.render.description import NO_OBJECT, Primitive

CORNERS_83 = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
"""The corners of the unit cube, which holds every unit shape."""


@dataclass(frozen=True)
class Part:
    """A box ("cube"), ellipsoid ("sphere") or elliptic cylinder.

    Attributes:
        shape: of ``kyvo.world.constants.SHAPES``.
        center: in the object's frame.
        half: half extents along the part's own axes.
        paint: name of its colour among the object's paints.
        turn: angles about x, then y, then z; about y, a positive angle leans the top forward.
    """

    shape: str
    center: Vector
    half: Vector
    paint: str
    turn: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Pose:
    """Where an object is on the ground, which way it looks, and how its frame is stretched."""

    x: float = 0.0
    y: float = 0.0
    yaw: float = 0.0
    stretch: Vector = (1.0, 1.0, 1.0)


UNMOVED = Pose()


def assemble(
    parts: Sequence[Part],
    paints: Mapping[str, Vector],
    pose: Pose = UNMOVED,
    object_index: int = NO_OBJECT,
) -> list[Primitive]:
    """Return the parts as primitives.

    A stretched frame moves and stretches its parts but never shears them: a tilted part keeps its
    tilt.
    """
    return [_primitive(part, paints[part.paint], pose, object_index) for part in parts]


def corners(primitive: Primitive) -> np.ndarray:
    """Return the corners (8, 3) of the box around a primitive."""
    return primitive.center + CORNERS_83 * primitive.half @ np.array(primitive.axes)


def _primitive(part: Part, albedo: Vector, pose: Pose, object_index: int) -> Primitive:
    stretch_3 = np.array(pose.stretch)
    axes_33 = rotation(part.turn)
    half_3 = np.array(part.half) * np.linalg.norm(stretch_3[:, None] * axes_33, axis=0)
    turned_33 = rotation((0.0, 0.0, pose.yaw))
    center_3 = turned_33 @ (stretch_3 * part.center) + (pose.x, pose.y, 0.0)
    first, second, third = (turned_33 @ axes_33).T
    return Primitive(
        part.shape,
        _vector(center_3),
        _vector(half_3),
        (_vector(first), _vector(second), _vector(third)),
        albedo,
        object_index=object_index,
    )


def rotation(turn: Vector) -> np.ndarray:
    """Return the matrix (3, 3) that turns column vectors about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = map(math.cos, turn), map(math.sin, turn)
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def _vector(values_3: np.ndarray) -> Vector:
    x, y, z = values_3.tolist()
    return x, y, z
