"""A scene file as CLEVR publishes it (one of our own making) is read, drawn and written alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kyvo.common.files import read_json, write_json
from kyvo.prepare.tokenization import copy_originals
from kyvo.scenes import get_schema
from kyvo.world import ClevrScene, SceneOptions, find_relationships, render, sample_scene
from kyvo.world.questions import execute, read_program
from kyvo.world.render.tracer import visible_shares

# The layout of CLEVR_v1.0/scenes/*.json, one entry of its "scenes".
SCENE = """
{
  "image_index": 7,
  "objects": [
    {
      "color": "green", "size": "large", "rotation": 211.25, "shape": "cube",
      "3d_coords": [-1.5, 0.75, 0.699999988079071], "material": "rubber",
      "pixel_coords": [222, 108, 12.361216545104980]
    },
    {
      "color": "purple", "size": "small", "rotation": 12.5, "shape": "sphere",
      "3d_coords": [0.5, -2.0, 0.3499999940395355], "material": "metal",
      "pixel_coords": [240, 219, 8.270000457763672]
    }
  ],
  "relationships": {
    "right": [[], [0]], "behind": [[], [0]], "front": [[1], []], "left": [[1], []]
  },
  "image_filename": "CLEVR_val_000007.png",
  "split": "val",
  "directions": {
    "right": [0.6563149094581604, 0.7544902563095093, -0.0],
    "behind": [-0.754490315914154, 0.6563148498535156, 0.0],
    "above": [0.0, 0.0, 1.0],
    "below": [-0.0, -0.0, -1.0],
    "left": [-0.6563149094581604, -0.7544902563095093, 0.0],
    "front": [0.754490315914154, -0.6563148498535156, -0.0]
  }
}
"""


@pytest.fixture
def published(tmp_path: Path) -> Path:
    path = tmp_path / "scenes/CLEVR_val_000007.json"
    path.parent.mkdir()
    path.write_text(SCENE)
    return path


def form(value: Any) -> Any:
    """The keys and types of a JSON value."""
    if isinstance(value, dict):
        return {key: form(item) for key, item in value.items()}
    return [*map(form, value)] if isinstance(value, list) else type(value).__name__


def test_it_is_written_as_it_was_read(published: Path, tmp_path: Path) -> None:
    scene = read_json(published, "scene")
    write_json(tmp_path / "again.json", scene)
    again = json.loads((tmp_path / "again.json").read_text())
    # As text, where -0.0 is not 0.0 and the order of keys counts.
    assert json.dumps(again) == json.dumps(json.loads(SCENE))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images/CLEVR_val_000007.png")
    copy_originals(tmp_path, tmp_path / "copy")
    assert (tmp_path / "copy/scenes/CLEVR_val_000007.json").read_text() == SCENE


def test_sampled_scenes_have_the_same_form() -> None:
    options = SceneOptions(min_objects=2, max_objects=2)
    sampled = json.loads(json.dumps(sample_scene(7, "val", 0, options).to_json()))
    published = json.loads(SCENE)
    assert sampled.pop("world").keys() == {"camera", "lamps"}
    for scene in (sampled, published):
        relationships = scene.pop("relationships")
        assert relationships.keys() == {"left", "right", "front", "behind"}
        for lists in relationships.values():
            assert {type(place) for places in lists for place in places} <= {int}
            assert len(lists) == 2
    assert form(sampled) == form(published)
    assert sampled["image_filename"] == published["image_filename"]
    for name, direction in published["directions"].items():
        assert np.allclose(sampled["directions"][name], direction, atol=1e-6)


def test_relations_are_those_of_the_file() -> None:
    scene = ClevrScene.from_json(json.loads(SCENE), "scene")
    assert find_relationships(scene.objects) == scene.relationships


def test_objects_are_written_as_they_were_read() -> None:
    value = json.loads(SCENE)
    scene = ClevrScene.from_json(value, "scene")
    written = json.loads(json.dumps(scene.to_json()))
    assert json.dumps(written["objects"]) == json.dumps(value["objects"])
    for key in ("split", "image_index", "image_filename", "relationships"):
        assert written[key] == value[key]


def test_it_is_drawn_and_asked_about(published: Path) -> None:
    """The tracer puts each object where the file says that it is seen."""
    scene = ClevrScene.from_json(read_json(published, "scene"), "scene")
    image = render([scene], 320, 480, 1)[0].astype(int)
    assert scene.objects[0].pixel is not None
    column, row, _ = scene.objects[0].pixel
    red, green, blue = image[row, column]
    assert green > 1.5 * max(red, blue)
    assert min(visible_shares(scene)) > 0.0026
    program = read_program(
        [
            {"function": "scene", "inputs": [], "value_inputs": []},
            {"function": "filter_size", "inputs": [0], "value_inputs": ["large"]},
            {"function": "unique", "inputs": [1], "value_inputs": []},
            {"function": "relate", "inputs": [2], "value_inputs": ["front"]},
            {"function": "unique", "inputs": [3], "value_inputs": []},
            {"function": "query_color", "inputs": [4], "value_inputs": []},
        ]
    )
    assert execute(program, scene) == "purple"


def test_it_fits_the_schema(published: Path) -> None:
    objects = read_json(published, "scene")["objects"]
    schema = get_schema("clevr")
    assert [fault for item in objects for fault in schema.faults(item)] == []
    assert np.allclose(schema.fields[-1].axes[2].snap(objects[0]["3d_coords"][2]), 0.7)
