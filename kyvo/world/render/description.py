"""What a renderer draws: where camera and lights are, primitives, and what is around them.

Worlds say what their scenes mean by returning a ``SceneDescription``; renderers read nothing else.
Lengths are metres, angles radians, colours linear RGB.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kyvo.world.constants import AMBIENT, GROUND_ALBEDO
from kyvo.world.json_values import Vector
from kyvo.world.viewpoints import Viewpoints

NO_OBJECT = -1
"""The object index of a primitive that is no part of any object, such as a wall."""


@dataclass(frozen=True)
class Primitive:
    """One stretched, turned and moved unit shape.

    Attributes:
        shape: of SHAPES.
        center: its position.
        half: half extents along the primitive's own axes.
        axes: these axes, orthogonal unit vectors.
        albedo: linear RGB.
        metal: whether it is a mirror; otherwise it is diffuse.
        object_index: of the scene's object that it is a part of, or NO_OBJECT.
    """

    shape: str
    center: Vector
    half: Vector
    axes: tuple[Vector, Vector, Vector]
    albedo: Vector
    metal: bool = False
    object_index: int = NO_OBJECT


@dataclass(frozen=True)
class Environment:
    """The ground, in stripes of two colours, and the sky; the defaults are CLEVR's.

    Attributes:
        even, odd: albedo of the stripes, which run along y.
        stripe: their width.
        horizon: the ground ends where it rises higher than this.
        sky: radiance beyond it.
        ambient: radiance over albedo that reaches every surface from all around.
    """

    even: Vector = (GROUND_ALBEDO, GROUND_ALBEDO, GROUND_ALBEDO)
    odd: Vector = (GROUND_ALBEDO, GROUND_ALBEDO, GROUND_ALBEDO)
    stripe: float = 1.0
    horizon: float = math.inf
    sky: Vector = (0.0, 0.0, 0.0)
    ambient: float = AMBIENT


@dataclass(frozen=True)
class SceneDescription:
    """A scene as renderers see it."""

    viewpoints: Viewpoints
    primitives: Sequence[Primitive]
    environment: Environment = Environment()


class Renderable(Protocol):
    """A scene of any world."""

    def describe(self) -> SceneDescription:
        """Return what is to be drawn."""
        ...


class RenderFunction(Protocol):
    """Draws scenes: uint8 (B, height, width, 3), sRGB."""

    def __call__(
        self,
        scenes: Sequence[Renderable],
        height: int,
        width: int,
        samples_per_pixel: int = ...,
        device: str = ...,
        seed: int = ...,
    ) -> np.ndarray: ...


def upright_axes(yaw: float) -> tuple[Vector, Vector, Vector]:
    """Return the world's axes turned by ``yaw`` about z."""
    cosine, sine = math.cos(yaw), math.sin(yaw)
    return (cosine, sine, 0.0), (-sine, cosine, 0.0), (0.0, 0.0, 1.0)
