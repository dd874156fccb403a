"""Edits against a naive reading of their words: regular expressions, brute force, geometry."""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from kyvo.common.errors import InputError
from kyvo.world import ClevrObject, SceneOptions, project, sample_scene
from kyvo.world.instructions import KINDS, Edit, edit_scene, sample_edit
from kyvo.world.render.tracer import visible_shares

UNCHECKED = SceneOptions(min_visible_share=0)
ROOMY = SceneOptions(min_visible_share=0, max_objects=6)
FEW_WORDS = SceneOptions(
    min_visible_share=0, max_objects=5, sizes=("large",), colors=("red", "blue"), shapes=("cube",)
)
NUM_FEW_WORDS = 100
WORLDS = ((UNCHECKED, 250), (ROOMY, 450), (FEW_WORDS, NUM_FEW_WORDS))

RIGHT, BEHIND = np.array([0.65631, 0.75449]), np.array([-0.75449, 0.65631])
AXES = {"left": -RIGHT, "right": RIGHT, "front": -BEHIND, "behind": BEHIND}
RADII = {"large": 0.7, "small": 0.35}
LISTS = {
    "size": "large|small",
    "color": "gray|red|blue|green|brown|purple|cyan|yellow",
    "material": "rubber|metal",
    "shape": "cube|sphere|cylinder",
}
ATTRIBUTE_OF = {word: name for name, words in LISTS.items() for word in words.split("|")}
ADJECTIVES = "".join(rf"(?:(?:{LISTS[name]}) )?" for name in ("size", "color", "material"))
KNOWN = re.compile(rf"\bthe ({ADJECTIVES}(?:{LISTS['shape']}|object|thing))\b")
NEW = re.compile(r"\ba (?:new )?((?:{}) (?:{}) (?:{}) (?:{}))\b".format(*LISTS.values()))
PLACE_WORDS = {"left": "left", "right": "right", "front": "front|near", "behind": "behind|rear|far"}
HEADING_WORDS = {
    "left": "left|leftwards",
    "right": "right|rightwards",
    "front": "front|towards the viewer",
    "behind": "back|rear|away from the viewer",
}


@pytest.fixture(scope="module")
def edits() -> dict[str, list[Edit]]:
    """Edits of each kind, without the slow check of what is visible."""
    return {
        kind: [
            sample_edit(index, "train", kind, 5, options)
            for options, count in WORLDS
            for index in range(count)
        ]
        for kind in KINDS
    }


def test_the_kinds_are_named_as_in_the_released_files() -> None:
    assert set(KINDS) == {
        "appearance_no_relation",
        "appearance_with_relation",
        "insertion_with_relation",
        "moving_with_relation",
        "removal_with_relation",
    }


def directions_in(text: str, words: dict[str, str]) -> set[str]:
    return {name for name, keys in words.items() if re.search(rf"\b(?:{keys})\b", text)}


def matches(objects: Sequence[ClevrObject], words: str) -> set[int]:
    """Every object of which all attribute words are true."""
    wanted = [word for word in words.split() if word in ATTRIBUTE_OF]
    return {
        i for i, item in enumerate(objects) if all(item.words[ATTRIBUTE_OF[w]] == w for w in wanted)
    }


def only(found: set[Any]) -> Any:
    assert len(found) == 1, found
    return next(iter(found))


def offset(one: ClevrObject, other: ClevrObject) -> np.ndarray:
    """From one to the other on the ground."""
    return np.subtract(other.position, one.position)[:2]


def resolve_plain(objects: Sequence[ClevrObject], text: str) -> tuple[int, str]:
    """The one object that the sentence names, and the sentence without it."""
    words = only(set(KNOWN.findall(text)))
    return only(matches(objects, words)), KNOWN.sub("@", text)


def resolve_related(objects: Sequence[ClevrObject], text: str) -> tuple[int, int, str, str]:
    """The object named through an anchor, the anchor, the relation, and the rest of the text."""
    first, second = KNOWN.findall(text)
    between = re.search(r"@(.*?)@", KNOWN.sub("@", text))
    assert between
    relation = only(directions_in(between.group(1), PLACE_WORDS))
    anchor = only(matches(objects, second))
    alike = matches(objects, first)
    assert len(alike) > 1, "the relation is not needed"
    standing = {i for i in alike if offset(objects[anchor], objects[i]) @ AXES[relation] > 0.2}
    rest = re.sub(r"@(.*?)@", "@", KNOWN.sub("@", text))
    return only(standing), anchor, relation, rest


def lowered(edit: Edit) -> str:
    return edit.instruction[0].lower() + edit.instruction[1:]


def bare(objects: Sequence[ClevrObject]) -> list[ClevrObject]:
    """The objects without what follows from the rest of them."""
    return [replace(item, pixel=None) for item in objects]


def restyled(objects: Sequence[ClevrObject], index: int, rest: str) -> list[ClevrObject]:
    """The objects after one has got the only attribute word in the rest of the sentence."""
    value = only(set(re.findall(r"\w+", rest)) & ATTRIBUTE_OF.keys())
    attribute = ATTRIBUTE_OF[value]
    assert set(re.findall(r"\b(size|color|material|shape)\b", rest)) <= {attribute}
    changed = bare(objects)
    assert changed[index].words[attribute] != value
    x, y, _ = changed[index].position
    changed[index] = replace(changed[index], **{attribute: value})
    changed[index] = replace(changed[index], position=(x, y, RADII[changed[index].size]))
    return changed


@pytest.mark.slow
def test_appearance_changes_as_the_words_say(edits: dict[str, list[Edit]]) -> None:
    for edit in edits["appearance_no_relation"]:
        index, rest = resolve_plain(edit.source.objects, lowered(edit))
        assert bare(edit.target.objects) == restyled(edit.source.objects, index, rest)
        assert (edit.change.index, edit.change.anchor, edit.change.relation) == (index, None, None)
        assert edit.target.objects[index].words[edit.change.attribute] == edit.change.value
        assert edit.change.value in rest


@pytest.mark.slow
def test_appearance_of_a_related_object_changes_as_the_words_say(
    edits: dict[str, list[Edit]],
) -> None:
    for edit in edits["appearance_with_relation"]:
        index, anchor, relation, rest = resolve_related(edit.source.objects, lowered(edit))
        assert bare(edit.target.objects) == restyled(edit.source.objects, index, rest)
        assert (edit.change.index, edit.change.anchor, edit.change.relation) == (
            index,
            anchor,
            relation,
        )
        assert edit.target.objects[index].words[edit.change.attribute] == edit.change.value


@pytest.mark.slow
def test_removal_takes_the_object_that_the_words_say(edits: dict[str, list[Edit]]) -> None:
    for edit in edits["removal_with_relation"]:
        index, anchor, relation, rest = resolve_related(edit.source.objects, lowered(edit))
        left = [item for i, item in enumerate(edit.source.objects) if i != index]
        assert [*edit.target.objects] == left
        assert (edit.change.index, edit.change.anchor, edit.change.relation) == (
            index,
            anchor,
            relation,
        )
        assert not set(re.findall(r"\w+", rest)) & ATTRIBUTE_OF.keys()


@pytest.mark.slow
def test_insertion_adds_the_object_that_the_words_say(edits: dict[str, list[Edit]]) -> None:
    for edit in edits["insertion_with_relation"]:
        text, objects = lowered(edit), edit.source.objects
        words = only(set(NEW.findall(text)))
        anchor, rest = resolve_plain(objects, text)
        relation = only(directions_in(NEW.sub("#", rest), PLACE_WORDS))
        *old, new = edit.target.objects
        assert old == [*objects]
        assert [*new.words.values()] == words.split()
        steps = {name: offset(objects[anchor], new) @ axis for name, axis in AXES.items()}
        assert max(steps, key=steps.__getitem__) == relation
        assert steps[relation] > 0.2
        assert steps[relation] > 1.4 * sorted(steps.values())[-2]
        assert math.hypot(*offset(objects[anchor], new)) <= 2.5
        assert (edit.change.index, edit.change.anchor, edit.change.relation) == (
            len(objects),
            anchor,
            relation,
        )


@pytest.mark.slow
def test_moving_goes_where_the_words_say(edits: dict[str, list[Edit]]) -> None:
    for edit in edits["moving_with_relation"]:
        objects = edit.source.objects
        index, rest = resolve_plain(objects, lowered(edit))
        directions = directions_in(rest, HEADING_WORDS)
        before, after = bare(objects), bare(edit.target.objects)
        assert before[:index] + before[index + 1 :] == after[:index] + after[index + 1 :]
        assert replace(before[index], position=after[index].position) == after[index]
        assert before[index].position[2] == after[index].position[2]
        step = offset(before[index], after[index])
        assert 0.8 <= math.hypot(*step) <= 2.5
        assert {name for name, axis in AXES.items() if step @ axis > 0.2} == directions
        assert len(directions) in (1, 2)
        assert len(directions) == 1 or min(step @ AXES[name] for name in directions) > 0.33
        assert (edit.change.index, set(edit.change.directions)) == (index, directions)


def everything(edits: dict[str, list[Edit]]) -> Iterator[Edit]:
    return itertools.chain.from_iterable(edits.values())


@pytest.mark.slow
def test_the_rest_of_the_target_follows(edits: dict[str, list[Edit]]) -> None:
    for edit in everything(edits):
        source, target = edit.source.to_json(), edit.target.to_json()
        kept = {"split", "image_index", "image_filename", "directions", "world"}
        assert {key: target[key] for key in kept} == {key: source[key] for key in kept}
        assert set(target) == kept | {"objects", "relationships"}
        objects = edit.target.objects
        for name, axis in AXES.items():
            assert target["relationships"][name] == tuple(
                tuple(j for j, other in enumerate(objects) if offset(item, other) @ axis > 0.2)
                for item in objects
            )
        for item in objects:
            seen = project(edit.target.viewpoints.camera, item.position, 256, 256)
            assert item.pixel == seen


def rim(item: ClevrObject, count: int = 120) -> np.ndarray:
    """Points (N, 2) on the outline of an object's footprint."""
    steps = np.linspace(0, 2 * math.pi, count, endpoint=False)
    ring = np.stack([np.cos(steps), np.sin(steps)], 1)
    if item.shape == "cube":
        ring /= abs(ring).max(1, keepdims=True)
    cosine, sine = math.cos(item.rotation), math.sin(item.rotation)
    turned = ring @ np.array([[cosine, sine], [-sine, cosine]])
    return turned * RADII[item.size] + item.position[:2]


def covers(item: ClevrObject, points: np.ndarray) -> bool:
    cosine, sine = math.cos(item.rotation), math.sin(item.rotation)
    local = (points - item.position[:2]) @ np.array([[cosine, -sine], [sine, cosine]])
    is_cube = item.shape == "cube"
    reach = abs(local).max(1) if is_cube else np.linalg.norm(local, axis=1)
    return bool((reach <= RADII[item.size]).any())


@pytest.mark.slow
def test_targets_obey_the_rules_of_placement(edits: dict[str, list[Edit]]) -> None:
    for edit in everything(edits):
        objects = edit.target.objects
        assert len(objects) <= 10
        for one, other in itertools.combinations(objects, 2):
            step = offset(one, other)
            assert math.hypot(*step) - RADII[one.size] - RADII[other.size] >= 0.25
            assert min(abs(step @ RIGHT), abs(step @ BEHIND)) > 0.3999
        for item in objects:
            assert item.position[2] == RADII[item.size]
            assert max(map(abs, item.position[:2])) <= 3
            assert 0 <= item.rotation <= 360
        if edit.kind != "removal_with_relation":
            edited = objects[edit.change.index]
            for other in (item for item in objects if item is not edited):
                assert not covers(edited, rim(other))
                assert not covers(other, rim(edited))


@pytest.mark.slow
def test_easier_worlds_stay_within_their_words(edits: dict[str, list[Edit]]) -> None:
    easy = [edit for group in edits.values() for edit in group[-NUM_FEW_WORDS:]]
    for item in (item for edit in easy for item in edit.target.objects):
        assert (item.size, item.shape) == ("large", "cube")
        assert item.color in ("red", "blue")


@pytest.mark.slow
def test_every_kind_of_change_occurs(edits: dict[str, list[Edit]]) -> None:
    for kind in ("appearance_no_relation", "appearance_with_relation"):
        assert {edit.change.value for edit in edits[kind]} == ATTRIBUTE_OF.keys()
    moves = {frozenset(edit.change.directions) for edit in edits["moving_with_relation"]}
    corners = {frozenset(p) for p in itertools.product(("left", "right"), ("front", "behind"))}
    assert moves == corners | {frozenset([name]) for name in AXES}
    for kind in ("appearance_with_relation", "insertion_with_relation", "removal_with_relation"):
        assert {edit.change.relation for edit in edits[kind]} == AXES.keys()
    named = [KNOWN.findall(lowered(edit))[0].split() for edit in everything(edits)]
    assert {sum(word in ATTRIBUTE_OF for word in words) for words in named} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_depends_on_its_arguments_alone(kind: str) -> None:
    alone = sample_edit(3, "val", kind, 1, UNCHECKED)
    sample_edit(2, "val", kind, 1, UNCHECKED)
    again = sample_edit(3, "val", kind, 1, UNCHECKED)
    assert again == alone
    plain = sample_scene(3, "val", 1, UNCHECKED)
    others = [
        sample_edit(4, "val", kind, 1, UNCHECKED).source,
        sample_edit(3, "val", kind, 2, UNCHECKED).source,
        sample_edit(3, "test", kind, 1, UNCHECKED).source,
        *(sample_edit(3, "val", other, 1, UNCHECKED).source for other in KINDS),
        plain,
    ]
    assert len({scene.viewpoints.camera for scene in others}) == len(others)
    assert alone.source.image_filename == plain.image_filename == "CLEVR_val_000003.png"


def test_targets_show_enough_of_every_object() -> None:
    options = SceneOptions(max_objects=6)
    for kind, index in itertools.product(KINDS, range(6)):
        edit = sample_edit(index, "train", kind, 0, options)
        assert min(visible_shares(edit.target)) >= 0.0026
        assert min(visible_shares(edit.source)) >= 0.0026


def test_only_the_check_of_what_is_visible_keeps_objects_from_hiding() -> None:
    """The same scenes edited with a strict limit and with none."""
    strict = SceneOptions(max_objects=6, min_visible_share=0.006)
    scenes = [sample_scene(index, "train", 0, strict) for index in range(25)]

    def least_visible(options: SceneOptions) -> list[float]:
        found = [
            edit_scene(scene, "moving_with_relation", Random(index), options)
            for index, scene in enumerate(scenes)
        ]
        return [min(visible_shares(edit.target)) for edit in found if edit]

    checked, unchecked = least_visible(strict), least_visible(UNCHECKED)
    assert len(checked) > 20
    assert min(checked) >= 0.006 > min(unchecked)


def test_scenes_that_offer_no_such_edit() -> None:
    full = sample_scene(0, "train", 0, SceneOptions(min_objects=10, min_visible_share=0))
    assert edit_scene(full, "insertion_with_relation", Random(0), UNCHECKED) is None
    single = SceneOptions(min_objects=1, max_objects=1, min_visible_share=0)
    alone = sample_scene(0, "train", 0, single)
    for kind in ("appearance_with_relation", "removal_with_relation"):
        assert edit_scene(alone, kind, Random(0), single) is None


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="'appearance': expected one of appearance_no_relation"):
        sample_edit(0, "train", "appearance", 0, UNCHECKED)


ONE_LOOK = {"sizes": ("large",), "colors": ("red",), "shapes": ("cube",), "materials": ("metal",)}


@pytest.mark.parametrize(
    ("kind", "impossible"),
    [
        ("insertion_with_relation", {"min_objects": 4, "max_objects": 4}),
        ("removal_with_relation", {"min_objects": 1, "max_objects": 1}),
        ("appearance_with_relation", {"min_objects": 3, "max_objects": 3, **ONE_LOOK}),
        ("appearance_no_relation", {"min_objects": 1, "max_objects": 1, **ONE_LOOK}),
        ("moving_with_relation", {"min_objects": 1, "max_objects": 1, "extent": 0.2}),
    ],
)
def test_impossible_options_of_an_edit_are_refused(kind: str, impossible: dict[str, Any]) -> None:
    options = SceneOptions(min_visible_share=0, **impossible)
    with pytest.raises(InputError, match=f"edit 0 of train: no scene .* {kind!r} .* Expected"):
        sample_edit(0, "train", kind, 0, options)
