"""Meshes of the primitives and of the ground against their definitions."""

import math
from pathlib import Path

import numpy as np
import pytest

from kyvo.world.constants import SHAPES
from kyvo.world.render.meshes import Mesh, ground_mesh, primitive_mesh, write_ply

VOLUMES = {
    "sphere": 4 / 3 * math.pi,
    # A core, its faces grown by 0.1, quarter rods along its edges and a ball at its corners.
    "cube": 1.8**3 + 6 * 1.8**2 * 0.1 + 12 * 1.8 * math.pi / 4 * 0.01 + 4 / 3 * math.pi * 0.001,
    # Pappus: an upright rod, a ring of rectangles and quarter discs around it.
    "cylinder": math.pi * 0.95**2 * 2
    + 2 * math.pi * 0.975 * 0.05 * 1.9
    + 2 * 2 * math.pi * (0.95 + 4 * 0.05 / (3 * math.pi)) * math.pi / 4 * 0.05**2,
}


def corners_of(mesh: Mesh) -> np.ndarray:
    return mesh.vertices_V3[mesh.faces_F3]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_primitive_is_closed_and_has_the_volume_of_its_shape(shape: str) -> None:
    first, second, third = np.moveaxis(corners_of(primitive_mesh(shape)), 1, 0)
    volume = (first * np.cross(second, third)).sum() / 6
    assert volume == pytest.approx(VOLUMES[shape], rel=3e-3)
    directed_area = np.cross(second - first, third - first).sum(0)
    assert directed_area == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_normals_are_units_and_agree_with_the_triangles(shape: str) -> None:
    mesh = primitive_mesh(shape)
    assert mesh.normals_V3 is not None
    assert np.linalg.norm(mesh.normals_V3, axis=1) == pytest.approx(1)
    first, second, third = np.moveaxis(corners_of(mesh), 1, 0)
    flat = np.cross(second - first, third - first)
    area = np.linalg.norm(flat, axis=1)
    real = area > 1e-9
    smooth = mesh.normals_V3[mesh.faces_F3][real]
    cosine = (smooth * (flat[real] / area[real, None])[:, None]).sum(-1)
    assert cosine.min() > 0.99


def test_the_ground_lies_on_its_curve() -> None:
    x, y, z = ground_mesh().vertices_V3.T
    u = -0.9032 * x + 0.4292 * y - 14
    assert z == pytest.approx(1.5 * np.exp(0.42 * u) / (1 - u / 4.6), rel=3e-3, abs=1e-6)
    first, second, third = np.moveaxis(corners_of(ground_mesh()), 1, 0)
    assert (np.cross(second - first, third - first)[:, 2] != 0).all()


def test_a_file_holds_the_mesh(tmp_path: Path) -> None:
    mesh = primitive_mesh("cube")
    write_ply(mesh, tmp_path / "cube.ply")
    header, body = (tmp_path / "cube.ply").read_text().split("end_header\n")
    num_vertices, num_faces = len(mesh.vertices_V3), len(mesh.faces_F3)
    assert f"element vertex {num_vertices}\n" in header
    assert f"element face {num_faces}\n" in header
    rows = body.splitlines()
    assert len(rows) == num_vertices + num_faces
    numbers = np.array([row.split() for row in rows[:num_vertices]], float)
    assert numbers == pytest.approx(np.hstack([mesh.vertices_V3, mesh.normals_V3]), abs=1e-6)
    assert [int(n) for n in rows[-1].split()] == [3, *mesh.faces_F3[-1]]
