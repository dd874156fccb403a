"""Scenes drawn in tensors against CLEVR's rules, and against the scenes of ``sample_scene``."""

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from two_samples import are_alike, ks_distance

from kyvo.common.errors import InputError
from kyvo.world import (
    COLORS,
    SIZES,
    ClevrScene,
    SceneOptions,
    render,
    sample_scene,
)
from kyvo.world.clevr import batch_sampler
from kyvo.world.clevr.batch_sampler import (
    SceneTensors,
    complete_scenes,
    finish_scenes,
    sample_scenes,
    scene_batch_of,
    show_all,
    tensors_of,
)
from kyvo.world.clevr.placement import may_be_placed
from kyvo.world.clevr.sampler import complete_scene
from kyvo.world.clevr.scene import RELATIONS, offset
from kyvo.world.random_words import choices, key_of, uniforms, words
from kyvo.world.render.scene_batch import build_scene_batch
from kyvo.world.render.tracer import render_batch, visible_shares
from kyvo.world.render.visibility import shows_enough
from kyvo.world.viewpoints import Viewpoints

CLEVR = SceneOptions()
UNSEEN = replace(CLEVR, min_visible_share=0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes() -> list[ClevrScene]:
    return complete_scenes(sample_scenes(range(150), "train", 3, CLEVR), CLEVR)


def assert_equal(first: SceneTensors, second: SceneTensors) -> None:
    for one, other in zip(first.tensors(), second.tensors(), strict=True):
        assert torch.equal(one, other)


def test_what_follows_from_a_scene_is_what_is_found_for_it_alone(scenes: list[ClevrScene]) -> None:
    for scene in scenes:
        objects, views = scene.objects, scene.viewpoints
        assert scene == complete_scene(scene.image_index, "train", objects, views, CLEVR)
        assert scene.relationships == {
            name: tuple(
                tuple(j for j, other in enumerate(objects) if offset(item, other, name) > 0.2)
                for item in objects
            )
            for name in RELATIONS
        }


def test_scenes_become_the_tensors_that_they_came_from(scenes: list[ClevrScene]) -> None:
    assert_equal(tensors_of(scenes, "train"), sample_scenes(range(150), "train", 3, CLEVR))
    bare = [
        replace(
            scene,
            objects=tuple(replace(item, pixel=None) for item in scene.objects),
            relationships=None,
        )
        for scene in scenes
    ]
    assert finish_scenes(bare, CLEVR) == scenes
    assert finish_scenes([], CLEVR) == []


def test_show_all_says_of_each_scene_what_its_image_shows() -> None:
    options = replace(CLEVR, min_visible_share=0.006)
    scenes = complete_scenes(sample_scenes(range(60), "train", 6, UNSEEN), UNSEEN)
    expected = [min(visible_shares(scene)) >= 0.006 for scene in scenes]
    assert 10 < sum(expected) < 50
    assert show_all(scenes, options) == expected
    assert show_all(scenes, UNSEEN) == [True] * 60
    assert show_all([], options) == []


def test_other_draws_give_other_scenes_of_the_same_number() -> None:
    (first, second) = complete_scenes(
        sample_scenes([4, 4], "train", 0, UNSEEN, draws=[4, 1000]), UNSEEN
    )
    (plain,) = complete_scenes(sample_scenes([4], "train", 0, UNSEEN), UNSEEN)
    assert first == plain
    assert second.image_index == 4
    assert second.viewpoints != plain.viewpoints


def test_every_pair_of_objects_keeps_the_rules(scenes: list[ClevrScene]) -> None:
    for scene in scenes:
        for old, new in itertools.combinations(scene.objects, 2):
            assert may_be_placed(new.footprint, [old.footprint], CLEVR.min_distance, CLEVR.margin)


def test_every_object_is_visible_enough(scenes: list[ClevrScene]) -> None:
    assert min(min(visible_shares(scene)) for scene in scenes[:60]) >= CLEVR.min_visible_share


def test_objects_are_on_the_ground_inside_the_extent(scenes: list[ClevrScene]) -> None:
    assert {len(scene.objects) for scene in scenes} == set(range(3, 11))
    items = [item for scene in scenes for item in scene.objects]
    assert all(item.position[2] == SIZES[item.size] for item in items)
    assert 2.9 < max(abs(x) for item in items for x in item.position[:2]) < 3
    assert 350 < max(item.rotation for item in items) < 360
    assert {item.color for item in items} == set(COLORS)
    assert {(item.material, item.shape) for item in items} == set(
        itertools.product(("rubber", "metal"), ("cube", "sphere", "cylinder"))
    )


def test_the_json_has_what_sample_scene_writes(scenes: list[ClevrScene]) -> None:
    expected = sample_scene(7, "train", 3, CLEVR).to_json()
    found = scenes[7].to_json()
    assert found.keys() == expected.keys()
    assert found["objects"][0].keys() == expected["objects"][0].keys()
    assert found["image_filename"] == "CLEVR_train_000007.png"
    assert list(found["world"]["lamps"]) == list(expected["world"]["lamps"])
    json.dumps(found)


def test_camera_and_lights_stay_within_their_jitter(scenes: list[ClevrScene]) -> None:
    cameras = np.array([scene.viewpoints.camera for scene in scenes])
    assert 0.45 < abs(cameras - (7.48113155, -6.50763988, 5.34366512)).max() <= 0.5
    backs = np.array([scene.viewpoints.lights[2] for scene in scenes])
    assert 0.9 < abs(backs - (-1.1685, 2.64602, 5.81574)).max() <= 1
    still = sample_scenes([4], "train", 0, replace(UNSEEN, camera_jitter=0, lamp_jitter=0))
    (scene,) = complete_scenes(still, UNSEEN)
    assert scene.viewpoints == Viewpoints()
    assert scene.viewpoints.camera == (7.48113155, -6.50763988, 5.34366512)


def test_words_come_from_the_options_alone() -> None:
    options = replace(UNSEEN, sizes=("small",), colors=("cyan", "red"), shapes=("cylinder",))
    for scene in complete_scenes(sample_scenes(range(30), "train", 0, options), options):
        for item in scene.objects:
            assert (item.size, item.shape) == ("small", "cylinder")
            assert item.color in ("cyan", "red")


def test_the_scene_batch_is_that_of_the_scenes() -> None:
    batch = sample_scenes(range(20), "train", 1, UNSEEN)
    found, expected = scene_batch_of(batch), build_scene_batch(complete_scenes(batch, UNSEEN), CPU)
    for part in fields(found):
        parts = getattr(found, part.name), getattr(expected, part.name)
        for field in fields(parts[0]):
            one, other = (getattr(each, field.name) for each in parts)
            assert one.dtype == other.dtype
            assert torch.equal(one, other), field.name


def test_images_of_the_scene_batch_are_those_of_the_scenes() -> None:
    batch = sample_scenes(range(3), "train", 2, UNSEEN)
    found = render_batch(scene_batch_of(batch), 24, 32, 2, seed=5)
    assert found.dtype == torch.uint8
    expected = render(complete_scenes(batch, UNSEEN), 24, 32, 2, seed=5)
    assert (found.numpy() == expected).all()


@pytest.mark.parametrize(
    ("options", "least"),
    [
        (UNSEEN, 0.0026),
        (UNSEEN, 0.0025),
        (UNSEEN, 0.009),
        (replace(UNSEEN, camera_jitter=3.0, min_objects=1), 0.004),
        (replace(UNSEEN, min_distance=-1.0, margin=0.0, extent=1.5), 0.0026),
    ],
    ids=["clevr", "whole pixels", "much", "cameras close by", "crowds"],
)
def test_verdicts_are_those_of_visible_shares(options: SceneOptions, least: float) -> None:
    batch = sample_scenes(range(60), "train", 4, options)
    shares = [min(visible_shares(scene)) for scene in complete_scenes(batch, options)]
    expected = [share >= least for share in shares]
    assert 0 < sum(expected) < len(expected)
    assert shows_enough(scene_batch_of(batch), least).tolist() == expected


def samples_of(options: SceneOptions, number: int) -> tuple[list[ClevrScene], list[ClevrScene]]:
    drawn = complete_scenes(sample_scenes(range(4 * number), "train", 5, options), options)
    return drawn, [sample_scene(index, "train", 5, options) for index in range(number)]


def cell(scene: ClevrScene) -> tuple[int, int]:
    """The cell of the last object, which had to make way for all others, on a grid of 5 x 5."""
    x, y, _ = scene.objects[-1].position
    return int((x + 3) // 1.2), int((y + 3) // 1.2)


def distance(scene: ClevrScene) -> float:
    first, last = (scene.objects[i].position[:2] for i in (0, -1))
    return math.dist(first, last)


def nearest(scene: ClevrScene) -> float:
    places = [item.position[:2] for item in scene.objects]
    return min(itertools.starmap(math.dist, itertools.combinations(places, 2)))


@pytest.mark.parametrize(
    ("options", "number"),
    [(UNSEEN, 300), (replace(CLEVR, max_objects=6), 200)],
    ids=["ten objects", "visible objects"],
)
def test_scenes_are_distributed_as_those_of_sample_scene(
    options: SceneOptions, number: int
) -> None:
    samples = samples_of(options, number)
    kinds: list[Callable[[ClevrScene], Any]] = [cell, lambda scene: len(scene.objects)]
    for field in ("size", "color", "material", "shape"):
        kinds.append(lambda scene, field=field: scene.objects[-1].words[field])
    kinds.append(lambda scene: (scene.objects[-1].size, scene.objects[-1].shape))
    for kind in kinds:
        assert are_alike(*([kind(scene) for scene in each] for each in samples))
    # Kolmogorov and Smirnov: exceeded by one pair of samples in a thousand.
    bound = 1.95 * math.sqrt(5 / (4 * number))
    numbers: list[Callable[[ClevrScene], float]] = [distance, nearest]
    numbers += [lambda s, i=i: s.objects[-1].position[i] for i in (0, 1)]
    numbers += [lambda s: s.objects[0].rotation, lambda s: s.viewpoints.camera[2]]
    for number_of in numbers:
        assert ks_distance(*([number_of(scene) for scene in each] for each in samples)) < bound


def test_a_scene_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    together = sample_scenes(range(40), "val", 1, CLEVR)
    chosen = [33, 5, 17]
    some = sample_scenes(chosen, "val", 1, CLEVR)
    assert complete_scenes(some, CLEVR) == [complete_scenes(together, CLEVR)[i] for i in chosen]
    for starts, fewest, tries in ((7, 1, (1, 49)), (64, 300, (50,))):
        monkeypatch.setitem(batch_sampler._STARTS, "cpu", starts)
        monkeypatch.setitem(batch_sampler._FEWEST_STARTS, "cpu", fewest)
        monkeypatch.setitem(batch_sampler._TRIES, "cpu", tries)
        assert_equal(sample_scenes(range(40), "val", 1, CLEVR), together)


def test_seed_split_and_number_decide() -> None:
    batches = [
        sample_scenes([index], split, seed, UNSEEN)
        for index, split, seed in ((7, "val", 1), (8, "val", 1), (7, "val", 2), (7, "test", 1))
    ]
    assert len({float(batch.place_2KN[0, 0, 0]) for batch in batches}) == 4
    assert_equal(sample_scenes(torch.tensor([7]), "val", 1, UNSEEN), batches[0])


def test_no_scenes_are_a_batch_too() -> None:
    batch = sample_scenes([], "val", 0, CLEVR)
    assert len(batch) == 0
    assert complete_scenes(batch, CLEVR) == []


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(InputError, match="scene -3 of val: expected numbers of 0 or more"):
        sample_scenes([1, -3], "val", 0, CLEVR)
    with pytest.raises(InputError, match="device"):
        sample_scenes([0], "val", 0, CLEVR, "nowhere")
    with pytest.raises(InputError, match="samples_per_pixel 0"):
        render_batch(scene_batch_of(sample_scenes([0], "val", 0, UNSEEN)), 4, 4, 0)
    crowd = replace(CLEVR, min_objects=5, max_objects=5, extent=0.5)
    with pytest.raises(InputError, match="scene 0 of train: 5 objects found no place"):
        sample_scenes([0], "train", 0, crowd)


def test_words_are_splitmix64() -> None:
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    found = words(1234567, torch.arange(1, 4)).tolist()
    assert tuple(word % 2**64 for word in found) == published


def test_uniforms_and_choices_fill_their_ranges_evenly() -> None:
    word = words(key_of("a"), torch.arange(30000))
    for numbers in uniforms(word):
        assert 0 < float(numbers.min()) < 1e-3
        assert 0.999 < float(numbers.max()) < 1
        assert ks_distance(numbers.tolist(), np.linspace(0, 1, 30001).tolist()) < 0.012
    first, second, third, fourth = choices(word, (2, 8, 3, 1))
    assert first.bincount().tolist() == pytest.approx([15000] * 2, abs=300)
    assert second.bincount().tolist() == pytest.approx([3750] * 8, abs=200)
    assert third.bincount().tolist() == pytest.approx([10000] * 3, abs=300)
    assert (fourth == 0).all()
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.02


@pytest.mark.gpu
def test_a_gpu_draws_the_same_scenes() -> None:
    found = sample_scenes(range(500), "val", 1, CLEVR, "cuda")
    expected = sample_scenes(range(500), "val", 1, CLEVR)
    for one, other in zip(found.to("cpu").tensors(), expected.tensors(), strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-12)
    batches = scene_batch_of(found), scene_batch_of(expected)
    assert torch.allclose(
        batches[0].primitives.placement_FN.cpu(), batches[1].primitives.placement_FN
    )
