"""What a world is made of: scenes alone, edited pairs with instructions, scenes with questions.

An item of a world is one number of a split: its scenes, each to be shown in a picture, and what is
said about them.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from kyvo.errors import InputError
from kyvo.world.instructions import KINDS, sample_edit
from kyvo.world.questions import ask
from kyvo.world.sampler import SceneOptions, sample_scene

Scene = dict[str, Any]


@dataclass(frozen=True)
class Item:
    """One number of a split.

    Attributes:
        scenes: by the folder that their pictures and scene files go to, "" for the split's own.
        texts: JSON values by the folder that they go to.
    """

    scenes: Mapping[str, Scene]
    texts: Mapping[str, Any]


@dataclass(frozen=True)
class WorldTask:
    """How to make the items of a world.

    Attributes:
        scene_folders, text_folders: the keys of every ``Item``.
        splits: sizes of the splits as in the paper; its test split is held out.
        sample: (index, split, seed, options) -> Item; these alone decide it.
    """

    scene_folders: tuple[str, ...]
    text_folders: tuple[str, ...]
    splits: Mapping[str, int]
    sample: Callable[[int, str, int, SceneOptions], Item]


def _sample_scene(index: int, split: str, seed: int, options: SceneOptions) -> Item:
    return Item({"": sample_scene(index, split, seed, options)}, {})


def _sample_instruction(index: int, split: str, seed: int, options: SceneOptions) -> Item:
    """The kinds take turns."""
    edit = sample_edit(index, split, KINDS[index % len(KINDS)], seed, options)
    done = {k: v for k, v in asdict(edit).items() if k not in ("source", "target")}
    return Item({"source": edit.source, "target": edit.target}, {"instructions": done})


def _sample_question(index: int, split: str, seed: int, options: SceneOptions) -> Item:
    random = Random(f"{seed}/{split}/{index}/question")
    scene = sample_scene(index, split, seed, options)
    return Item({"": scene}, {"questions": ask(scene, random).as_json()})


TASKS: Mapping[str, WorldTask] = {
    "scenes": WorldTask(("",), (), {"train": 120_000, "test": 2_000}, _sample_scene),
    "instructions": WorldTask(
        ("source", "target"),
        ("instructions",),
        {"train": 100_000, "test": 5 * 500},
        _sample_instruction,
    ),
    "questions": WorldTask(
        ("",), ("questions",), {"train": 20_000, "test": 2_000}, _sample_question
    ),
}


def get_task(name: str) -> WorldTask:
    """The task called ``name``; InputError lists them if there is none."""
    if name not in TASKS:
        raise InputError(f"no world task {name!r}; known: {', '.join(TASKS)}")
    return TASKS[name]
