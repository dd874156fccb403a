"""Processes that read the files of a world ahead of whoever takes what is in them.

Shape legend: P places, B images of a batch, H and W pixels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

from kyvo.common.inherited import Inherited, shared_array
from kyvo.common.workers import TASKS_AHEAD, WorkerPool
from kyvo.images.preprocessing import load_images_into

_MOST_BYTES = 1 << 28
"""Of images that were read and not yet taken."""
S = TypeVar("S")
T = TypeVar("T")


class Readers:
    """Reads in a pool's workers, or without one in this process.

    Args:
        pool: None: no pool.
        images_PBHW3: where images are put; made before the pool's workers.
    """

    def __init__(self, pool: WorkerPool | None, images_PBHW3: Inherited[np.ndarray]) -> None:
        self._pool, self._images_PBHW3 = pool, images_PBHW3

    def ordered(
        self, task: Callable[[S], T], items: Sequence[S], ahead: int | None = None
    ) -> Iterator[T]:
        """What ``task`` gives for each item, in order; see ``WorkerPool.ordered``."""
        return map(task, items) if self._pool is None else self._pool.ordered(task, items, ahead)

    def images(self, batches: Sequence[Sequence[Path]]) -> Iterator[np.ndarray]:
        """The images (B, H, W, 3) of each batch of files; gone when the next are asked for."""
        num_places = len(self._images_PBHW3.value)
        tasks = [(number % num_places, paths) for number, paths in enumerate(batches)]
        read = partial(_read, self._images_PBHW3)
        for place, paths in zip(self.ordered(read, tasks, num_places), batches, strict=True):
            yield self._images_PBHW3.value[place, : len(paths)]


@contextmanager
def start_readers(
    workers: int, num_batches: int, batch_shape: tuple[int, int, int, int]
) -> Iterator[Readers]:
    """Yield readers for so many batches of this shape (B, H, W, 3): ``workers`` new processes.

    Fewer where there are fewer batches; with 0, and for a single batch, this process reads.
    """
    workers = min(workers, num_batches) if num_batches > 1 else 0
    if not workers:
        yield Readers(None, shared_array((1, *batch_shape)))
        return
    most = _MOST_BYTES // max(1, int(np.prod(batch_shape)))
    images_PBHW3 = shared_array((max(2, min(TASKS_AHEAD * workers, most)), *batch_shape))
    with WorkerPool(workers, _start_reader) as pool:
        yield Readers(pool, images_PBHW3)


def chunked(items: Sequence[S], size: int) -> list[Sequence[S]]:
    """The items in parts of ``size``; the last one may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _start_reader() -> None:
    """Nothing: files are read without torch."""


def _read(images_PBHW3: Inherited[np.ndarray], task: tuple[int, Sequence[Path]]) -> int:
    place, paths = task
    load_images_into(images_PBHW3.value[place], paths)
    return place
