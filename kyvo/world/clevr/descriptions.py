"""Which objects a description fits, for every choice of the attributes that it says.

Sets of objects are integers: bit i says whether object i is one of them.
"""

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from kyvo.world.clevr.scene import ATTRIBUTES

Objects = int
"""A set of objects, as bits."""
Form = tuple[str, ...]
"""Attributes that a description says, in the order of ``ATTRIBUTES``."""

FORMS: tuple[Form, ...] = tuple(
    form
    for length in range(len(ATTRIBUTES) + 1)
    for form in itertools.combinations(ATTRIBUTES, length)
)
"""All of them, short ones first."""


@lru_cache(1 << 12)
def members(objects: Objects) -> tuple[int, ...]:
    """Return the indices of objects, in order."""
    return tuple(i for i in range(objects.bit_length()) if objects >> i & 1)


def set_of(indices: Iterable[int]) -> Objects:
    """Return the set of the objects with these indices, each given once."""
    return sum([1 << i for i in indices])


def having(words: Sequence[str]) -> dict[str, Objects]:
    """Return by word the objects that have it, given each object's."""
    found = dict.fromkeys(words, 0)
    for i, word in enumerate(words):
        found[word] |= 1 << i
    return found


def find_alike(words: Mapping[str, Sequence[str]]) -> tuple[tuple[Objects, ...], ...]:
    """Find the objects with the same words as each.

    Args:
        words: ``[attribute][i]`` is the word of object i.

    Returns:
        ``[i][k]``: the objects with the words of object i for the attributes ``FORMS[k]``.
    """
    same: dict[str, list[Objects]] = {}
    for attribute in ATTRIBUTES:
        found = having(words[attribute])
        same[attribute] = [found[word] for word in words[attribute]]
    num_objects = len(same[attribute])
    rows: dict[Form, Sequence[Objects]] = {(): [(1 << num_objects) - 1] * num_objects}
    for *rest, last in FORMS[1:]:
        rows[*rest, last] = list(map(operator.and_, rows[tuple(rest)], same[last]))
    return tuple(zip(*rows.values(), strict=True))
