"""Worker processes, and what signals to a whole job do to them.

A batch system sends SIGTERM, and a terminal SIGINT, to every process of a job at once. What that
means is for the main process to decide: it saves, and ends its workers. A worker that died of the
signal before would make it fail instead. So both signals are blocked while a worker starts and ever
after; a thread of the worker takes them. One from the main process ends the worker at once,
whatever it is doing; all others are dropped.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, Dataset

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_SECONDS_PER_LOOK = 1.0
"""How long a worker may live after the main process was killed."""


@contextmanager
def signals_held() -> Iterator[None]:
    """Block SIGINT and SIGTERM here and in processes that are started meanwhile.

    One that came meanwhile arrives here afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def load(
    dataset: Dataset[Any], start: Callable[[], None] | None = None, **options: Any
) -> Iterator[Any]:
    """The items of torch's ``DataLoader`` with these options; its workers end with the iteration.

    A worker in the middle of an item does not finish it when nobody waits for it any more.
    ``start`` is called in each worker first.
    """
    loader: DataLoader[Any] = DataLoader(
        dataset, worker_init_fn=partial(_start_loader, start), **options
    )
    others = multiprocessing.active_children()
    with signals_held():
        items = iter(loader)
    started = [child for child in multiprocessing.active_children() if child not in others]
    try:
        yield from items
    finally:
        for worker in started:
            worker.terminate()


class WorkerPool(ProcessPoolExecutor):
    """A pool of ``workers`` new processes, in each of which ``start`` is called first.

    They are spawned: a fork may copy the locks of torch's threads.
    """

    def __init__(self, workers: int, start: Callable[[], None]) -> None:
        context = multiprocessing.get_context("spawn")
        super().__init__(workers, context, _start, (start,))

    def submit(self, *arguments: Any, **keywords: Any) -> Future[Any]:
        """As usual; it may start a process."""
        with signals_held():
            return super().submit(*arguments, **keywords)


def _start_loader(start: Callable[[], None] | None, _number: int) -> None:
    _start(start)


def _start(start: Callable[[], None] | None) -> None:
    """What a worker does first; its signals are blocked already."""
    threading.Thread(target=_obey_parent, daemon=True).start()
    if start is not None:
        start()


def _obey_parent() -> None:
    """End this process when the parent says so, or has been killed and cannot."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has one"
    while parent.is_alive():
        received = signal.sigtimedwait(_SIGNALS, _SECONDS_PER_LOOK)
        if received is not None and received.si_pid == parent.pid:
            # Not as a failure, which torch would tell the main process to die of.
            os._exit(0)
    os._exit(1)
