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
    ((pixel,),) = project_all(np.array([camera]), np.array([[point]]), height, width)
    return pixel


def project_all(
    cameras_N3: np.ndarray, points_NK3: np.ndarray, height: int, width: int
) -> list[list[tuple[int, int, float]]]:
    """Return what ``project`` says of K points each in the images of N cameras."""
    axes_N13 = (axis_N3[:, None] for axis_N3 in view_axes(cameras_N3))
    offset_NK3 = points_NK3 - cameras_N3[:, None]
    # A sum of three in this order, rather than a matrix product, is the same on every machine.
    right_NK, up_NK, depth_NK = ((offset_NK3 * axis_N13).sum(-1) for axis_N13 in axes_N13)
    column_NK = (0.5 + right_NK / depth_NK / HALF_WIDTH / 2) * width
    row_NK = (0.5 - up_NK / depth_NK / HALF_WIDTH / 2 * ASPECT) * height
    pixels_NK = (np.rint(values_NK).astype(np.int64) for values_NK in (column_NK, row_NK))
    rows = zip(*(values_NK.tolist() for values_NK in (*pixels_NK, depth_NK)), strict=True)
    return [list(zip(*values, strict=True)) for values in rows]
