"""A batch's way to a device: side by side in one piece of memory, and moved in one copy."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from kyvo.data.transfer import map_tensors, moved, packed

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Inner:
    values: Tensor | np.ndarray
    name: str


@dataclass(frozen=True)
class Outer:
    flags: Tensor | np.ndarray
    inner: Inner
    missing: Tensor | None
    empty: Tensor | np.ndarray
    last: Tensor | np.ndarray


@pytest.fixture
def record() -> Outer:
    return Outer(
        np.array([True, False, True]),
        Inner(np.arange(6, dtype=np.float32).reshape(2, 3).T, "inner"),
        None,
        np.zeros((0, 4), dtype=np.int64),
        np.array([[2**40, -1]]),
    )


def arrays_of(record: Outer) -> list[np.ndarray]:
    found: list[np.ndarray] = []
    map_tensors(record, lambda item: found.append(np.asarray(item)), (Tensor, np.ndarray))
    return found


def storages(record: Outer) -> set[int]:
    found: set[int] = set()
    map_tensors(record, lambda tensor: found.add(tensor.untyped_storage().data_ptr()))
    return found


def test_packed_tensors_hold_what_the_arrays_held_in_one_memory(record: Outer) -> None:
    result = packed(record, pin_memory=False)
    for found, expected in zip(arrays_of(result), arrays_of(record), strict=True):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)
    assert len(storages(result)) == 1
    assert result.inner.name == "inner"
    assert result.missing is None


def test_packed_tensors_do_not_overlap(record: Outer) -> None:
    result = packed(record, pin_memory=False)
    result.flags.fill_(False)
    result.last.fill_(7)
    assert np.array_equal(arrays_of(result)[1], record.inner.values)


def test_moved_tensors_are_the_same_again_in_one_memory(record: Outer) -> None:
    result = moved(packed(record, pin_memory=False), CPU)
    for found, expected in zip(arrays_of(result), arrays_of(record), strict=True):
        assert np.array_equal(found, expected)
    assert len(storages(result)) == 1


def test_tensors_with_a_memory_each_are_moved_too(record: Outer) -> None:
    apart = map_tensors(record, lambda array: torch.from_numpy(array.copy()), np.ndarray)
    for found, expected in zip(arrays_of(moved(apart, CPU)), arrays_of(record), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.gpu
def test_a_batch_goes_to_the_gpu_and_back(record: Outer) -> None:
    there = moved(packed(record, pin_memory=True), torch.device("cuda"))
    assert len(storages(there)) == 1
    back = map_tensors(there, Tensor.cpu)
    for found, expected in zip(arrays_of(back), arrays_of(record), strict=True):
        assert np.array_equal(found, expected)
