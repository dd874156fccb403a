"""A world on disk: images and scenes in numbered files, made by several processes.

    FOLDER/world.json
    FOLDER/SPLIT/images/CLEVR_SPLIT_000000.png
    FOLDER/SPLIT/scenes/CLEVR_SPLIT_000000.json

Edited pairs have such folders under SPLIT/source and SPLIT/target; what is said about an item is
in SPLIT/instructions or SPLIT/questions, one JSON file an item.

Every file depends on the options and its own number alone, so a run can stop anywhere and go on:
it makes what is missing or cut short.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import (
    check_output_name,
    clear_unfinished,
    folder_lock,
    read_json,
    write_json,
)
from kyvo.world.batch_writer import (
    Batch,
    BatchWriter,
    WorldOptions,
    scene_paths,
    text_path,
    write_batches,
)
from kyvo.world.render.tracer import find_device
from kyvo.world.renderers import RENDERERS
from kyvo.world.tasks import WorldTask, get_task

__all__ = ["WorldOptions", "WorldSummary", "parse_splits", "write_world"]

_SEEDS = 2**63

_BATCH_SIZE = 16
"""Items that a worker takes at a time where it renders them itself, which takes longest."""
_PIXELS_OF_A_BATCH, _LARGEST_BATCH = 1 << 21, 256
"""Where a GPU renders: 128 images of 128 x 128 pixels, 6 MB; more save little of its time."""
_BATCHES_OF_A_WORKER = 4
"""At least, or some workers would wait while others end."""

_RECORD = "world.json"
_FILE_ENDS = {".png": b"IEND\xaeB`\x82", ".json": b"}\n"}


@dataclass(frozen=True)
class WorldSummary:
    """What a run has done: items made, items that were there already, seconds."""

    folder: Path
    num_made: int
    num_found: int
    seconds: float

    def __str__(self) -> str:
        rate = self.num_made / self.seconds if self.seconds else 0.0
        return (
            f"{self.num_made + self.num_found} items in {self.folder}: {self.num_made} made in "
            f"{self.seconds:.1f} s, {rate:.1f} a second; {self.num_found} were there already"
        )


def parse_splits(texts: Sequence[str]) -> dict[str, int]:
    """Read splits such as "train:4000".

    Raises:
        InputError: not NAME:COUNT, a name that is no file name, or one that comes twice.
    """
    splits: dict[str, int] = {}
    for text in texts:
        name, colon, count = text.rpartition(":")
        if not (colon and count.isascii() and count.isdigit()):
            raise InputError(f"split {text!r}: expected NAME:COUNT, such as train:4000.")
        if check_output_name(name, "name of a split") in splits:
            raise InputError(f"split {name!r} is given twice. Give each split once.")
        splits[name] = int(count)
    return splits


def write_world(
    folder: Path | str,
    splits: Mapping[str, int],
    options: WorldOptions,
    device: str = "cpu",
    workers: int = 0,
    batch_size: int | None = None,
) -> WorldSummary:
    """Write ``splits`` (name to number of items) into ``folder``; go on where an older run ended.

    The files are the same for any ``workers``, ``batch_size`` and order.

    Args:
        folder: made if it does not exist.
        splits: items of each split.
        options: of the world; an existing folder must have been made with the same.
        device: where images are rendered.
        workers: processes with one thread each; 0 works in this one.
        batch_size: items that a worker takes at a time; None: as many as are fast.

    Raises:
        InputError: the folder holds something else or another run writes there, or an option is
            impossible.
    """
    if (batch_size is not None and batch_size < 1) or workers < 0 or options.samples_per_pixel < 1:
        raise InputError(
            f"world: batch size {batch_size}, workers {workers}, samples per pixel "
            f"{options.samples_per_pixel}. Expected at least 1, 0 and 1."
        )
    if not 0 <= options.seed < _SEEDS:
        raise InputError(f"world: seed {options.seed}. Expected 0 or more, less than 2 ** 63.")
    find_device(device)
    task = get_task(options.task)
    _check_renderer(options.renderer, task, options.task)
    folder = Path(folder)
    _check_is_world(folder)
    with folder_lock(folder):
        _claim(folder, options)
        start = time.monotonic()
        missing = {
            split: list(_missing(folder, task, split, count)) for split, count in splits.items()
        }
        num_missing = sum(map(len, missing.values()))
        writer = BatchWriter(folder, options, device)
        size = batch_size or _fast_batch_size(writer, num_missing, workers)
        written = write_batches(writer, list(_batches(missing, size)), workers)
        with tqdm(total=num_missing, unit="item", desc=str(folder)) as bar, closing(written):
            for num_items in written:
                bar.update(num_items)
    num_found = sum(splits.values()) - num_missing
    return WorldSummary(folder, num_missing, num_found, time.monotonic() - start)


def _check_renderer(renderer: str, task: WorldTask, name: str) -> None:
    """Raise an InputError unless the renderer is known and shows all of the task's scenes."""
    possible = [
        known
        for known, entry in RENDERERS.items()
        if entry.draws_environments or not task.has_environments
    ]
    if renderer not in possible:
        raise InputError(f"renderer {renderer!r}: expected {' or '.join(possible)} for {name}.")


def _check_is_world(folder: Path) -> None:
    """Refuse a folder with something else in it, before anything is written there."""
    has_items = folder.is_dir() and any(path.name[0] != "." for path in folder.iterdir())
    if has_items and not (folder / _RECORD).exists():
        raise InputError(
            f"{folder} is not empty and has no {_RECORD}: it is not a world. "
            "Choose a new folder for --output."
        )


def _claim(folder: Path, options: WorldOptions) -> None:
    """Record the options in the folder, or check that they are those it was made with."""
    record = folder / _RECORD
    wanted = asdict(options)
    # Nothing was made with the options of a folder that holds only them.
    if record.exists() and any(path.is_dir() for path in folder.iterdir()):
        _check_same(record, read_json(record, "options of the world"), wanted)
    else:
        write_json(record, wanted)


def _check_same(record: Path, found: Any, wanted: dict[str, Any]) -> None:
    old, new = _flat(found), _flat(wanted)
    different = [
        f"{key} was {old.get(key)!r} and is now {new.get(key)!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if different:
        raise InputError(
            f"{record}: the folder was made with other options: {'; '.join(different)}. "
            "Use the same options, or another folder."
        )


def _flat(options: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(options, dict):
        # JSON has lists only, so that tuples come back as lists.
        return {prefix.removesuffix("."): list(options) if type(options) is tuple else options}
    parts = (_flat(value, f"{prefix}{key}.") for key, value in options.items())
    return {key: value for part in parts for key, value in part.items()}


def _fast_batch_size(writer: BatchWriter, num_items: int, workers: int) -> int:
    if not writer.renders_apart or not workers:
        return _BATCH_SIZE
    height, width, _ = writer.image_shape
    largest = min(_LARGEST_BATCH, _PIXELS_OF_A_BATCH // (height * width))
    return max(1, min(largest, -(-num_items // (_BATCHES_OF_A_WORKER * workers))))


def _missing(folder: Path, task: WorldTask, split: str, count: int) -> Iterator[int]:
    """Yield the items of which a file, or its end, is missing."""
    _clear_unfinished(folder / split, task)
    # One look at the folders is faster than one at each file: most are missing, or none.
    scenes = [f"{name}/{kind}" for name in task.scene_folders for kind in ("images", "scenes")]
    found = [_names(folder / split / part.lstrip("/")) for part in (*scenes, *task.text_folders)]
    for index in range(count):
        name = task.image_filename(split, index)
        stem = name.rpartition(".")[0]
        if not all(stem in names for names in found) or not _is_whole(folder / split, task, name):
            yield index


def _clear_unfinished(split: Path, task: WorldTask) -> None:
    """Remove what an older run that was killed left half-written."""
    for folder in task.scene_folders:
        clear_unfinished(split / folder / "images")
        clear_unfinished(split / folder / "scenes")
    for folder in task.text_folders:
        clear_unfinished(split / folder)


def _names(folder: Path) -> set[str]:
    """The names of a folder's files, without their ends."""
    return {name.rpartition(".")[0] for name in os.listdir(folder)} if folder.is_dir() else set()


def _batches(missing: Mapping[str, Sequence[int]], batch_size: int) -> Iterator[Batch]:
    for split, indices in missing.items():
        for start in range(0, len(indices), batch_size):
            yield Batch(split, tuple(indices[start : start + batch_size]))


def _is_whole(split: Path, task: WorldTask, name: str) -> bool:
    scenes = (path for folder in task.scene_folders for path in scene_paths(split, folder, name))
    texts = (text_path(split, folder, name) for folder in task.text_folders)
    return all(_is_complete(path) for path in (*scenes, *texts))


def _is_complete(path: Path) -> bool:
    """Whether the file is there with its end: after a power cut it may not be."""
    end = _FILE_ENDS[path.suffix]
    if not path.is_file() or path.stat().st_size < len(end):
        return False
    with path.open("rb") as stream:
        stream.seek(-len(end), os.SEEK_END)
        return stream.read() == end
