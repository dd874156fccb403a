"""Items drawn many at a time: their rules, their distribution, and what decides them."""

import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from two_samples import are_alike

from kyvo.common.errors import InputError
from kyvo.world import SceneOptions
from kyvo.world.clevr.placement import may_be_placed
from kyvo.world.clevr.scene import ClevrScene
from kyvo.world.instructions import KINDS, sample_edits
from kyvo.world.records import read_record
from kyvo.world.render.tracer import visible_shares
from kyvo.world.tasks import TASKS, Item, scene_options

CLEVR_TASKS = ("scenes", "instructions", "questions")
SMALL = SceneOptions(max_objects=6)
UNSEEN = replace(SMALL, min_visible_share=0)


def options_of(task: str) -> Any:
    return scene_options(task, max_objects=4)


def as_json(items: list[Item]) -> list[str]:
    """Everything that an item holds."""
    return [
        json.dumps([{name: scene.to_json() for name, scene in item.scenes.items()}, item.texts])
        for item in items
    ]


@pytest.fixture(scope="module", params=CLEVR_TASKS)
def drawn(request: pytest.FixtureRequest) -> tuple[str, list[Item]]:
    return request.param, TASKS[request.param].sample_many(range(120), "train", 7, SMALL)


@pytest.mark.parametrize("task", TASKS)
def test_an_item_does_not_depend_on_its_batch(task: str) -> None:
    sample, options = TASKS[task].sample_many, options_of(task)
    together = as_json(sample(range(12), "val", 1, options))
    alone = [as_json(sample([index], "val", 1, options))[0] for index in range(12)]
    assert alone == together
    some = [7, 2, 7, 11]
    assert as_json(sample(some, "val", 1, options)) == [together[index] for index in some]
    assert sample([], "val", 1, options) == []


def test_few_tries_or_many_give_the_same_edits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Insertions need room, which few of these scenes have: some take several."""
    crowded = SceneOptions(min_objects=5, max_objects=6, min_visible_share=0)
    together = sample_edits(range(30), "train", 0, crowded)
    monkeypatch.setattr("kyvo.world.instructions.edits._FEWEST_SCENES", 1)
    assert sample_edits(range(30), "train", 0, crowded) == together


@pytest.mark.parametrize("task", TASKS)
def test_seed_split_and_number_decide(task: str) -> None:
    sample, options = TASKS[task].sample_many, options_of(task)
    asked = ((7, "val", 1), (8, "val", 1), (7, "val", 2), (7, "test", 1))
    items = [sample([index], split, seed, options)[0] for index, split, seed in asked]
    cameras = {next(iter(item.scenes.values())).viewpoints.camera for item in items}
    assert len(cameras) == 4


def test_items_have_the_form_of_those_drawn_alone(drawn: tuple[str, list[Item]]) -> None:
    name, items = drawn
    expected = TASKS[name].sample(3, "train", 7, SMALL)
    found = items[3]
    assert found.scenes.keys() == expected.scenes.keys()
    assert found.texts.keys() == expected.texts.keys()
    for folder, scene in found.scenes.items():
        one, other = scene.to_json(), expected.scenes[folder].to_json()
        assert one.keys() == other.keys()
        assert (one["split"], one["image_index"], one["image_filename"]) == (
            other["split"],
            other["image_index"],
            other["image_filename"],
        )
    for folder, text in found.texts.items():
        assert text.keys() == expected.texts[folder].keys()


def test_scenes_keep_the_rules(drawn: tuple[str, list[Item]]) -> None:
    _, items = drawn
    scenes = [scene for item in items for scene in item.scenes.values()]
    for scene in scenes:
        assert len(scene.objects) <= 6
        for old, new in itertools.combinations(scene.objects, 2):
            assert may_be_placed(new.footprint, [old.footprint], SMALL.min_distance, SMALL.margin)
        assert max(abs(x) for item in scene.objects for x in item.position[:2]) <= 3
    assert min(min(visible_shares(scene)) for scene in scenes[:80]) >= SMALL.min_visible_share


@pytest.mark.parametrize("task", ["instructions", "questions"])
def test_texts_fit_their_scenes(task: str) -> None:
    for item in TASKS[task].sample_many(range(200), "train", 3, UNSEEN):
        ((folder, text),) = item.texts.items()
        record = read_record(folder, json.loads(json.dumps(text)), "here")
        assert not [*record.faults(*item.scenes.values())]


def test_the_kinds_of_edits_take_turns() -> None:
    items = TASKS["instructions"].sample_many(range(10), "train", 0, UNSEEN)
    assert [item.texts["instructions"]["kind"] for item in items] == [*KINDS, *KINDS]


def test_targets_are_checked_for_what_they_show() -> None:
    """Moves among many objects hide some unless that is looked at."""
    moving = [index for index in range(200) if KINDS[index % 5] == "moving_with_relation"]
    strict = replace(SMALL, min_visible_share=0.008)
    edits = sample_edits(moving, "train", 0, strict)
    assert min(min(visible_shares(edit.target)) for edit in edits) >= 0.008


def kind_of_scene(scene: ClevrScene) -> Any:
    x, y, _ = scene.objects[-1].position
    return int((x + 3) // 2), int((y + 3) // 2)


MARGINALS: dict[str, list[Callable[[Item], Any]]] = {
    "instructions": [
        lambda item: len(item.scenes["source"].objects),
        lambda item: kind_of_scene(item.scenes["target"]),
        lambda item: item.texts["instructions"]["attribute"],
        lambda item: item.texts["instructions"]["directions"],
        lambda item: item.texts["instructions"]["relation"] or "",
        lambda item: len(item.texts["instructions"]["instruction"].split()) // 3,
    ],
    "questions": [
        lambda item: len(item.scenes[""].objects),
        lambda item: item.texts["questions"]["family"],
        lambda item: item.texts["questions"]["answer"],
        lambda item: len(item.texts["questions"]["program"]) // 3,
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("task", MARGINALS)
def test_items_are_distributed_as_those_drawn_alone(task: str) -> None:
    many = TASKS[task].sample_many(range(2000), "train", 5, UNSEEN)
    alone = [TASKS[task].sample(index, "train", 5, UNSEEN) for index in range(1000)]
    for marginal in MARGINALS[task]:
        first, second = ([str(marginal(item)) for item in items] for items in (many, alone))
        rare = {kind for kind, number in Counter(first + second).items() if number < 15}
        assert are_alike(
            *(["rare" if kind in rare else kind for kind in kinds] for kinds in (first, second))
        ), (Counter(first), Counter(second))


def test_impossible_edits_are_refused() -> None:
    full = SceneOptions(min_objects=3, max_objects=3, min_visible_share=0)
    with pytest.raises(InputError, match=r"edit 2 of train: no scene .* 'insertion_with_relation'"):
        sample_edits(range(5), "train", 0, full)
    with pytest.raises(InputError, match="scene -1 of train: expected numbers of 0 or more"):
        sample_edits([-1], "train", 0, UNSEEN)


class DrawnItems(Dataset[list[str]]):
    """Batches of items, each drawn in the process that asks for it."""

    def __init__(self, task: str) -> None:
        self.task = task

    def __len__(self) -> int:
        return 2

    def __getitem__(self, batch: int) -> list[str]:
        torch.set_num_threads(1)
        indices = range(8 * batch, 8 * batch + 8)
        return as_json(TASKS[self.task].sample_many(indices, "val", 1, SMALL))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_draw_what_the_main_process_draws(start: str) -> None:
    for task in CLEVR_TASKS if start == "fork" else CLEVR_TASKS[1:2]:
        items = DrawnItems(task)
        loader = DataLoader(
            items, batch_size=None, num_workers=2, multiprocessing_context=start, timeout=120
        )
        assert [*loader] == [items[0], items[1]]
