"""Random numbers by their number: word c of a key is a function of both, so draws need no order.

Word c is the c-th output of SplitMix64 (Steele, Lea and Flood 2014) started at the key. Tensors are
int64 of any shape and wrap around, so that the words are the same on every device.
"""

import hashlib

import torch
from torch import Tensor


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


_STEP = _signed(0x9E3779B97F4A7C15)
_FIRST, _SECOND = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)

UNIFORM_BITS = 21
"""Three uniform numbers come from one word, with so many bits each."""
CHOICE_BITS = 16
"""Four choices come from one word; of n things some are chosen n / 65,536 more often, at most."""


def key_of(text: str) -> int:
    """Return a key (int64) that depends on all of ``text``."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def words(keys: Tensor | int, counters: Tensor) -> Tensor:
    """Return word number ``counters`` of ``keys``; both broadcast."""
    word = counters * _STEP + keys
    word = (word ^ _shifted(word, 30)) * _FIRST
    word = (word ^ _shifted(word, 27)) * _SECOND
    return word ^ _shifted(word, 31)


def uniforms(word: Tensor) -> Tensor:
    """Return three uniform numbers (3, ...) of each word: float64, more than 0 and less than 1."""
    fields = [_field(word, 1 + i * UNIFORM_BITS, UNIFORM_BITS) for i in range(3)]
    return (torch.stack(fields).double() + 0.5) * 2.0**-UNIFORM_BITS


def choices(word: Tensor, counts: tuple[int, ...]) -> list[Tensor]:
    """Return of each word an index below each of ``counts``, which are four at most."""
    assert len(counts) * CHOICE_BITS <= 64
    return [
        _field(word, i * CHOICE_BITS, CHOICE_BITS) * count >> CHOICE_BITS
        for i, count in enumerate(counts)
    ]


def _field(word: Tensor, start: int, size: int) -> Tensor:
    return word >> start & (1 << size) - 1


def _shifted(word: Tensor, by: int) -> Tensor:
    """Return the bits moved right, with zeros behind them: the shift of int64 repeats the sign."""
    return word >> by & (1 << 64 - by) - 1
