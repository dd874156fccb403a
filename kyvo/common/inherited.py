"""Values that forked workers have already: nothing is copied to them with a task."""

import itertools
import math
import mmap
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import numpy as np

T = TypeVar("T")


class Inherited(Generic[T]):
    """A value made before a process's workers are forked; a task takes it like any argument.

    Attributes:
        value: what it was when they were forked.
    """

    def __init__(self, value: T) -> None:
        self.value = value
        self._key = next(_keys)
        _known[self._key] = self

    def __reduce__(self) -> tuple[Callable[[int], "Inherited[Any]"], tuple[int]]:
        """Send the number alone, by which the worker finds its own."""
        return _find, (self._key,)


def shared_array(shape: Sequence[int]) -> Inherited[np.ndarray]:
    """An array of bytes that this process and its workers see alike, whoever writes into it.

    It has no name in the system: it is gone with the last process that has it, however that ends.
    """
    size = math.prod(shape)
    memory = mmap.mmap(-1, max(1, size))
    return Inherited(np.frombuffer(memory, np.uint8, size).reshape(shape))


_keys = itertools.count()
_known: WeakValueDictionary[int, Inherited[Any]] = WeakValueDictionary()


def _find(key: int) -> Inherited[Any]:
    return _known[key]
