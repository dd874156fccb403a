"""Sampled ObjaWorld scenes against their rules, and on their way through tokens and metrics."""

import itertools
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from objaworld_primitives import surface_points
from scene_samples import CODECS, decode, encode

from kyvo.common.errors import InputError
from kyvo.common.files import write_json
from kyvo.metrics import load_evaluation, score_scenes
from kyvo.scenes.presets import OBJAWORLD
from kyvo.world.objaworld import (
    ENVIRONMENTS,
    MODELS,
    ObjaWorldObject,
    ObjaWorldOptions,
    ObjaWorldScene,
    sample_objaworld_scene,
)
from kyvo.world.objaworld.models import ASSETS, center_height
from kyvo.world.render.tracer import visible_shares

CODEC = CODECS["objaworld"]


@pytest.fixture(scope="module")
def scenes() -> list[ObjaWorldScene]:
    return [
        sample_objaworld_scene(index, "train", 3, ObjaWorldOptions(environment=name))
        for name in ENVIRONMENTS
        for index in range(20)
    ]


def ground_points(item: ObjaWorldObject) -> np.ndarray:
    """Points (N, 2) that the object covers, seen from above."""
    kind, number = ASSETS[item.shape]
    x, y, _ = item.position
    primitives = MODELS[kind].primitives(number, x, y, item.rotation, object_index=0)
    return np.concatenate([surface_points(primitive, 60)[:, :2] for primitive in primitives])


def test_objects_stand_apart(scenes: list[ObjaWorldScene]) -> None:
    for scene in scenes:
        clouds = [ground_points(item) for item in scene.objects]
        for one, other in itertools.combinations(clouds, 2):
            gaps = np.linalg.norm(one[:, None] - other, axis=-1)
            assert gaps.min() > 0.04


def test_objects_keep_to_their_place_their_range_and_the_ground(
    scenes: list[ObjaWorldScene],
) -> None:
    for scene in scenes:
        assert 1 <= len(scene.objects) <= 6
        for item in scene.objects:
            kind, _ = ASSETS[item.shape]
            x, y, z = item.position
            assert kind in ENVIRONMENTS[scene.environment].kinds
            assert max(abs(x), abs(y)) <= 2.5
            assert z == center_height(item.shape)
            assert -math.pi <= item.rotation <= math.pi
            assert item.pixel is not None
            column, row, depth = item.pixel
            assert 0 <= column < 256
            assert 0 <= row < 256
            assert 3 < depth < 14


def test_objects_are_seen(scenes: list[ObjaWorldScene]) -> None:
    for scene in scenes[::3]:
        together = visible_shares(scene)
        for item, share in zip(scene.objects, together, strict=True):
            (alone,) = visible_shares(replace(scene, objects=(item,)))
            assert share >= max(0.5 * alone, 1e-4)


def test_all_kinds_and_all_directions_occur(scenes: list[ObjaWorldScene]) -> None:
    items = [item for scene in scenes for item in scene.objects]
    kinds = Counter(item.shape.split("-")[0] for item in items)
    assert set(kinds) == set(MODELS)
    assert min(kinds.values()) > 8
    assert len({item.shape for item in items}) > 20
    quarters = Counter(math.floor(item.rotation / (math.pi / 2)) for item in items)
    assert set(quarters) == {-2, -1, 0, 1}
    assert min(quarters.values()) > len(items) / 8
    assert {len(scene.objects) for scene in scenes} == set(range(1, 7))


def test_the_arguments_alone_decide_a_scene() -> None:
    def draw(
        index: int = 4, split: str = "train", seed: int = 0, environment: str = "park"
    ) -> ObjaWorldScene:
        return sample_objaworld_scene(index, split, seed, ObjaWorldOptions(environment))

    assert draw() == draw()
    others = (draw(5), draw(split="test"), draw(seed=1), draw(environment="livingroom"))
    assert all(other.viewpoints != draw().viewpoints for other in others)


def test_scenes_pass_through_json_and_tokens(scenes: list[ObjaWorldScene]) -> None:
    for scene in scenes:
        assert ObjaWorldScene.from_json(json.loads(json.dumps(scene.to_json())), "") == scene
        found_scene, report = CODEC.read(encode(CODEC, scene.to_json()["objects"]))
        assert not report.reasons
        for item, found in zip(scene.objects, found_scene.objects, strict=True):
            assert found.words["shape"] == item.shape.split("-")[0]
            offset = np.subtract(found.position, [*item.position, item.rotation])
            assert abs(offset[:3]).max() <= 0.0251
            assert abs(offset[2]) < 1e-9
            assert abs(offset[3]) <= (0.0251 if abs(item.rotation) <= 3 else 0.15)


def test_read_back_scenes_score_as_perfect_against_scene_files(
    scenes: list[ObjaWorldScene], tmp_path: Path
) -> None:
    for scene in scenes:
        folder = tmp_path / f"output-{scene.environment}-large-10K-6" / "scenes"
        write_json((folder / scene.image_filename).with_suffix(".json"), scene.to_json())
    predictions = [
        {"key": scene.key, "objects": decode(CODEC, encode(CODEC, scene.to_json()["objects"]))}
        for scene in scenes
    ]
    write_json(tmp_path / "predicted.json", {"scenes": predictions})
    evaluation = load_evaluation(tmp_path / "predicted.json", tmp_path, OBJAWORLD)
    assert score_scenes(evaluation, (0.05,)).mean == 1
    for prediction in predictions:
        for item in prediction["objects"]:
            item["3d_coords"][3] += 0.4
    write_json(tmp_path / "predicted.json", {"scenes": predictions})
    evaluation = load_evaluation(tmp_path / "predicted.json", tmp_path, OBJAWORLD)
    assert score_scenes(evaluation, (0.05,)).mean < 0.05


def test_options_decide_numbers_and_jitter() -> None:
    options = ObjaWorldOptions(
        min_objects=2, max_objects=2, extent=1.5, camera_jitter=0.0, lamp_jitter=0.0, width=64
    )
    first, second = (sample_objaworld_scene(i, "train", 0, options) for i in range(2))
    assert first.viewpoints == second.viewpoints
    for item in first.objects + second.objects:
        assert max(map(abs, item.position[:2])) <= 1.5
        assert item.pixel is not None
        assert item.pixel[0] < 64
    assert len(first.objects) == len(second.objects) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"environment": "moon"}, "'moon'.*park, livingroom"),
        ({"min_objects": 0}, "min_objects 0"),
        ({"min_objects": 7}, "min_objects 7.*1 to 6"),
        ({"extent": 3.5}, "extent 3.5"),
        ({"min_visible_part": 1.5}, "min_visible_part"),
        ({"camera_jitter": -1}, "camera_jitter"),
        ({"height": 0}, "height 0"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ObjaWorldOptions(**options)


def test_a_crowd_that_finds_no_place_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kyvo.world.objaworld.sampler.MAX_STARTS", 3)
    crowd = ObjaWorldOptions(min_objects=6, extent=0.5)
    with pytest.raises(InputError, match="scene 0 of train: 6 objects found no place in 3 starts"):
        sample_objaworld_scene(0, "train", 0, crowd)
