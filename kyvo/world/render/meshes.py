"""The world's ground and its unit primitives as triangles, for renderers that read meshes.

Shapes: V vertices, F faces; along the ground A rows of B vertices, around a primitive P columns.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kyvo.world.constants import (
    BACKDROP_AXIS,
    BACKDROP_GROWTH,
    BACKDROP_HEIGHT,
    BACKDROP_OFFSET,
    BACKDROP_WALL,
    CORES,
)

GROUND_EXTENT = (-60.0, BACKDROP_OFFSET + BACKDROP_WALL - 0.35)
"""Where the ground starts and, near its wall, ends along BACKDROP_AXIS (metres)."""
QUARTER = 24
"""Edges that make a quarter of a circle."""


@dataclass(frozen=True)
class Mesh:
    """Vertices (V, 3), faces (F, 3) as their indices, and unit normals (V, 3), if it is smooth."""

    vertices_V3: np.ndarray
    faces_F3: np.ndarray
    normals_V3: np.ndarray | None = None


def primitive_mesh(shape: str) -> Mesh:
    """Return a unit primitive with round edges: its core (``CORES``) grown by a ball.

    Every normal touches the primitive at the core's outermost corner in its direction, plus the
    ball's radius times the normal. So rings of normals from pole to pole, with the corner of each,
    are the surface; where the corner changes, flat parts span the gap.
    """
    core = CORES[shape]
    radius = 1 - core
    quarters_4P = np.pi / 2 * (np.arange(4)[:, None] + np.linspace(0, 1, QUARTER + 1))
    around_P = quarters_4P.ravel()
    middles_P = np.repeat(quarters_4P.mean(1), QUARTER + 1)
    heading_P2 = np.stack([np.cos(around_P), np.sin(around_P)], -1)
    diagonal_P2 = np.sqrt(2) * np.stack([np.cos(middles_P), np.sin(middles_P)], -1)
    corner_P2 = core * (diagonal_P2 if shape == "cube" else heading_P2)
    rise_A = np.pi / 2 * np.linspace(0, 1, QUARTER + 1)
    up_A = np.concatenate([np.sin(-rise_A[::-1]), np.sin(rise_A)])
    out_A = np.concatenate([np.cos(rise_A[::-1]), np.cos(rise_A)])
    normals_AP3 = np.empty((len(up_A), len(around_P), 3))
    normals_AP3[..., :2] = out_A[:, None, None] * heading_P2
    normals_AP3[..., 2] = up_A[:, None]
    corners_AP3 = np.empty_like(normals_AP3)
    corners_AP3[..., :2] = corner_P2
    corners_AP3[..., 2] = core * np.repeat([-1, 1], QUARTER + 1)[:, None]
    return _capped(corners_AP3 + radius * normals_AP3, normals_AP3)


def ground_mesh() -> Mesh:
    """Return the curved backdrop, finer where it rises (``constants``)."""
    start, end = GROUND_EXTENT
    # Rows are dense towards the wall, where the height grows without bound.
    along_A = end - (end - start) * np.linspace(1, 0, 400) ** 3
    across_B = np.linspace(-80, 80, 9)
    u_A = along_A - BACKDROP_OFFSET
    height_A = BACKDROP_HEIGHT * np.exp(BACKDROP_GROWTH * u_A) / (1 - u_A / BACKDROP_WALL)
    axis_x, axis_y = BACKDROP_AXIS
    x_AB = along_A[:, None] * axis_x - across_B * axis_y
    y_AB = along_A[:, None] * axis_y + across_B * axis_x
    z_AB = np.broadcast_to(height_A[:, None], x_AB.shape)
    corner_AB = np.arange(x_AB.size).reshape(x_AB.shape)
    return Mesh(np.stack([x_AB, y_AB, z_AB], -1).reshape(-1, 3), _strips(corner_AB))


def write_ply(mesh: Mesh, path: Path) -> None:
    """Write a mesh as an ASCII PLY file."""
    columns = [mesh.vertices_V3] if mesh.normals_V3 is None else [mesh.vertices_V3, mesh.normals_V3]
    columns_VC = np.hstack(columns)
    names = ("x", "y", "z", "nx", "ny", "nz")[: columns_VC.shape[1]]
    lines = [
        "ply",
        "format ascii 1.0",
        f"element vertex {len(columns_VC)}",
        *(f"property float {name}" for name in names),
        f"element face {len(mesh.faces_F3)}",
        "property list uchar int vertex_indices",
        "end_header",
        *(" ".join(f"{value:.7g}" for value in row) for row in columns_VC.tolist()),
        *(f"3 {i} {j} {k}" for i, j, k in mesh.faces_F3.tolist()),
    ]
    path.write_text("\n".join(lines) + "\n")


def _capped(points_AP3: np.ndarray, normals_AP3: np.ndarray) -> Mesh:
    """Return the closed surface of rings that go round the z axis, from the lowest up."""
    num_rings, num_columns, _ = points_AP3.shape
    corner_AP = np.arange(num_rings * num_columns).reshape(num_rings, num_columns)
    corner_AP = np.concatenate([corner_AP, corner_AP[:, :1]], 1)
    south, north = corner_AP.max() + 1, corner_AP.max() + 2
    # The poles are level with the lowest and the highest ring.
    caps = [
        np.stack(np.broadcast_arrays(pole, first, second), -1)
        for pole, first, second in (
            (south, corner_AP[0, 1:], corner_AP[0, :-1]),
            (north, corner_AP[-1, :-1], corner_AP[-1, 1:]),
        )
    ]
    poles_23 = np.array([[0.0, 0.0, -1.0], [0.0, 0.0, 1.0]])
    return Mesh(
        np.concatenate([points_AP3.reshape(-1, 3), poles_23]),
        np.concatenate([_strips(corner_AP), *caps]),
        np.concatenate([normals_AP3.reshape(-1, 3), poles_23]),
    )


def _strips(corner_AB: np.ndarray) -> np.ndarray:
    """Return two triangles (F, 3) for each cell of a grid of vertex indices."""
    a, b = corner_AB[:-1, :-1], corner_AB[:-1, 1:]
    d, c = corner_AB[1:, :-1], corner_AB[1:, 1:]
    return np.concatenate([np.stack(f, -1).reshape(-1, 3) for f in ((a, b, c), (a, c, d))])
