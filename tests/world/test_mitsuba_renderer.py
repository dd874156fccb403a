"""The optional path tracer shows what the tracer shows: same camera, same things, same light."""

import sys

import numpy as np
import pytest
from objaworld_primitives import PrimitiveScene

from kyvo.common.errors import InputError, MissingDependencyError
from kyvo.world import SceneOptions, render, sample_scene
from kyvo.world.render.description import Primitive, upright_axes
from kyvo.world.render.mitsuba import _squeeze, encode_srgb, render_with_mitsuba

SIDE = 48
OPTIONS = SceneOptions(height=SIDE, width=SIDE)


def test_a_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mitsuba", None)
    with pytest.raises(MissingDependencyError, match=r"kyvo\[mitsuba\]"):
        render_with_mitsuba([], 8, 8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_paths_that_are_not_finite_are_left_out(bad: float) -> None:
    linear_HW3 = np.random.default_rng(0).random((6, 8, 3))
    expected = linear_HW3.reshape(2, 3, 2, 4, 3).mean(axis=(1, 3))
    expected[0, 1] = np.delete(linear_HW3[:3, 4:].reshape(12, 3), 5, axis=0).mean(axis=0)
    linear_HW3[1, 5, 2] = bad
    found = _squeeze(linear_HW3, 2, 2).astype(int)
    assert abs(found - encode_srgb(expected)).max() <= 1


class TestWithMitsuba:
    """Skipped where the package is not installed."""

    @pytest.fixture(autouse=True)
    def _needs_mitsuba(self) -> None:
        pytest.importorskip("mitsuba")

    def test_scenes_look_like_the_tracers(self) -> None:
        scenes = [sample_scene(index, "test", 3, OPTIONS) for index in range(3)]
        ours = render(scenes, SIDE, SIDE, 8).astype(float)
        theirs = render_with_mitsuba(scenes, SIDE, SIDE, 64).astype(float)
        errors = np.array([[np.mean((a - b) ** 2) for b in theirs] for a in ours])
        # 31 dB on the scene itself, noise and all, and each is its own nearest by far.
        assert np.diag(errors).max() < 52
        others = errors + np.diag([np.inf] * 3)
        assert (np.diag(errors) * 3 < others.min(axis=1)).all()

    def test_any_frame_is_squeezed_alike(self) -> None:
        scene = sample_scene(0, "test", 3, OPTIONS)
        for height, width in ((24, 60), (48, 20)):
            ours = render([scene], height, width, 8).astype(float)
            theirs = render_with_mitsuba([scene], height, width, 64).astype(float)
            assert np.mean((ours - theirs) ** 2) < 60

    def test_stretched_and_turned_primitives_look_alike(self) -> None:
        primitives = (
            Primitive(
                "sphere", (0.0, -0.5, 0.5), (1.2, 0.4, 0.5), upright_axes(0.7), (0.1, 0.2, 0.7)
            ),
            Primitive(
                "cylinder", (-1.0, 2.0, 0.8), (0.3, 0.7, 0.8), upright_axes(2.0), (0.7, 0.1, 0.1)
            ),
            Primitive(
                "cube", (2.0, 1.0, 0.3), (1.0, 0.3, 0.3), upright_axes(-0.4), (0.1, 0.5, 0.1)
            ),
        )

        scene = PrimitiveScene(primitives)
        ours = render([scene], SIDE, SIDE, 8).astype(float)
        theirs = render_with_mitsuba([scene], SIDE, SIDE, 64).astype(float)
        assert np.mean((ours - theirs) ** 2) < 60

    def test_bad_numbers_are_refused(self) -> None:
        with pytest.raises(InputError, match="expected 1 or more"):
            render_with_mitsuba([], 0, 8)
