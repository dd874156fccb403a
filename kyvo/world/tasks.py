"""What a world is made of: scenes, edited pairs with instructions, scenes with questions.

An item of a world is one number of a split: its scenes, each to be shown in an image, and what is
said about them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from random import Random
from typing import Any

from kyvo.common.errors import InputError
from kyvo.world import objaworld
from kyvo.world.clevr.batch_sampler import complete_scenes, sample_scenes
from kyvo.world.clevr.sampler import (
    SceneOptions,
    image_filename,
    sample_each,
    sample_scene,
)
from kyvo.world.clevr.scene import ClevrScene
from kyvo.world.instructions import Edit, kind_of, sample_edit, sample_edits
from kyvo.world.objaworld import ObjaWorldOptions, ObjaWorldScene
from kyvo.world.questions import ask

Scene = ClevrScene | ObjaWorldScene
Options = SceneOptions | ObjaWorldOptions


@dataclass(frozen=True)
class Item:
    """One number of a split.

    Attributes:
        scenes: by the folder that their images and scene files go to, "" for the split's own.
        texts: JSON values by the folder that they go to.
    """

    scenes: Mapping[str, Scene]
    texts: Mapping[str, Any]


@dataclass(frozen=True)
class WorldTask:
    """How to make the items of a world.

    Attributes:
        scene_folders, text_folders: the keys of every ``Item``.
        splits: sizes of the splits, where the paper has them as there; test is held out.
        sample: (index, split, seed, options) -> Item; these alone decide it. Worlds on disk are
            made of these.
        sample_each: (indices, split, seed, options) -> what ``sample`` gives for each, sooner.
        sample_many: (indices, split, seed, options) -> Items, many times as fast in hundreds. The
            distribution is that of ``sample``, but the items are others: each is decided by its
            index, the split, the seed and the options alone, whatever else is asked for.
        options: class of the options.
        image_filename: (split, index) -> name of an item's images.
        has_environments: whether grounds and skies differ from CLEVR's: not all renderers draw
            them.
    """

    scene_folders: tuple[str, ...]
    text_folders: tuple[str, ...]
    splits: Mapping[str, int]
    sample: Callable[[int, str, int, Any], Item]
    sample_each: Callable[[Sequence[int], str, int, Any], list[Item]]
    sample_many: Callable[[Sequence[int], str, int, Any], list[Item]]
    options: type = SceneOptions
    image_filename: Callable[[str, int], str] = image_filename
    has_environments: bool = False


def _sample_scene(index: int, split: str, seed: int, options: SceneOptions) -> Item:
    return Item({"": sample_scene(index, split, seed, options)}, {})


def _sample_scenes(
    indices: Sequence[int], split: str, seed: int, options: SceneOptions
) -> list[Item]:
    return [Item({"": scene}, {}) for scene in sample_each(indices, split, seed, options)]


def _sample_instruction(index: int, split: str, seed: int, options: SceneOptions) -> Item:
    """The kinds take turns."""
    return _instruction(sample_edit(index, split, kind_of(index), seed, options))


def _instruction(edit: Edit) -> Item:
    return Item({"source": edit.source, "target": edit.target}, {"instructions": edit.to_json()})


def _sample_question(index: int, split: str, seed: int, options: SceneOptions) -> Item:
    (item,) = _sample_questions([index], split, seed, options)
    return item


def _sample_questions(
    indices: Sequence[int], split: str, seed: int, options: SceneOptions
) -> list[Item]:
    return _questions(sample_each(indices, split, seed, options), split, seed)


def _questions(scenes: Sequence[ClevrScene], split: str, seed: int) -> list[Item]:
    return [
        _question(scene, Random(f"{seed}/{split}/{scene.image_index}/question")) for scene in scenes
    ]


def _question(scene: ClevrScene, random: Random) -> Item:
    return Item({"": scene}, {"questions": ask(scene, random).to_json()})


def _sample_objaworld(index: int, split: str, seed: int, options: ObjaWorldOptions) -> Item:
    """The environments take turns."""
    environment = list(objaworld.ENVIRONMENTS)[index % len(objaworld.ENVIRONMENTS)]
    chosen = replace(options, environment=environment)
    return Item({"": objaworld.sample_objaworld_scene(index, split, seed, chosen)}, {})


def _draw_scenes(
    indices: Sequence[int], split: str, seed: int, options: SceneOptions
) -> list[Item]:
    scenes = complete_scenes(sample_scenes(indices, split, seed, options), options)
    return [Item({"": scene}, {}) for scene in scenes]


def _draw_instructions(
    indices: Sequence[int], split: str, seed: int, options: SceneOptions
) -> list[Item]:
    return [_instruction(edit) for edit in sample_edits(indices, split, seed, options)]


def _draw_questions(
    indices: Sequence[int], split: str, seed: int, options: SceneOptions
) -> list[Item]:
    scenes = complete_scenes(sample_scenes(indices, split, seed, options), options)
    return _questions(scenes, split, seed)


def _sample_edits(
    indices: Sequence[int], split: str, seed: int, options: SceneOptions
) -> list[Item]:
    return [_sample_instruction(index, split, seed, options) for index in indices]


def _sample_objaworlds(
    indices: Sequence[int], split: str, seed: int, options: ObjaWorldOptions
) -> list[Item]:
    """One by one: there is no other way to draw these."""
    return [_sample_objaworld(index, split, seed, options) for index in indices]


TASKS: Mapping[str, WorldTask] = {
    "scenes": WorldTask(
        ("",),
        (),
        {"train": 120_000, "test": 2_000},
        _sample_scene,
        _sample_scenes,
        _draw_scenes,
    ),
    "instructions": WorldTask(
        ("source", "target"),
        ("instructions",),
        {"train": 100_000, "test": 5 * 500},
        _sample_instruction,
        _sample_edits,
        _draw_instructions,
    ),
    "questions": WorldTask(
        ("",),
        ("questions",),
        {"train": 20_000, "test": 2_000},
        _sample_question,
        _sample_questions,
        _draw_questions,
    ),
    "objaworld": WorldTask(
        ("",),
        (),
        {"train": 20_000, "test": 2_000},
        _sample_objaworld,
        _sample_objaworlds,
        _sample_objaworlds,
        options=ObjaWorldOptions,
        image_filename=objaworld.image_filename,
        has_environments=True,
    ),
}


def get_task(name: str) -> WorldTask:
    """The task called ``name``; InputError lists them if there is none."""
    if name not in TASKS:
        raise InputError(f"no world task {name!r}; known: {', '.join(TASKS)}")
    return TASKS[name]


def scene_options(task: str, **given: Any) -> Any:
    """The options of a task's scenes; a value of None leaves the default.

    Raises:
        InputError: an option that such scenes do not have, or an impossible value.
    """
    options = get_task(task).options
    wanted = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}
    known = {field.name for field in fields(options)}
    if unknown := sorted(wanted.keys() - known):
        raise InputError(f"scenes of {task!r} have no {', '.join(unknown)}. Leave it out.")
    return options(**wanted)
