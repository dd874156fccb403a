"""Worker processes: signals to a whole job leave them alone, and nobody waits for their ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import Dataset

from kyvo.common import workers
from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file
from kyvo.common.inherited import Inherited, shared_array

SLOW_SECONDS = 60.0
"""Longer than any test waits."""
UNBLOCK = (signal.SIG_UNBLOCK, {signal.SIGTERM})
AT_START = "KYVO_TEST_SIGNAL_AT_START"
"""Names the signal that a worker gets before it has done anything."""


def signal_at_start() -> None:
    # From the worker itself, not from its parent: as one that the whole job gets.
    os.kill(os.getpid(), int(os.environ.get(AT_START, 0)))


# In a forked worker this comes before any code of ours, in a spawned one before its ``start``.
os.register_at_fork(after_in_child=signal_at_start)
signal_at_start()


class Items(Dataset[int]):
    """Ten numbers; from ``slow_from`` on each takes longer than any test waits."""

    def __init__(self, slow_from: int = 10) -> None:
        self.slow_from = slow_from

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> int:
        end = time.monotonic() + SLOW_SECONDS
        while index >= self.slow_from and time.monotonic() < end:
            pass
        return index


def load(dataset: Dataset[int], num_workers: int = 2) -> list[int]:
    return list(workers.load(dataset, batch_size=None, num_workers=num_workers))


def signal_and_double(number: int) -> int:
    os.kill(os.getpid(), signal.SIGTERM)
    return 2 * number


def half_write(path: Path) -> None:
    with atomic_file(path) as temporary:
        temporary.write_text("half")
        time.sleep(SLOW_SECONDS)


def nothing() -> None:
    pass


def test_items_come_in_order_with_and_without_workers() -> None:
    assert load(Items()) == load(Items(), 0) == list(range(10))
    assert active_children() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_start_of_a_loader_is_left_to_the_parent(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setenv(AT_START, str(int(number)))
    assert load(Items()) == list(range(10))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_a_pool_is_left_to_the_parent(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """At the start of its workers and while they work."""
    with workers.WorkerPool(2, nothing) as pool:
        # Set now: a loaded module would signal this process, too.
        monkeypatch.setenv(AT_START, str(int(number)))
        assert list(pool.map(signal_and_double, range(4))) == [0, 2, 4, 6]


def double(number: int) -> int:
    return 2 * number


def test_tasks_are_begun_so_far_ahead_and_no_further() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            yield number

    with workers.WorkerPool(2, nothing) as pool:
        results = pool.ordered(double, items(), ahead=3)
        assert taken == []
        for number, result in enumerate(results):
            assert result == 2 * number
            assert len(taken) <= number + 3
        assert list(pool.ordered(double, [])) == []
    assert len(taken) == 10


def fill(array: Inherited[np.ndarray], value: int) -> None:
    array.value[value] = value


def test_workers_share_an_array_and_inherit_what_cannot_be_sent() -> None:
    array = shared_array((3, 4))
    unsendable = Inherited(lambda: 5)
    with workers.WorkerPool(1, nothing) as pool:
        for value in range(3):
            pool.submit(fill, array, value).result()
        assert pool.submit(call, unsendable).result() == 5
    assert array.value.tolist() == [[value] * 4 for value in range(3)]


def call(function: Inherited[Callable[[], int]]) -> int:
    return function.value()


def kill_itself(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_with_a_remedy() -> None:
    pool = workers.WorkerPool(2, nothing)
    with pytest.raises(InputError, match="fewer than 2 workers"), pool:
        list(pool.ordered(kill_itself, range(3)))
    assert active_children() == []


@pytest.mark.slow
def test_a_signal_ends_tasks_under_way_with_nothing_half_written(tmp_path: Path) -> None:
    begun = []

    def stop_in_the_middle() -> None:
        with workers.WorkerPool(2, nothing) as pool:
            pool.map(half_write, [tmp_path / str(i) for i in range(8)])
            while len(list(tmp_path.iterdir())) < 2:
                time.sleep(0.1)
            begun.append(time.monotonic())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_in_the_middle()
    assert time.monotonic() - begun[0] < 10
    assert active_children() == []
    assert list(tmp_path.iterdir()) == []


def test_the_parent_gets_what_came_while_workers_started() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: received.append(1))
    received: list[int] = []
    try:
        with workers.signals_held():
            os.kill(os.getpid(), signal.SIGTERM)
            # Another thread takes what this one blocks.
            other = threading.Thread(target=signal.pthread_sigmask, args=UNBLOCK)
            other.start()
            other.join()
            assert received == []
        assert received == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_leaving_a_loader_does_not_wait_for_items_under_way() -> None:
    items = workers.load(Items(slow_from=2), batch_size=None, num_workers=2)
    assert next(items) == 0
    begun = time.monotonic()
    items.close()  # type: ignore[attr-defined]
    assert active_children() == []
    assert time.monotonic() - begun < 4


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    code = (
        "from test_workers import Items, active_children, workers\n"
        "items = workers.load(Items(slow_from=2), batch_size=None, num_workers=2)\n"
        "next(items)\n"
        "print(*(child.pid for child in active_children()), flush=True)\n"
        "next(item for item in items if item > 2)\n"
    )
    here, root = Path(__file__).parent, Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{here}"}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(pids) == 2
    deadline = time.monotonic() + 20
    while any(_is_running(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    # Where nobody takes in orphans they stay as zombies.
    return status.rpartition(")")[2].split()[0] != "Z"
