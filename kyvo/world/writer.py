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
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import (
    atomic_file,
    check_output_name,
    clear_unfinished,
    folder_lock,
    read_json,
    write_json,
)
from kyvo.common.workers import WorkerPool
from kyvo.world.render.tracer import find_device
from kyvo.world.renderers import RENDERERS
from kyvo.world.tasks import Options, WorldTask, get_task

_SEEDS = 2**63

PNG_COMPRESSION = 3
"""Three times as fast as Pillow's default of 6, files a tenth larger."""

KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(1 << 30), "MALLOC_MMAP_THRESHOLD_": str(1 << 25)}
"""Settings of glibc in the workers, to keep the memory of freed tensors.

Otherwise a third of their time goes into page faults.
"""

_RECORD = "world.json"
_FILE_ENDS = {".png": b"IEND\xaeB`\x82", ".json": b"}\n"}


@dataclass(frozen=True)
class WorldOptions:
    """Everything that decides the bytes of a world's files."""

    scenes: Options
    samples_per_pixel: int = 4
    seed: int = 0
    task: str = "scenes"
    renderer: str = "tracer"


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


@dataclass(frozen=True)
class _Batch:
    split: str
    indices: tuple[int, ...]


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
    batch_size: int = 16,
) -> WorldSummary:
    """Write ``splits`` (name to number of items) into ``folder``; go on where an older run ended.

    The files are the same for any ``workers``, ``batch_size`` and order.

    Args:
        folder: made if it does not exist.
        splits: items of each split.
        options: of the world; an existing folder must have been made with the same.
        device: where images are rendered.
        workers: processes with one thread each; 0 works in this one.
        batch_size: items that a worker takes at a time.

    Raises:
        InputError: the folder holds something else or another run writes there, or an option is
            impossible.
    """
    if batch_size < 1 or workers < 0 or options.samples_per_pixel < 1:
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
        batches = list(_missing(folder, task, splits, batch_size))
        num_missing = sum(len(batch.indices) for batch in batches)
        _write_batches(batches, partial(_write_batch, folder, options, device), workers, folder)
    num_found = sum(splits.values()) - num_missing
    return WorldSummary(folder, num_missing, num_found, time.monotonic() - start)


def _write_batches(
    batches: Sequence[_Batch], write: Callable[[_Batch], int], workers: int, folder: Path
) -> None:
    total = sum(len(batch.indices) for batch in batches)
    with tqdm(total=total, unit="item", desc=str(folder)) as bar, _mapping(workers) as run:
        for num_written in run(write, batches):
            bar.update(num_written)


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


def _scene_paths(split: Path, folder: str, name: str) -> tuple[Path, Path]:
    """Image and scene file of an item; ``name`` is the image's."""
    scene = split / folder / "scenes" / name
    return split / folder / "images" / name, scene.with_suffix(".json")


def _text_path(split: Path, folder: str, name: str) -> Path:
    return (split / folder / name).with_suffix(".json")


def _is_whole(split: Path, task: WorldTask, name: str) -> bool:
    scenes = (path for folder in task.scene_folders for path in _scene_paths(split, folder, name))
    texts = (_text_path(split, folder, name) for folder in task.text_folders)
    return all(_is_complete(path) for path in (*scenes, *texts))


def _is_complete(path: Path) -> bool:
    """Whether the file is there with its end: after a power cut it may not be."""
    end = _FILE_ENDS[path.suffix]
    if not path.is_file() or path.stat().st_size < len(end):
        return False
    with path.open("rb") as stream:
        stream.seek(-len(end), os.SEEK_END)
        return stream.read() == end


def _missing(
    folder: Path, task: WorldTask, splits: Mapping[str, int], batch_size: int
) -> Iterator[_Batch]:
    """Yield the items of which a file, or its end, is missing."""
    for split, count in splits.items():
        _clear_unfinished(folder / split, task)
        indices = [
            index
            for index in range(count)
            if not _is_whole(folder / split, task, task.image_filename(split, index))
        ]
        for start in range(0, len(indices), batch_size):
            yield _Batch(split, tuple(indices[start : start + batch_size]))


def _clear_unfinished(split: Path, task: WorldTask) -> None:
    """Remove what an older run that was killed left half-written."""
    for folder in task.scene_folders:
        clear_unfinished(split / folder / "images")
        clear_unfinished(split / folder / "scenes")
    for folder in task.text_folders:
        clear_unfinished(split / folder)


@contextmanager
def _mapping(workers: int) -> Iterator[Callable[..., Iterator[int]]]:
    """Yield a ``map`` that works in this process, or in ``workers`` new ones.

    An error or a signal ends batches under way without half-written files.
    """
    if workers == 0:
        yield map
        return
    try:
        with _environment(KEEP_MEMORY), WorkerPool(workers, _start_worker) as pool:
            yield pool.map
    except BrokenProcessPool:
        raise InputError(
            f"a worker process was killed, perhaps for memory. Run again with fewer than "
            f"{workers} workers or a smaller batch: finished scenes are kept."
        ) from None


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Give settings to the processes started meanwhile, except those that the user has chosen."""
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _start_worker() -> None:
    """Leave cores to the other workers."""
    torch.set_num_threads(1)


def _write_batch(folder: Path, options: WorldOptions, device: str, batch: _Batch) -> int:
    """Write the files of a batch and return how many items that were."""
    task, split = get_task(options.task), folder / batch.split
    items = [
        task.sample(index, batch.split, options.seed, options.scenes) for index in batch.indices
    ]
    placed = [(name, scene) for item in items for name, scene in item.scenes.items()]
    size = (options.scenes.height, options.scenes.width)
    scenes = [scene for _, scene in placed]
    render = RENDERERS[options.renderer].render
    images = render(scenes, *size, options.samples_per_pixel, device, options.seed)
    for (name, scene), image in zip(placed, images, strict=True):
        image_path, scene_path = _scene_paths(split, name, scene.image_filename)
        with atomic_file(image_path, durable=False) as temporary:
            Image.fromarray(image).save(temporary, "PNG", compress_level=PNG_COMPRESSION)
        write_json(scene_path, scene.to_json(), durable=False)
    for index, item in zip(batch.indices, items, strict=True):
        for name, value in item.texts.items():
            path = _text_path(split, name, task.image_filename(batch.split, index))
            write_json(path, value, durable=False)
    return len(items)
