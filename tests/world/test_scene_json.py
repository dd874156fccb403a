"""Scenes on their way from JSON to types and back: what is refused, and what is written."""

import hashlib
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kyvo.common.errors import InputError
from kyvo.world import ClevrObject, ClevrScene, SceneOptions, sample_scene
from kyvo.world.clevr.rendering import render_json
from kyvo.world.clevr.scene import ATTRIBUTES
from kyvo.world.objaworld import ObjaWorldObject, ObjaWorldScene
from kyvo.world.tasks import scene_options
from kyvo.world.viewpoints import Viewpoints
from kyvo.world.writer import WorldOptions, write_world

CUBE = {
    "size": "large",
    "color": "gray",
    "material": "rubber",
    "shape": "cube",
    "3d_coords": [0.0, 1.0, 0.7],
    "rotation": 0.5,
}
BENCH = {"shape": "bench-00", "3d_coords": [0.0, 1.0, 0.4], "rotation": 0.5}

# Of the JSON files of six items by task, as they were written when scenes were dicts.
DIGESTS = {
    "scenes": "f4d1d28399063b643f00cfab4b343f40709acf06632a45352aff500bf404f8d0",
    "instructions": "42c82631f1f48cb251d6477aca56621502b3da11d0cf558d2eeb8c02fd26ffcb",
    "questions": "43506bc88f61f263d9dcf6a2972643882c66d463bc5750d1f103eca97be00fe1",
    "objaworld": "2a0a9f93b585bd1245eee1a7dc13dbac4c222441628c22c023bf32b096ce3841",
}


@pytest.mark.parametrize("task", DIGESTS)
def test_files_have_the_bytes_that_they_always_had(task: str, tmp_path: Path) -> None:
    scenes = scene_options(task, min_objects=3, max_objects=5, height=16, width=16)
    options = WorldOptions(scenes, samples_per_pixel=1, seed=7, task=task)
    write_world(tmp_path, {"train": 6}, options)
    digest = hashlib.sha256()
    for path in sorted(tmp_path.rglob("*.json")):
        digest.update(f"{path.relative_to(tmp_path)}\n".encode() + path.read_bytes())
    assert digest.hexdigest() == DIGESTS[task]


coordinates = st.floats(-3, 3)
positions = st.tuples(coordinates, coordinates, coordinates)
pixels = st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255), coordinates)
clevr_objects = st.builds(
    ClevrObject,
    *(st.sampled_from(words) for words in ATTRIBUTES.values()),
    position=positions,
    rotation=st.floats(0, 360),
    pixel=pixels,
    keys=st.permutations((*CUBE, "pixel_coords")).map(tuple),
)
objaworld_objects = st.builds(
    ObjaWorldObject,
    st.sampled_from(("bench-05", "sofa", "person-01")),
    position=positions,
    rotation=coordinates,
    pixel=pixels,
)


def through_json(value: dict[str, Any]) -> dict[str, Any]:
    return json.loads(orjson.dumps(value))


@given(clevr_objects)
def test_clevr_objects_come_back_as_they_were(item: ClevrObject) -> None:
    value = through_json(item.to_json())
    again = ClevrObject.from_json(value, "object")
    assert again == item
    assert orjson.dumps(again.to_json()) == orjson.dumps(value)


@given(objaworld_objects)
def test_objaworld_objects_come_back_as_they_were(item: ObjaWorldObject) -> None:
    assert ObjaWorldObject.from_json(through_json(item.to_json()), "object") == item


def test_scenes_come_back_as_they_were() -> None:
    scene = sample_scene(3, "val", 0, SceneOptions(min_visible_share=0))
    assert ClevrScene.from_json(through_json(scene.to_json()), "scene") == scene


def test_a_predicted_scene_needs_objects_only() -> None:
    item = {key: value for key, value in CUBE.items() if key != "rotation"}
    scene = ClevrScene.from_json({"objects": [item | {"3d_coords": [0, 1, 0.35]}]}, "scene")
    assert scene.objects[0].rotation == 0
    assert scene.viewpoints == Viewpoints()
    assert scene.relationships is None
    assert scene.objects[0].to_json().keys() == item.keys()


def test_a_predicted_yaw_may_be_the_fourth_number_of_the_position() -> None:
    predicted = {"shape": "bench", "3d_coords": [0.0, 1.0, 0.4, 0.5]}
    found = ObjaWorldObject.from_json(predicted, "object")
    assert found == ObjaWorldObject("bench", (0.0, 1.0, 0.4), 0.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"color": "pink"}, "'color' is 'pink'.*gray"),
        ({"shape": ["cube"]}, "'shape'"),
        ({"3d_coords": [0, 1]}, "'3d_coords'.*3 in all"),
        ({"3d_coords": [0, float("nan"), 1]}, "finite"),
        ({"rotation": "much"}, "'rotation'"),
        ({"pixel_coords": [1, 2]}, "'pixel_coords'"),
    ],
)
def test_broken_clevr_objects_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"scene 1 .*object 0.*{message}"):
        render_json([{"objects": []}, {"objects": [CUBE | fields]}], 8, 8)


@pytest.mark.parametrize(
    "world",
    [
        {"camera": [0, 0, 0]},
        {"lamps": {"moon": [1, 1, 1]}},
        {"camera": [1, 2]},
        {"lamps": [1, 2]},
        3,
    ],
)
def test_broken_worlds_are_refused(world: Any) -> None:
    with pytest.raises(InputError, match=r"scene 0 \(CLEVR_a.png\)"):
        render_json([{"image_filename": "CLEVR_a.png", "objects": [], "world": world}], 8, 8)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objects": None}, "no list under 'objects'"),
        ({"objects": ["cube"]}, "object 0: 'cube'"),
        ({"split": 3}, "'split' is 3"),
        ({"image_index": "3"}, "'image_index' is '3'"),
        ({"relationships": {"left": [[1]]}}, "relationships: left: expected a list"),
    ],
)
def test_broken_scenes_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"scene 7.*{message}"):
        ClevrScene.from_json({"objects": [CUBE], **fields}, "scene 7")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shape": "bench-99"}, "'shape' is 'bench-99'.*lamppost"),
        ({"shape": None}, "'shape' is None"),
        ({"3d_coords": [0, 1]}, "'3d_coords' and 'rotation'.*4 in all"),
        ({"rotation": float("nan")}, "finite"),
    ],
)
def test_broken_objaworld_objects_are_refused(fields: dict[str, Any], message: str) -> None:
    scene = {"environment": "park", "objects": [BENCH | fields]}
    with pytest.raises(InputError, match=f"scene 1, object 0.*{message}"):
        ObjaWorldScene.from_json(scene, "scene 1")


def test_broken_objaworld_scenes_are_refused() -> None:
    def read(**fields: Any) -> ObjaWorldScene:
        return ObjaWorldScene.from_json({"environment": "park", "objects": [], **fields}, "scene 0")

    with pytest.raises(InputError, match=r"scene 0: 'environment' is 'moon'.*park, livingroom"):
        read(environment="moon")
    with pytest.raises(InputError, match="object 0"):
        read(objects=["bench"])
    with pytest.raises(InputError, match="'rotation'"):
        read(objects=[{key: value for key, value in BENCH.items() if key != "rotation"}])
