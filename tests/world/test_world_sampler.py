"""Sampled scenes against an independent reading of CLEVR's rules."""

import hashlib
import itertools
import math

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyvo.common.errors import InputError
from kyvo.world import (
    COLORS,
    MATERIALS,
    SHAPES,
    SIZES,
    ClevrObject,
    ClevrScene,
    SceneOptions,
    sample_scene,
)
from kyvo.world.clevr.placement import Footprint, footprints_touch
from kyvo.world.clevr.sampler import sample_each
from kyvo.world.render.tracer import visible_shares

RIGHT, BEHIND = (0.65631, 0.75449), (-0.75449, 0.65631)
FEW = SceneOptions(min_objects=2, max_objects=6)


@pytest.fixture(scope="module")
def scenes() -> list[ClevrScene]:
    return [sample_scene(index, "train", 3, FEW) for index in range(100)]


def outline(footprint: Footprint, count: int = 200) -> np.ndarray:
    """Points (N, 2) on the rim of a footprint."""
    steps = np.linspace(0, 2 * math.pi, count, endpoint=False)
    ring = np.stack([np.cos(steps), np.sin(steps)], 1)
    if footprint.square:
        ring /= abs(ring).max(1, keepdims=True)
    cosine, sine = math.cos(footprint.rotation), math.sin(footprint.rotation)
    turned = ring @ np.array([[cosine, sine], [-sine, cosine]])
    return turned * footprint.radius + (footprint.x, footprint.y)


def covers(footprint: Footprint, points: np.ndarray) -> bool:
    offset = points - (footprint.x, footprint.y)
    cosine, sine = math.cos(footprint.rotation), math.sin(footprint.rotation)
    local = offset @ np.array([[cosine, -sine], [sine, cosine]])
    reach = abs(local).max(1) if footprint.square else np.linalg.norm(local, axis=1)
    return bool((reach <= footprint.radius).any())


def footprint_of(item: ClevrObject) -> Footprint:
    x, y, radius = item.position
    return Footprint(x, y, radius, item.shape == "cube", item.rotation)


def test_placement_rules_hold(scenes: list[ClevrScene]) -> None:
    for scene in scenes:
        for one, other in itertools.combinations(scene.objects, 2):
            offset = np.subtract(one.position, other.position)[:2]
            gap = np.linalg.norm(offset) - SIZES[one.size] - SIZES[other.size]
            assert gap >= 0.25
            assert abs(offset @ RIGHT) > 0.3999
            assert abs(offset @ BEHIND) > 0.3999
            first, second = footprint_of(one), footprint_of(other)
            assert not covers(first, outline(second))
            assert not covers(second, outline(first))


def test_objects_have_known_words_and_stand_on_the_ground(scenes: list[ClevrScene]) -> None:
    counts = [len(scene.objects) for scene in scenes]
    assert set(counts) == {2, 3, 4, 5, 6}
    items = [item for scene in scenes for item in scene.objects]
    for item in items:
        assert item.position[2] == SIZES[item.size]
        assert max(map(abs, item.position[:2])) <= 3
        assert 0 <= item.rotation <= 360
        assert item.pixel is not None
        column, row, depth = item.pixel
        assert 0 <= column < 256
        assert 0 <= row < 256
        assert 4 < depth < 18
    for field, words in zip(
        ("size", "color", "material", "shape"), (SIZES, COLORS, MATERIALS, SHAPES), strict=True
    ):
        assert {item.words[field] for item in items} == set(words)


def test_camera_and_lights_stay_within_their_jitter(scenes: list[ClevrScene]) -> None:
    cameras = np.array([scene.viewpoints.camera for scene in scenes])
    offsets = cameras - (7.48113, -6.50764, 5.34367)
    assert 0.45 < abs(offsets).max() <= 0.50001
    keys = np.array([scene.viewpoints.lights[0] for scene in scenes])
    assert 0.9 < abs(keys - (6.44671, -2.90517, 4.2584)).max() <= 1.00001


def test_every_object_is_visible_enough(scenes: list[ClevrScene]) -> None:
    assert min(min(visible_shares(scene)) for scene in scenes[:30]) >= 0.0026


def test_relationships_agree_with_a_naive_reading(scenes: list[ClevrScene]) -> None:
    for scene in scenes[:30]:
        written = scene.to_json()
        for name, lists in written["relationships"].items():
            direction = written["directions"][name]
            for i, one in enumerate(scene.objects):
                expected = [
                    j
                    for j, other in enumerate(scene.objects)
                    if j != i and np.dot(np.subtract(other.position, one.position), direction) > 0.2
                ]
                assert [*lists[i]] == expected
        left, right = (written["relationships"][name] for name in ("left", "right"))
        assert all(j in right[i] for j, row in enumerate(left) for i in row)


def test_a_scene_depends_on_its_number_alone() -> None:
    alone = sample_scene(7, "val", 1, FEW)
    sample_scene(6, "val", 1, FEW)
    assert sample_scene(7, "val", 1, FEW) == alone
    others = [sample_scene(8, "val", 1, FEW), sample_scene(7, "val", 2, FEW)]
    others.append(sample_scene(7, "test", 1, FEW))
    assert len({scene.objects[0].position for scene in [*others, alone]}) == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (SceneOptions(), "7658321b25f156a036a494eb34d7f0844182b628e202b02b4264445890a4ce4e"),
        (
            SceneOptions(*(1, 4), camera_jitter=0.2, min_visible_share=0.01, height=64, width=64),
            "391d9b67b429a00cd883160178988b5691001d5e4130f2f232c0caccbf8911c1",
        ),
    ],
)
def test_scenes_are_those_of_worlds_made_before(options: SceneOptions, expected: str) -> None:
    """The hashes are of scenes that were drawn one by one, and tested with ``visible_shares``."""
    scenes = [*sample_each(range(100), "train", 7, options)]
    scenes += [sample_scene(index, "train", 7, options) for index in range(100, 150)]
    hashed = hashlib.sha256()
    for scene in scenes:
        hashed.update(orjson.dumps(scene.to_json()))
    assert hashed.hexdigest() == expected


def test_names_are_clevrs() -> None:
    scene = sample_scene(12, "val", 0, FEW).to_json()
    assert scene["image_filename"] == "CLEVR_val_000012.png"
    assert (scene["split"], scene["image_index"]) == ("val", 12)
    assert set(scene["directions"]) == {"left", "right", "front", "behind", "above", "below"}
    assert set(scene["relationships"]) == {"left", "right", "front", "behind"}


@settings(deadline=None, max_examples=200)
@given(
    st.tuples(*[st.floats(-1.5, 1.5)] * 2),
    st.sampled_from([0.35, 0.7]),
    st.tuples(st.booleans(), st.booleans()),
    st.tuples(*[st.floats(0, 360)] * 2),
)
def test_footprints_touch_when_their_points_do(
    center: tuple[float, float],
    radius: float,
    squares: tuple[bool, bool],
    rotations: tuple[float, float],
) -> None:
    first = Footprint(0.0, 0.0, 0.7, squares[0], rotations[0])
    second = Footprint(*center, radius, squares[1], rotations[1])
    larger, smaller = (
        Footprint(second.x, second.y, radius * scale, second.square, second.rotation)
        for scale in (1.05, 0.95)
    )
    if covers(first, outline(second)) or covers(second, outline(first)):
        assert footprints_touch(first, larger)
        assert footprints_touch(larger, first)
    else:
        assert not footprints_touch(first, smaller)
        assert not footprints_touch(smaller, first)


def test_corners_of_turned_cubes_touch_although_their_radii_do_not() -> None:
    first = Footprint(0.0, 0.0, 0.7, True, math.pi / 4)
    assert footprints_touch(first, Footprint(1.9, 0.0, 0.7, True, math.pi / 4))
    assert not footprints_touch(first, Footprint(1.9, 0.0, 0.7, True, 0.0))


@pytest.mark.parametrize(
    "options",
    [{"min_objects": 0}, {"min_objects": 5, "max_objects": 4}, {"camera_jitter": -1}, {"width": 0}],
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(InputError, match="Expected"):
        SceneOptions(**options)


def test_a_crowd_without_room_is_refused() -> None:
    options = SceneOptions(min_objects=5, max_objects=5, extent=0.5)
    with pytest.raises(InputError, match="5 objects found no place"):
        sample_scene(0, "train", 0, options)
