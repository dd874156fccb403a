"""Axes, named directions and projection against the published constants and hand-made formulas."""

import math

import numpy as np
import pytest

from kyvo.world.camera import DIRECTIONS, plane_directions, project, view_axes
from kyvo.world.constants import CAMERA


def test_directions_are_those_of_the_published_scenes() -> None:
    assert DIRECTIONS["right"] == pytest.approx([0.65631, 0.75449, 0], abs=6e-6)
    assert DIRECTIONS["behind"] == pytest.approx([-0.75449, 0.65631, 0], abs=6e-6)
    assert DIRECTIONS["above"] == [0, 0, 1]
    for one, other in (("left", "right"), ("front", "behind"), ("above", "below")):
        assert np.add(DIRECTIONS[one], DIRECTIONS[other]).tolist() == [0, 0, 0]


def test_view_axes_are_a_right_handed_frame_without_roll() -> None:
    positions = np.random.default_rng(0).normal(size=(4, 5, 3)) * 5
    right, up, forward = view_axes(positions)
    frame = np.stack([right, up, -forward], -1)
    assert np.linalg.det(frame) == pytest.approx(np.ones((4, 5)))
    assert np.swapaxes(frame, -1, -2) @ frame == pytest.approx(
        np.broadcast_to(np.eye(3), frame.shape)
    )
    assert (right[..., 2] == 0).all()
    assert (up[..., 2] > 0).all()
    assert positions + forward * np.linalg.norm(positions, axis=-1)[..., None] == pytest.approx(
        np.zeros((4, 5, 3))
    )


def test_view_axes_from_straight_above() -> None:
    right, up, forward = view_axes(np.array([0.0, 0.0, 4.0]))
    assert (right.tolist(), up.tolist(), forward.tolist()) == ([1, 0, 0], [0, 1, 0], [0, 0, -1])


def test_projection_agrees_with_angles() -> None:
    """A camera on the x axis sees y to the right and z up; half its field of view is 24.567."""
    half = math.tan(math.radians(49.134 / 2))
    column, row, depth = project((10, 0, 0), (2, 1.5, 1), 200, 400)
    assert depth == pytest.approx(8)
    assert column == round(400 * (0.5 + 1.5 / 8 / half / 2))
    assert row == round(200 * (0.5 - 1 / 8 / (half * 0.75) / 2))


def test_the_origin_is_the_centre_of_the_image() -> None:
    assert project(CAMERA, (0, 0, 0), 64, 64)[:2] == (32, 32)
    assert project(CAMERA, (0, 0, 0), 64, 64)[2] == pytest.approx(math.hypot(*CAMERA))


def test_directions_follow_the_given_camera() -> None:
    assert plane_directions((5, 0, 3))["right"] == pytest.approx([0, 1, 0])
    assert plane_directions((5, 0, 3))["behind"] == pytest.approx([-1, 0, 0])
