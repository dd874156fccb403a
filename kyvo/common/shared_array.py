"""Arrays in memory that processes share, so that images need no copy on their way between them."""

import itertools
import math
import mmap
from collections.abc import Callable, Sequence
from weakref import WeakValueDictionary

import numpy as np


class SharedArray:
    """An array of bytes that this process and those forked after it see alike.

    A task of theirs takes it as any other argument, without a copy. It has no name in the system:
    it is gone with the last process that has it, however that ends.

    Attributes:
        values: uint8, of the shape asked for.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        size = math.prod(shape)
        memory = mmap.mmap(-1, max(1, size))
        self.values = np.frombuffer(memory, np.uint8, size).reshape(shape)
        self._key = next(_keys)
        _arrays[self._key] = self

    def __reduce__(self) -> tuple[Callable[[int], "SharedArray"], tuple[int]]:
        """Send the name alone: the other process inherited the array itself."""
        return _inherited, (self._key,)


_keys = itertools.count()
_arrays: WeakValueDictionary[int, SharedArray] = WeakValueDictionary()


def _inherited(key: int) -> SharedArray:
    return _arrays[key]
