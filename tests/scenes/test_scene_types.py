"""Typed scenes: the JSON of the result files, to the byte, and what can be read of any JSON."""

import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene_samples import CODECS, scenes

from kyvo.common.errors import InputError
from kyvo.scenes import SCHEMAS, Scene, SceneObject

WRITTEN = {
    "clevr": b'[{"size":"large","color":"cyan","material":"metal","shape":"cube",'
    b'"3d_coords":[-0.55,0.05,0.7]}]',
    "objaworld": b'[{"shape":"bench","3d_coords":[0.1,-0.2,0.3,3.0]}]',
    "objectron": b'[{"category":"cereal box","center_cam":[0.01,-0.2,7.5],'
    b'"dimensions":[0.1,0.2,1.0]}]',
}


@pytest.mark.parametrize("name", WRITTEN)
def test_result_files_are_the_same_to_the_byte(name: str) -> None:
    codec = CODECS[name]
    scene = codec.schema.parse_scene(json.loads(WRITTEN[name]), "scene")
    found, _ = codec.read(codec.encode(scene))
    assert orjson.dumps(codec.schema.scene_to_json(found)) == WRITTEN[name]


@pytest.mark.parametrize("name", WRITTEN)
@given(data=st.data())
def test_json_and_back(name: str, data: st.DataObject) -> None:
    schema = SCHEMAS[name]
    scene = data.draw(scenes(schema))
    assert schema.parse_scene(schema.scene_to_json(scene), "scene") == scene


@pytest.mark.parametrize("name", WRITTEN)
@given(data=st.data())
def test_complete_objects_are_those_that_can_be_written(name: str, data: st.DataObject) -> None:
    codec = CODECS[name]
    whole = data.draw(scenes(codec.schema))
    keys = st.none() | st.sampled_from([fld.key for fld in codec.schema.fields])
    lost = [data.draw(keys) for _ in whole.objects]
    found = Scene(tuple(map(without, whole.objects, lost)))
    complete = codec.schema.complete(found)
    pairs = zip(whole.objects, lost, strict=True)
    assert complete.objects == tuple(item for item, key in pairs if key is None)
    codec.encode(complete)
    if any(lost):
        with pytest.raises(InputError, match="is missing"):
            codec.encode(found)


def without(item: SceneObject, key: str | None) -> SceneObject:
    """The object without one of its words or numbers."""
    words = {k: v for k, v in item.words.items() if k != key}
    numbers = {k: v for k, v in item.numbers.items() if k != key}
    return SceneObject(words, numbers, item.position_key)


@pytest.mark.parametrize(("name", "length"), [("clevr", 3), ("objaworld", 4), ("objectron", 3)])
def test_objects_know_their_position(name: str, length: int) -> None:
    (item,) = SCHEMAS[name].parse_scene(json.loads(WRITTEN[name]), "scene").objects
    assert len(item.position) == length
    moved = item.moved(*range(length))
    assert moved.position == tuple(range(length))
    assert moved.words == item.words
    assert SceneObject().position == ()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=6,
)
KEYS = ["size", "color", "material", "shape", "3d_coords", "rotation"]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES), st.sampled_from(["clevr", "objaworld"]))
def test_any_json_object_is_read(value: dict[str, Any], name: str) -> None:
    item = SCHEMAS[name].read(value)
    assert item.words.keys() | item.numbers.keys() <= value.keys()
    assert all(math.isfinite(v) or math.isnan(v) for v in item.position)
    if not SCHEMAS[name].faults(value):
        assert SCHEMAS[name].parse(value, "object") == item


def test_what_is_no_finite_number_becomes_nan() -> None:
    numbers = [True, "1", None, math.inf, 10**400, 2]
    (*unreadable, last) = SCHEMAS["clevr"].read({"3d_coords": numbers}).position
    assert all(map(math.isnan, unreadable))
    assert last == 2


def test_numbers_of_a_renderer_are_left_out_of_json_and_tokens() -> None:
    codec = CODECS["clevr"]
    scene = codec.schema.parse_scene(json.loads(WRITTEN["clevr"]), "scene")
    turned = Scene((scene.objects[0].updated(numbers={"rotation": (12.0,)}),))
    assert codec.encode(turned) == codec.encode(scene)
    assert codec.schema.scene_to_json(turned) == codec.schema.scene_to_json(scene)
