"""The tasks of a world, tokenised under the names that the released data set has for them.

Scenes serve rendering and recognition. Instructions have a source and a target, and in an
evaluation split one set of files a kind. Questions have answers.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from kyvo.common.errors import InputError
from kyvo.common.files import list_files, read_json
from kyvo.prepare.layout import ReleasedLayout
from kyvo.prepare.tokenization import WorldTokenizer, copy_originals
from kyvo.world.objaworld import ObjaWorldScene
from kyvo.world.tasks import TASKS, WorldTask, get_task

Counts = Counter[str]
EVALUATION = "instruction-following-eval"
"""Begins the names of the folders that hold an evaluation split's instructions."""


def world_task(world: Path) -> str:
    """The task that a world was made for; ``scenes`` where no ``world.json`` says."""
    record = world / "world.json"
    options = read_json(record, "options of the world") if record.is_file() else {}
    if not isinstance(options, dict):
        raise InputError(f"{record}: expected an object of options. Make the world again.")
    return str(options.get("task", "scenes"))


def find_task(world: Path) -> WorldTask:
    """What a world was made for; without a ``world.json``, what its folders of texts are for.

    Raises:
        InputError: ``world.json`` is malformed or names an unknown task.
    """
    if (world / "world.json").is_file():
        return get_task(world_task(world))
    folders = {path.name for path in world.glob("*/*") if path.is_dir()}
    found = (task for task in TASKS.values() if folders & {*task.text_folders})
    return next(found, TASKS["scenes"])


def tokenize_task(
    tokenizer: WorldTokenizer, world: Path, split: str, layout: ReleasedLayout, is_evaluation: bool
) -> Counts:
    """Write a split's files; how many entries of each kind.

    Args:
        layout: its suffix counts for scenes only; the other tasks have names of their own.
        is_evaluation: put the originals of scenes where the metrics look for them, and give
            every kind of instruction its own files.

    Raises:
        InputError: a file of the world is missing or malformed.
    """
    task = world_task(world)
    if task not in _TOKENIZERS:
        raise InputError(f"{world}: a world of {task!r}; expected {', '.join(_TOKENIZERS)}.")
    return _TOKENIZERS[task](tokenizer, world / split, layout, is_evaluation)


def _scenes(
    tokenizer: WorldTokenizer, folder: Path, layout: ReleasedLayout, is_evaluation: bool
) -> Counts:
    if is_evaluation:
        copy_originals(folder, layout.originals)
    return Counter(tokenizer.tokenize_split(folder.parent, folder.name, layout))


def _questions(
    tokenizer: WorldTokenizer, folder: Path, layout: ReleasedLayout, is_evaluation: bool
) -> Counts:
    del is_evaluation
    split = folder.name
    counts = Counter(tokenizer.tokenize_scenes(folder, split, replace(layout, suffix="for_vqa")))
    rows = dict(_read_rows(folder / "questions"))
    for field in ("question", "answer"):
        texts = {key: f" {row[field]}" for key, row in rows.items()}
        target = layout.text_file(split, f"vqa_{field}s")
        counts[f"{field}s"] = tokenizer.tokenize_texts(texts, target)
    return counts


def _instructions(
    tokenizer: WorldTokenizer, folder: Path, layout: ReleasedLayout, is_evaluation: bool
) -> Counts:
    rows = dict(_read_rows(folder / "instructions"))
    if not is_evaluation:
        return _one_set(tokenizer, folder, layout, rows, "")
    kinds = sorted({row["kind"] for row in rows.values()})
    counts: Counts = Counter()
    for kind in kinds:
        chosen = {key: row for key, row in rows.items() if row["kind"] == kind}
        counts += _one_set(tokenizer, folder, layout, chosen, kind)
    return counts


def _one_set(
    tokenizer: WorldTokenizer,
    folder: Path,
    layout: ReleasedLayout,
    rows: Mapping[str, Mapping[str, str]],
    kind: str,
) -> Counts:
    """Source, target and instructions of ``rows``; ``kind`` names their files, if not empty."""
    split, counts = folder.name, Counter[str]()
    for side in ("source", "target"):
        subfolder = f"{EVALUATION}-{side}" if kind else ""
        place = replace(layout, suffix=kind or side, subfolder=subfolder)
        names = {name: name for name in rows}
        counts.update(tokenizer.tokenize_scenes(folder / side, split, place, names))
    place = replace(layout, subfolder=EVALUATION if kind else "")
    name = f"text_instructions_{kind}" if kind else "text_instructions"
    texts = {key: f" {row['instruction']}" for key, row in rows.items()}
    counts["instructions"] = tokenizer.tokenize_texts(texts, place.text_file(split, name))
    return counts


def _environments(
    tokenizer: WorldTokenizer, folder: Path, layout: ReleasedLayout, is_evaluation: bool
) -> Counts:
    """ObjaWorld's keys name the environment, and originals go to one folder of each."""
    stems: dict[str, set[str]] = {}
    keys = {}
    for path in list_files(folder / "scenes", (".json",)):
        scene = ObjaWorldScene.from_json(read_json(path, "scene"), str(path))
        keys[scene.image_filename] = scene.key
        stems.setdefault(scene.environment, set()).add(Path(scene.image_filename).stem)
    if is_evaluation:
        for environment, chosen in stems.items():
            target = layout.originals / f"output-{environment}-large-10K-6"
            copy_originals(folder, target, chosen)
    place = replace(layout, suffix="")
    return Counter(tokenizer.tokenize_scenes(folder, folder.name, place, keys))


def _read_rows(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """What is said about every item, by the name of its image."""
    for path in list_files(folder, (".json",)):
        row = read_json(path, "texts of the world")
        if not isinstance(row, dict):
            raise InputError(f"{path}: expected an object. Make the world again.")
        yield f"{path.stem}.png", row


_TOKENIZERS: Mapping[str, Callable[[WorldTokenizer, Path, ReleasedLayout, bool], Counts]] = {
    "scenes": _scenes,
    "instructions": _instructions,
    "questions": _questions,
    "objaworld": _environments,
}
