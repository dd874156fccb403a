"""Dataclasses of tensors, and their way to a device: one copy for all the tensors of a batch."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from itertools import accumulate
from typing import Any, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

_ALIGNMENT = 16
"""Of each tensor within the memory that all share, in bytes."""

Tensors = TypeVar("Tensors")
"""A dataclass with tensors, or arrays, among its fields at any depth."""


def map_tensors(
    record: Tensors, function: Callable[[Any], Any], kind: type | tuple[type, ...] = Tensor
) -> Tensors:
    """The dataclass with ``function`` of each of its tensors, in the order of its fields.

    ``kind``: the class of what counts as a tensor.
    """
    changed: dict[str, Any] = {}
    for item in fields(cast(Any, record)):
        value = getattr(record, item.name)
        if isinstance(value, kind):
            changed[item.name] = function(value)
        elif is_dataclass(value):
            changed[item.name] = map_tensors(value, function, kind)
    return cast(Tensors, replace(cast(Any, record), **changed))


def packed(record: Tensors, pin_memory: bool) -> Tensors:
    """The dataclass with its arrays as tensors side by side in one piece of memory.

    ``pin_memory``: in pinned memory, from which a GPU copies while the host goes on.
    """
    sizes: list[int] = []
    map_tensors(record, lambda array: sizes.append(array.nbytes), np.ndarray)
    starts = list(accumulate((_aligned(size) for size in sizes), initial=0))
    memory = torch.empty(starts[-1], dtype=torch.uint8, pin_memory=pin_memory)
    places = iter(starts)

    def place(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return _view(memory, next(places), tensor).copy_(tensor)

    return map_tensors(record, place, np.ndarray)


def moved(record: Tensors, device: torch.device) -> Tensors:
    """The dataclass with its tensors on ``device``: one copy for all that share their memory.

    They are contiguous, and whatever else shares their memory moves too.
    """
    memories: dict[int, Tensor] = {}

    def move(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in memories:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage)
            memories[storage.data_ptr()] = whole.to(device, non_blocking=True)
        start = int(tensor.storage_offset()) * tensor.element_size()
        return _view(memories[storage.data_ptr()], start, tensor)

    return map_tensors(record, move)


def _view(memory: Tensor, start: int, like: Tensor) -> Tensor:
    """A tensor of this type and shape in ``memory`` from byte ``start`` on."""
    return memory[start : start + like.nbytes].view(like.dtype).view(like.shape)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
