"""Schemas from yaml files: a preset written as a file, angles, round trips, refusals."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from scene_samples import decode, encode

from kyvo.common.errors import InputError
from kyvo.scenes import (
    MatchingRule,
    NumberField,
    SceneCodec,
    Tolerance,
    WordField,
    get_schema,
)
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary

EXAMPLE = Path(__file__).parents[2] / "docs/own-scenes"
HARBOUR = get_schema(str(EXAMPLE / "schema.yaml"))
_VOCABULARY = get_vocabulary(str(EXAMPLE / "vocabulary.yaml"))
CODEC = SceneCodec(HARBOUR, _VOCABULARY, load_text_tokenizer(None, _VOCABULARY))
HEADING = next(f for f in HARBOUR.fields if f.key == "heading").axes[0]  # type: ignore[union-attr]
SHIP: dict[str, Any] = {
    "type": "ferry",
    "flag_color": "red",
    "position": [1.0, 2.0],
    "heading": [90],
    "length": [100],
}


def test_a_preset_as_a_file_has_the_same_fields(tmp_path: Path) -> None:
    preset = get_schema("clevr")
    fields: list[dict[str, Any]] = [
        {"marker": f.marker, "key": f.key, "words": list(f.words)}
        for f in preset.fields
        if isinstance(f, WordField)
    ]
    axes = [{"name": n, "unit": "scene units", "low": -3, "high": 3, "step": 0.05} for n in "xyz"]
    fields.append({"marker": "[LOCATION]", "key": "3d_coords", "numbers": axes})
    path = tmp_path / "clevr.yaml"
    matching = {"words": ["size", "color", "material", "shape"], "position": "3d_coords",
                "distance_axes": 2, "taus": [0.05, 0.1, 0.15, 0.2, 0.25]}  # fmt: skip
    path.write_text(yaml.safe_dump({"decimals": 3, "fields": fields, "matching": matching}))
    found = get_schema(str(path))
    assert dataclasses.replace(found.rule, broadcasts=True) == preset.rule
    assert found.decimals == preset.decimals
    assert found.fields[:-1] == preset.fields[:-1]
    place, expected = found.fields[-1], preset.fields[-1]
    assert isinstance(place, NumberField)
    assert isinstance(expected, NumberField)
    assert [(a.name, a.unit, a.grid) for a in place.axes] == [
        (a.name, a.unit, a.grid) for a in expected.axes
    ]
    assert place.axes[0].reach == pytest.approx(expected.axes[0].reach, rel=1e-5)


@given(st.floats(-2000, 2000))
def test_any_angle_snaps_to_the_nearest_on_the_circle(angle: float) -> None:
    def gap(point: float) -> float:
        direction = (math.cos(math.radians(point)), math.sin(math.radians(point)))
        return math.dist(direction, (math.cos(math.radians(angle)), math.sin(math.radians(angle))))

    snapped = HEADING.snap(angle)
    assert gap(snapped) <= min(map(gap, HEADING.grid)) + 1e-6


def test_angles_near_the_ends_of_the_grid(tmp_path: Path) -> None:
    assert [HEADING.snap(v) for v in (359, 364.9, 355.1, 354.9, -90)] == [0, 0, 0, 350, 270]
    path = tmp_path / "yaw.yaml"
    axis = {"name": "yaw", "unit": "radians", "low": -3.1, "high": 3.1, "step": 0.1}
    field = {"marker": "[YAW]", "key": "yaw", "numbers": [{**axis, "period": 2 * math.pi}]}
    path.write_text(yaml.safe_dump({"decimals": 2, "fields": [field]}))
    (yaw,) = get_schema(str(path)).fields
    assert isinstance(yaw, NumberField)
    found = [yaw.axes[0].snap(v) for v in (3.12, 3.14, 3.15, -3.14, 9.38, 0.02)]
    assert found == [3.1, 3.1, -3.1, -3.1, 3.1, 0]


ships = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["ferry", "tanker", "yacht"]),
        "flag_color": st.sampled_from(["red", "green", "yellow"]),
        "position": st.lists(st.floats(-0.1, 10.1), min_size=2, max_size=2),
        "heading": st.lists(st.integers(-720, 720), min_size=1, max_size=1),
        "length": st.lists(st.floats(35, 205), min_size=1, max_size=1),
    }
)


@given(st.lists(ships, max_size=3))
def test_scenes_read_back_within_half_a_step(objects: list[dict[str, Any]]) -> None:
    ids = encode(CODEC, objects)
    assert not CODEC.read(ids)[1].reasons
    read = decode(CODEC, ids)
    assert len(read) == len(objects)
    for found, given_ in zip(read, objects, strict=True):
        assert [found[k] for k in ("type", "flag_color")] == [
            given_[k] for k in ("type", "flag_color")
        ]
        assert found["position"] == pytest.approx(given_["position"], abs=0.1 + 1e-5)
        assert found["length"] == pytest.approx(given_["length"], abs=5 + 1e-4)
        assert abs(math.remainder(found["heading"][0] - given_["heading"][0], 360)) <= 5 + 1e-4


values = st.one_of(
    st.sampled_from(["ferry", "red", "boat", None, True, 3]),
    st.sampled_from([[], [1], [1.0, 2.0], [1, "2"], [True], [math.nan]]),
    st.lists(st.floats(-400, 400), max_size=3),
)


@given(st.dictionaries(st.sampled_from(sorted(SHIP)), values))
def test_faults_are_what_encoding_refuses(changes: dict[str, Any]) -> None:
    item = {**SHIP, **changes}
    faults = HARBOUR.faults(item)
    try:
        encode(CODEC, [item])
    except InputError:
        assert faults
    else:
        assert faults == []


def test_every_fault_of_an_object_is_reported() -> None:
    faults = HARBOUR.faults({"type": "boat", "position": [11, -1.5], "heading": 90, "length": [60]})
    assert faults == [
        "'flag_color' is missing",
        "'type': 'boat', expected one of ferry, tanker, yacht",
        "'position': east = 11, expected 0.0 to 10.0 hundreds of metres",
        "'position': north = -1.5, expected 0.0 to 10.0 hundreds of metres",
        "'heading': 90, expected 1 numbers",
    ]
    assert HARBOUR.faults([1]) == ["expected an object with fields, found [1]"]


def _axis(**changes: Any) -> dict[str, Any]:
    axis = {"name": "x", "unit": "m", "low": 0, "high": 3, "step": 1, **changes}
    return {"marker": "[X]", "key": "x", "numbers": [axis]}


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"marker": "[X]", "key": "x"}, "fields[0]: expected either words or numbers"),
        ({**_axis(), "words": ["a"]}, "fields[0]: expected either words or numbers"),
        ({"marker": "[X]", "key": "x", "words": ["a", "a"]}, "word 'a'"),
        ({"marker": "[X]", "key": "x", "words": [" a"]}, "word ' a'"),
        ({"marker": "[X]", "key": "x", "words": [True]}, "fields[0].words[0]: expected str"),
        ({"marker": "x", "key": "x", "words": ["a"]}, "marker 'x'"),
        ({"marker": "[Y]", "key": "y", "words": ["a"]}, "distinct keys"),
        (_axis(step=0.7), "fields[0].numbers[0]: 4.28571 steps"),
        (_axis(step=0.5, high=2.5), "0.5 cannot be written with 0 decimals"),
        (_axis(period=3), "period 3"),
        (_axis(period=9), "period 9"),
        (_axis(unti="m"), "did you mean 'unit'"),
    ],
)
def test_refused(field: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "schema.yaml"
    fields = [field, {"marker": "[Y]", "key": "y", "words": ["b"]}]
    path.write_text(yaml.safe_dump({"decimals": 0, "fields": fields}))
    with pytest.raises(InputError) as error:
        get_schema(str(path))
    assert message in str(error.value)
    assert str(path) in str(error.value)


MATCHING = {"words": ["y"], "position": "x", "taus": [1.0]}


def read_matching(tmp_path: Path, **changes: Any) -> MatchingRule:
    """The rule of a schema of a word y, and of x: a length and an angle."""
    length = {"name": "length", "unit": "m", "low": 0, "high": 3, "step": 1}
    angle = {**length, "name": "angle", "unit": "quarters", "period": 4}
    fields = [
        {"marker": "[X]", "key": "x", "numbers": [length, angle]},
        {"marker": "[Y]", "key": "y", "words": ["b"]},
    ]
    content = {"decimals": 0, "fields": fields, "matching": {**MATCHING, **changes}}
    path = tmp_path / "schema.yaml"
    path.write_text(yaml.safe_dump(content))
    return get_schema(str(path)).rule


def test_a_rule_from_a_file(tmp_path: Path) -> None:
    angle = {"key": "x", "axes": ["angle"], "limit": 0.5}
    length = {"key": "x", "axes": ["length"], "limit": 2, "is_inclusive": True}
    rule = read_matching(
        tmp_path, distance_axes=1, tolerances=[angle], dimensions=length, is_nearest=True
    )
    assert rule == MatchingRule(
        ("y",),
        "x",
        1,
        (Tolerance("x", (1,), 0.5, period=4),),
        Tolerance("x", (0,), 2, is_inclusive=True),
        is_nearest=True,
        taus=(1.0,),
    )
    assert rule.counts == {"x": 2}
    assert rule.with_dimension_tau(1.5).bounds[-1].limit == 1.5
    assert read_matching(tmp_path).distance_axes == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": ["z"]}, "matching: words: no 'z'"),
        ({"words": ["x"]}, "matching: words: no 'x'"),
        ({"position": "y"}, "matching: number fields: no 'y'"),
        ({"distance_axes": 3}, "matching: distance_axes: 3, expected 1 to 2"),
        ({"taus": []}, "matching: taus: []"),
        ({"taus": [0.0]}, "matching: taus: [0.0]"),
        ({"tolerances": [{"key": "x", "limit": 1.0}]}, "give angles a tolerance of their own"),
        ({"tolerances": [{"key": "x", "axes": ["lenght"], "limit": 1.0}]}, "mean 'length'"),
        ({"tolerances": [{"key": "x", "axes": ["angle"], "limit": -1.0}]}, "a limit of 0 or more"),
        ({"nearest": True}, "did you mean 'is_nearest'"),
    ],
)
def test_rules_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read_matching(tmp_path, **changes)
    assert message in str(error.value)
