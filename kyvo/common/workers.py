"""Worker processes, and what signals to a whole job do to them.

A batch system sends SIGTERM, and a terminal SIGINT, to every process of a job at once. What that
means is for the main process to decide: it saves, and ends its workers. A worker that died of the
signal before would make it fail instead. So both signals are blocked while a worker starts and ever
after; a thread of the worker takes them. One from the main process ends the worker; all others are
dropped.
"""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, TypeVar

from torch.utils.data import DataLoader, Dataset

from kyvo.common.errors import InputError

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_SECONDS_PER_LOOK = 1.0
"""How long a worker may live after the main process was killed."""
_SECONDS_TO_END = 3.0
_LEAVE = signal.SIGRTMIN
"""What the thread of a pool's worker sends to its main thread: it also ends a wait."""
TASKS_AHEAD = 2
"""For each worker: the one that it does, and the next."""
S = TypeVar("S")
T = TypeVar("T")


@contextmanager
def signals_held() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back, here and in processes that are started meanwhile.

    One that came meanwhile arrives here afterwards.
    """
    came: list[int] = []
    # Another thread may take what this one blocks; Python still calls the handler in this one.
    is_main = threading.current_thread() is threading.main_thread()
    handlers = {n: signal.signal(n, lambda k, _: came.append(k)) for n in _SIGNALS if is_main}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for arrived in came:
            signal.raise_signal(arrived)


def load(
    dataset: Dataset[Any], start: Callable[[], None] | None = None, **options: Any
) -> Iterator[Any]:
    """The items of torch's ``DataLoader`` with these options; its workers end with the iteration.

    A worker in the middle of an item ends at once when nobody waits for it any more: not as a
    failure, of which torch would end the main process.
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

    They are forked, all of them with the first task: there before a new process would have loaded
    torch. So they must leave CUDA alone, and ``start`` has to take torch down to one thread: those
    of this process are not there. Where an error or a signal ends the ``with`` block, tasks under
    way end with a KeyboardInterrupt.

    Raises:
        InputError: at the end of the ``with`` block, if a worker was killed.
    """

    def __init__(self, workers: int, start: Callable[[], None]) -> None:
        context = multiprocessing.get_context("fork")
        super().__init__(workers, context, _start_pool, (start,))
        self.workers = workers
        self._others = multiprocessing.active_children()

    def submit(self, task: Callable[..., T], /, *arguments: Any, **keywords: Any) -> Future[T]:
        """As usual; it may start a process."""
        with signals_held():
            return super().submit(_run_task, task, *arguments, **keywords)

    def ordered(
        self, task: Callable[[S], T], items: Iterable[S], ahead: int | None = None
    ) -> Iterator[T]:
        """What ``task`` gives for each item, in order.

        Args:
            task: done by the workers.
            items: taken when a task is begun.
            ahead: tasks begun of which the results were not taken, at most: what bounds the
                memory that results need. None: two for each worker.
        """
        waiting: deque[Future[T]] = deque()
        for item in items:
            waiting.append(self.submit(task, item))
            if len(waiting) >= (ahead or TASKS_AHEAD * self.workers):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if kind is None:
            self.shutdown()
            return
        manager: Any = self._executor_manager_thread
        # In this order the pool has nothing left that it could miss when its workers end.
        self.shutdown(wait=False, cancel_futures=True)
        children = multiprocessing.active_children()
        _end([child for child in children if child not in self._others])
        if manager is not None:
            # The thread takes in the ends of workers, too: what it has of them counts as alive.
            manager.join(_SECONDS_TO_END)
        if kind is BrokenProcessPool:
            raise InputError(
                "a worker process was killed, perhaps for memory. Run again with fewer than "
                f"{self.workers} workers or a smaller batch: what is finished is kept."
            ) from None


def _end(children: Sequence[BaseProcess]) -> None:
    """End processes, those that do not obey in time by force."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + _SECONDS_TO_END
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        if child.is_alive():
            child.kill()
            child.join()


def _start_loader(start: Callable[[], None] | None, _number: int) -> None:
    _obey_parent(lambda: os._exit(0))
    if start is not None:
        start()


def _start_pool(start: Callable[[], None]) -> None:
    main = threading.main_thread().ident
    assert main is not None, "this is it"
    signal.signal(_LEAVE, _leave_task)
    _obey_parent(lambda: signal.pthread_kill(main, _LEAVE))
    start()


_has_task = False


def _run_task(task: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
    """Run a task in a worker; if it is interrupted, the worker ends."""
    global _has_task
    try:
        _has_task = True
        return task(*arguments, **keywords)
    except KeyboardInterrupt:
        os._exit(0)
    finally:
        _has_task = False


def _leave_task(_number: int, _frame: FrameType | None) -> None:
    """End the worker; first a task clears away what it has half written."""
    if _has_task:
        raise KeyboardInterrupt
    os._exit(0)


def _obey_parent(end: Callable[[], None]) -> None:
    """Call ``end`` in a thread when the parent says so; exit when it has been killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has one"
    threading.Thread(target=_listen, args=(parent, end), daemon=True).start()


def _listen(parent: BaseProcess, end: Callable[[], None]) -> None:
    # Not by the end of a pipe from it: other workers inherited the pipe's other end.
    while os.getppid() == parent.pid:
        received = signal.sigtimedwait(_SIGNALS, _SECONDS_PER_LOOK)
        if received is not None and received.si_pid == parent.pid:
            end()
    os._exit(1)
