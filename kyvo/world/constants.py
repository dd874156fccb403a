"""The facts of the CLEVR world: words, sizes, camera, lights, backdrop, materials.

Lengths are metres, angles radians, colours linear RGB. The values are those of the scene file that
the public CLEVR generator renders (Johnson et al. 2017, https://arxiv.org/abs/1612.06890).
"""

import math
from dataclasses import dataclass

COLORS: dict[str, tuple[int, int, int]] = {
    "gray": (87, 87, 87),
    "red": (173, 35, 35),
    "blue": (42, 75, 215),
    "green": (29, 105, 20),
    "brown": (129, 74, 25),
    "purple": (129, 38, 192),
    "cyan": (41, 208, 208),
    "yellow": (255, 238, 51),
}
"""Colour words; the numbers over 255 are the *linear* albedo."""

SIZES: dict[str, float] = {"large": 0.7, "small": 0.35}
"""Size words: radius, or half edge of a cube, and so the height of the centre."""

SHAPES = ("cube", "sphere", "cylinder")
MATERIALS = ("rubber", "metal")

CORES: dict[str, float] = {"cube": 0.9, "sphere": 0.0, "cylinder": 0.95}
"""Half extents of a unit shape's sharp core. Edges are round: the shape is its core grown by a ball
that reaches 1."""

CAMERA = (7.48113155, -6.50763988, 5.34366512)
"""Where the camera is before any jitter. It looks at the origin without roll."""

HALF_WIDTH = 32.0 / 2 / 35.0
"""Half the image's width at distance 1: a sensor of 32 mm behind a lens of 35 mm."""

ASPECT = 4 / 3
"""Width over height of the frustum; a square image shows it squeezed."""


@dataclass(frozen=True)
class Light:
    """A square light that looks at the origin.

    Attributes:
        name: its key under ``scene["world"]["lamps"]``.
        position: its centre, before any jitter.
        edge: length of its sides.
        color: linear RGB.
        watts: radiant flux; a surface that faces it at distance d receives watts / (pi d^2).
    """

    name: str
    position: tuple[float, float, float]
    edge: float
    color: tuple[float, float, float]
    watts: float


LIGHTS = (
    Light("key", (6.44671, -2.90517, 4.2584), 0.5, (1.0, 0.93231, 0.81666), 78.5398),
    Light("fill", (-4.67112, -4.0136, 3.01122), 0.5, (0.76167, 0.81772, 1.0), 23.5619),
    Light("back", (-1.1685, 2.64602, 5.81574), 1.0, (1.0, 1.0, 1.0), 39.2699),
)
"""The lights that a scene may move."""

SUN_DISTANCE = 1e4
SUN = Light(
    "sun",
    (0.4145 * SUN_DISTANCE, -0.1946 * SUN_DISTANCE, 0.8890 * SUN_DISTANCE),
    0.1 * SUN_DISTANCE,
    (1.0, 1.0, 1.0),
    0.45 * math.pi * SUN_DISTANCE**2,
)
"""A sun of irradiance 0.45 and soft size 0.1: a light so far away that its rays are parallel."""

GROUND_ALBEDO = 0.8

AMBIENT = 0.012
"""Radiance over albedo that reaches every surface from all around: part of the shading's fit."""

BACKDROP_AXIS = (-0.9032, 0.4292)
"""The horizontal direction in which the ground rises."""
BACKDROP_OFFSET = 14.0
BACKDROP_HEIGHT = 1.5
BACKDROP_GROWTH = 0.42
BACKDROP_WALL = 4.6
"""With u = dot(position, axis) - OFFSET the ground is at HEIGHT exp(GROWTH u) / (1 - u / WALL).

It is a millimetre high near the origin and becomes a vertical wall at u = WALL.
"""
