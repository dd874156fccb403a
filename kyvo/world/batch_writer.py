"""Batches of a world's items, from their numbers to their files, in one process or several.

On the CPU a worker does all that a batch needs. With a GPU, workers sample the scenes and write
their JSON, the main process renders one batch after the other, and workers write the images, which
reach them in shared memory: a GPU serves one process better than many, and PNG files take longer
than rays.
"""

import ctypes
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kyvo.common.files import atomic_file, write_json
from kyvo.common.image_files import encode_png
from kyvo.common.inherited import Inherited, shared_array
from kyvo.common.workers import TASKS_AHEAD, WorkerPool
from kyvo.world.renderers import RENDERERS, Renderer
from kyvo.world.tasks import Item, Options, Scene, WorldTask, get_task

_MALLOC_SETTINGS = {-1: 1 << 30, -3: 1 << 25}
"""M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc in the workers, to keep the memory of freed
tensors. Otherwise a third of their time goes into page faults."""


@dataclass(frozen=True)
class WorldOptions:
    """Everything that decides the bytes of a world's files.

    Attributes:
        scenes: what is in a scene, and the size of its image.
        samples_per_pixel: rays or paths through each pixel.
        seed: of scenes and of the renderer's noise.
        task: a key of ``TASKS``.
        renderer: a key of ``RENDERERS``.
    """

    scenes: Options
    samples_per_pixel: int = 4
    seed: int = 0
    task: str = "scenes"
    renderer: str = "tracer"


@dataclass(frozen=True)
class Batch:
    """Some items of a split."""

    split: str
    indices: tuple[int, ...]


def scene_paths(split: Path, folder: str, name: str) -> tuple[Path, Path]:
    """Image and scene file of an item; ``name`` is the image's."""
    scene = split / folder / "scenes" / name
    return split / folder / "images" / name, scene.with_suffix(".json")


def text_path(split: Path, folder: str, name: str) -> Path:
    """The file of what is said about an item; ``name`` is its image's."""
    return (split / folder / name).with_suffix(".json")


@dataclass(frozen=True)
class BatchWriter:
    """Writes batches of a world into ``folder``.

    Attributes:
        folder: the world's.
        options: of the world.
        device: where images are rendered.
    """

    folder: Path
    options: WorldOptions
    device: str

    @property
    def task(self) -> WorldTask:
        """What the items are."""
        return get_task(self.options.task)

    @property
    def renders_apart(self) -> bool:
        """Whether one process renders for all workers."""
        return self.device != "cpu" and self._renderer.prepare is not None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and colours."""
        return self.options.scenes.height, self.options.scenes.width, 3

    @property
    def _renderer(self) -> Renderer:
        return RENDERERS[self.options.renderer]

    def write(self, batch: Batch) -> int:
        """Write all files of a batch; how many items that were."""
        scenes = self._write_scenes(batch)
        render, size = self._renderer.render, self.image_shape[:2]
        samples, seed = self.options.samples_per_pixel, self.options.seed
        self._write_images(batch, render(scenes, *size, samples, self.device, seed))
        return len(batch.indices)

    def prepare(self, batch: Batch) -> Any:
        """Write scenes and texts of a batch; what ``render`` takes."""
        prepare = self._renderer.prepare
        assert prepare is not None, "renders_apart"
        return prepare(self._write_scenes(batch))

    def render(self, prepared: Any) -> np.ndarray:
        """The images of what ``prepare`` gave."""
        render, size = self._renderer.render_prepared, self.image_shape[:2]
        assert render is not None, "renders_apart"
        samples, seed = self.options.samples_per_pixel, self.options.seed
        return render(prepared, *size, samples, self.device, seed)

    def write_images(self, batch: Batch, images: Inherited[np.ndarray], place: int) -> int:
        """Write the images of a batch, which are at ``place``; how many items that were."""
        num_images = len(batch.indices) * len(self.task.scene_folders)
        self._write_images(batch, images.value[place, :num_images])
        return len(batch.indices)

    def _write_scenes(self, batch: Batch) -> list[Scene]:
        """Write scenes and texts of a batch; the scenes, in the order of its images."""
        options, split = self.options, self.folder / batch.split
        items = self.task.sample_each(batch.indices, batch.split, options.seed, options.scenes)
        for index, item in zip(batch.indices, items, strict=True):
            self._write_item(split, self.task.image_filename(batch.split, index), item)
        return [item.scenes[folder] for item in items for folder in self.task.scene_folders]

    def _write_item(self, split: Path, name: str, item: Item) -> None:
        for folder, scene in item.scenes.items():
            write_json(scene_paths(split, folder, name)[1], scene.to_json(), durable=False)
        for folder, value in item.texts.items():
            write_json(text_path(split, folder, name), value, durable=False)

    def _write_images(self, batch: Batch, images: np.ndarray) -> None:
        names = [self.task.image_filename(batch.split, index) for index in batch.indices]
        places = [(folder, name) for name in names for folder in self.task.scene_folders]
        for (folder, name), image in zip(places, images, strict=True):
            path, _ = scene_paths(self.folder / batch.split, folder, name)
            with atomic_file(path, durable=False) as temporary:
                temporary.write_bytes(encode_png(image))


def write_batches(
    writer: BatchWriter, batches: Sequence[Batch], workers: int
) -> Generator[int, None, None]:
    """Write batches in this process, or in ``workers`` new ones; yield the items of each.

    An error or a signal ends batches under way without half-written files.
    """
    if workers == 0:
        yield from map(writer.write, batches)
        return
    if not writer.renders_apart:
        with WorkerPool(workers, _start_worker) as pool:
            yield from pool.ordered(writer.write, batches)
        return
    most = max((len(batch.indices) for batch in batches), default=0)
    num_images = most * len(writer.task.scene_folders)
    # Made before the workers, which inherit it.
    images = shared_array((TASKS_AHEAD * workers, num_images, *writer.image_shape))
    with WorkerPool(workers, _start_worker) as pool:
        yield from _render_between(writer, batches, pool, images)


def _render_between(
    writer: BatchWriter, batches: Sequence[Batch], pool: WorkerPool, images: Inherited[np.ndarray]
) -> Iterator[int]:
    """Render here what workers prepare, and let them write it; batches take turns with places."""
    num_places = len(images.value)
    writes: deque[Future[int]] = deque()
    prepared = pool.ordered(writer.prepare, batches)
    for number, (batch, scenes) in enumerate(zip(batches, prepared, strict=True)):
        if len(writes) == num_places:
            yield writes.popleft().result()
        place, rendered = number % num_places, writer.render(scenes)
        images.value[place, : len(rendered)] = rendered
        writes.append(pool.submit(writer.write_images, batch, images, place))
    yield from (write.result() for write in writes)


def _start_worker() -> None:
    """Leave cores to the other workers, and keep freed memory."""
    torch.set_num_threads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for setting, value in _MALLOC_SETTINGS.items():
            mallopt(setting, value)
