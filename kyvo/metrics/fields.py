"""Taking typed values out of parsed JSON, with errors that name the place."""

from collections.abc import Mapping
from typing import Any, TypeVar

from kyvo.common.errors import InputError

T = TypeVar("T")
_NAMES: Mapping[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number",
}


def expect(value: Any, kind: type[T], place: str) -> T:
    """Return ``value`` if it is of ``kind``.

    Raises:
        InputError: it is something else; ``place`` says where it is.
    """
    if not isinstance(value, kind):
        raise InputError(
            f"{place}: expected {_NAMES[kind]}, found {_describe(value)}. Check the file's layout."
        )
    return value


def take(mapping: Any, name: str, kind: type[T], place: str) -> T:
    """Return the entry ``name`` of a JSON object at ``place``.

    Raises:
        InputError: there is no object at ``place``, the entry is missing, or it has another type.
    """
    entries = expect(mapping, dict, place)
    if name not in entries:
        present = ", ".join(repr(key)[:40] for key in list(entries)[:6]) or "nothing"
        raise InputError(
            f"{place}: no entry {name!r} (it has {present}). Check that this is the right file."
        )
    return expect(entries[name], kind, f"{place}: {name}")


def _describe(value: Any) -> str:
    return f"{type(value).__name__} {value!r:.60}"
