"""Where the camera looks, what is left and right of it, and where a point is in the image.

Positions are arrays of 3 in metres: z up, the ground at z = 0, the target at the origin.
"""

from collections.abc import Sequence

import numpy as np

from kyvo.world.constants import ASPECT, CAMERA, HALF_WIDTH

UP = np.array([0.0, 0.0, 1.0])


def view_axes(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the unit axes (right, up, forward) of viewers that look at the origin without roll.

    ``positions`` is (..., 3), none at the origin; so are the axes. For a viewer straight above or
    below the origin right is the x axis.
    """
    forward = -positions / np.linalg.norm(positions, axis=-1, keepdims=True)
    x, y, z = np.moveaxis(forward, -1, 0)
    right = np.stack([np.where(abs(z) > 1 - 1e-12, 1.0, y), -x, np.zeros_like(x)], axis=-1)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    return right, np.cross(right, forward), forward


def plane_directions(camera: Sequence[float]) -> dict[str, list[float]]:
    """Return CLEVR's six named unit directions as seen from ``camera``.

    They are the camera's axes without their part along the ground's normal, normalised.
    """
    right, _, forward = view_axes(np.asarray(camera, dtype=np.float64))
    behind = forward * (1 - UP)
    behind /= np.linalg.norm(behind)
    axes = {"behind": behind, "left": -right, "above": UP}
    opposites = {"front": -behind, "right": right, "below": -UP}
    return {name: (axis + 0.0).tolist() for name, axis in (axes | opposites).items()}


DIRECTIONS = plane_directions(CAMERA)
"""The directions of every scene: CLEVR takes them from the camera without jitter."""


def project(
    camera: Sequence[float], point: Sequence[float], height: int, width: int
) -> tuple[int, int, float]:
    """Return the column and row (pixels from the top left) and the depth (metres) of ``point``.

    The image shows the 4:3 frustum squeezed into ``height`` x ``width``.
    """
    position = np.asarray(camera, dtype=np.float64)
    right, up, forward = view_axes(position)
    offset = np.asarray(point, dtype=np.float64) - position
    depth = float(offset @ forward)
    column = 0.5 + offset @ right / depth / HALF_WIDTH / 2
    row = 0.5 - offset @ up / depth / HALF_WIDTH / 2 * ASPECT
    return round(column * width), round(row * height), depth
