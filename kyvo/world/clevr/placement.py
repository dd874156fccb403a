"""Which objects may be side by side: CLEVR's distance rules, and footprints that don't touch.

All lengths are metres on the ground plane, angles radians.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

from kyvo.world.camera import DIRECTIONS

(_RIGHT_X, _RIGHT_Y, _), (_BEHIND_X, _BEHIND_Y, _) = DIRECTIONS["right"], DIRECTIONS["behind"]
FAR = 1.5
"""Radii apart no corners touch: a little more than the square root of two."""


class Footprint(NamedTuple):
    """The shadow of an object at noon: a disc, or a square of half edge ``radius``, turned."""

    x: float
    y: float
    radius: float
    square: bool
    rotation: float


def may_be_placed(
    new: Footprint, others: Iterable[Footprint], min_distance: float, margin: float
) -> bool:
    """Whether CLEVR's rules allow ``new`` beside each of the others.

    Their radii leave a gap of ``min_distance``; seen along right and along behind they are at
    least ``margin`` apart, so that every relation is clear; and they do not touch, which the gap
    alone does not ensure for the corners of cubes.
    """
    new_x, new_y, radius, *_ = new
    for old in others:
        x, y = new_x - old.x, new_y - old.y
        distance = math.hypot(x, y)
        if distance - radius - old.radius < min_distance:
            return False
        if abs(x * _RIGHT_X + y * _RIGHT_Y) < margin or abs(x * _BEHIND_X + y * _BEHIND_Y) < margin:
            return False
        if distance <= FAR * (radius + old.radius) and footprints_touch(new, old):
            return False
    return True


def footprints_touch(first: Footprint, second: Footprint) -> bool:
    """Whether two footprints have a point in common."""
    if first.square and second.square:
        return not (_edge_separates(first, second) or _edge_separates(second, first))
    if first.square:
        return _square_touches_disc(first, second)
    if second.square:
        return _square_touches_disc(second, first)
    return math.hypot(first.x - second.x, first.y - second.y) <= first.radius + second.radius


def _edge_separates(square: Footprint, other: Footprint) -> bool:
    """Separating axes: whether a line along an edge of ``square`` keeps two squares apart."""
    turn = other.rotation - square.rotation
    extent = other.radius * (abs(math.cos(turn)) + abs(math.sin(turn)))
    return max(map(abs, _seen_from(square, other))) > square.radius + extent


def _square_touches_disc(square: Footprint, disc: Footprint) -> bool:
    beyond = (max(abs(offset) - square.radius, 0.0) for offset in _seen_from(square, disc))
    return math.hypot(*beyond) <= disc.radius


def _seen_from(square: Footprint, other: Footprint) -> tuple[float, float]:
    """Return the centre of ``other`` in the axes of ``square``."""
    x, y = other.x - square.x, other.y - square.y
    cosine, sine = math.cos(square.rotation), math.sin(square.rotation)
    return cosine * x + sine * y, cosine * y - sine * x
