"""Stretched, tilted and turned parts against membership tests and closed forms."""

import math

import numpy as np
import pytest
from objaworld_primitives import batch_of, inside, rays_along, surface_points

from kyvo.world.constants import SHAPES
from kyvo.world.objaworld.parts import Part, Pose, assemble, corners, rotation
from kyvo.world.render.description import Primitive
from kyvo.world.render.intersection import find_surface, nearest_primitive, visible_lights
from kyvo.world.render.shading import sample_lights

PAINTS = {"paint": (0.1, 0.2, 0.3)}
SLANTED = Part("cube", (0.3, -0.2, 1.4), (0.9, 0.25, 0.5), "paint", (0.4, -0.7, 0.3))
POSE = Pose(0.4, -0.6, 1.1, (1.2, 0.8, 1.0))


def built(shape: str, pose: Pose = POSE) -> Primitive:
    part = Part(shape, SLANTED.center, SLANTED.half, "paint", SLANTED.turn)
    return assemble([part], PAINTS, pose)[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_rays_hit_a_slanted_part_where_a_naive_search_does(shape: str) -> None:
    primitive = built(shape)
    rng = np.random.default_rng(3)
    origins = np.array(primitive.center) + rng.normal(size=(150, 3)) * 3 + (0, 0, 4)
    directions = np.array(primitive.center) + rng.uniform(-0.9, 0.9, (150, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    distance, index = nearest_primitive(
        batch_of(primitive).primitives, rays_along(origins, directions)
    )
    steps = np.arange(0, 16, 0.002)
    marched = inside(primitive, origins[:, None] + steps[:, None] * directions[:, None])
    for ray in range(150):
        first = steps[marched[ray].argmax()]
        if marched[ray].sum() > 5 and first > 0:
            assert distance[ray].item() == pytest.approx(first, abs=0.004)
        elif not marched[ray].any() and distance[ray] < 99:
            middle = origins[ray] + distance[ray].item() * directions[ray]
            assert inside(primitive, middle, grown=1.02), "hit where nothing is"
    assert 40 < (index == 0).sum() < 150


def test_normals_of_an_ellipsoid_are_its_gradient() -> None:
    primitive = built("sphere")
    points = surface_points(primitive, 300)
    axes, half = np.array(primitive.axes), np.array(primitive.half)
    gradient = ((points - primitive.center) @ axes.T / half**2) @ axes
    gradient /= np.linalg.norm(gradient, axis=1, keepdims=True)
    seen = rays_along(points + 2 * gradient, -gradient)
    distance, surface = find_surface(batch_of(primitive), seen)
    assert distance.numpy() == pytest.approx(2, abs=1e-3)
    assert surface.normal_3R.T.numpy() == pytest.approx(gradient, abs=5e-3)
    assert surface.albedo_3R.T.numpy() == pytest.approx(np.tile(PAINTS["paint"], (300, 1)))


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("shape", ["cube", "cylinder"])
def test_the_middle_of_a_flat_face_looks_along_its_axis(shape: str, axis: int) -> None:
    primitive = built(shape)
    outward = np.array(primitive.axes[axis])
    start = np.array(primitive.center) + 4 * outward
    distance, surface = find_surface(batch_of(primitive), rays_along(start[None], -outward[None]))
    assert distance.item() == pytest.approx(4 - primitive.half[axis], abs=1e-4)
    assert surface.normal_3R[:, 0].tolist() == pytest.approx(outward.tolist(), abs=1e-4)


def test_a_part_shades_another_of_the_same_object_but_not_itself() -> None:
    roof = Part("cube", (0, 0, 1.0), (1.0, 1.0, 0.05), "paint")
    floor = Part("cube", (0, 0, 0.1), (1.0, 1.0, 0.05), "paint")

    def lit(*parts: Part) -> bool:
        batch = batch_of(*assemble(parts, PAINTS, object_index=0))
        rays = rays_along(np.array([[3.0, 0.0, 0.9]]), np.array([[-0.966, 0.0, -0.2588]]))
        _, surface = find_surface(batch, rays)
        samples = sample_lights(batch.lights, rays, surface)
        assert surface.point_3R[2].item() == pytest.approx(0.15, abs=1e-3)
        return bool(visible_lights(batch.primitives, rays, surface, samples)[3])

    assert lit(floor)
    assert not lit(floor, roof)


def test_turns_follow_the_right_hand() -> None:
    quarter = math.pi / 2
    assert rotation((quarter, 0, 0)) @ (0, 1, 0) == pytest.approx((0, 0, 1))
    assert rotation((0, quarter, 0)) @ (0, 0, 1) == pytest.approx((1, 0, 0))
    assert rotation((0, 0, quarter)) @ (1, 0, 0) == pytest.approx((0, 1, 0))
    assert rotation((quarter, 0, quarter)) @ (0, 1, 0) == pytest.approx((0, 0, 1))
    turned = rotation((0.3, -0.8, 2.0))
    assert turned @ turned.T == pytest.approx(np.eye(3))
    assert np.linalg.det(turned) == pytest.approx(1)


def test_yaw_carries_every_corner_around_the_object() -> None:
    still, turned = (
        corners(built("cube", Pose(2.0, 1.0, yaw, POSE.stretch))) - (2.0, 1.0, 0.0)
        for yaw in (0.0, 0.9)
    )
    assert np.hypot(*turned[:, :2].T) == pytest.approx(np.hypot(*still[:, :2].T))
    assert turned[:, 2] == pytest.approx(still[:, 2])
    bearing = np.arctan2(turned[:, 1], turned[:, 0]) - np.arctan2(still[:, 1], still[:, 0])
    assert np.exp(1j * bearing) == pytest.approx(np.full(8, np.exp(0.9j)))


def test_stretching_scales_upright_parts_and_their_places() -> None:
    part = Part("cube", (0.5, 0.0, 1.0), (0.2, 0.3, 0.4), "paint")
    (primitive,) = assemble([part], PAINTS, Pose(stretch=(2.0, 3.0, 0.5)))
    assert corners(primitive).min(0) == pytest.approx((0.6, -0.9, 0.3))
    assert corners(primitive).max(0) == pytest.approx((1.4, 0.9, 0.7))
