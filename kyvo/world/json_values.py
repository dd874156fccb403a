"""Values of a scene's JSON, checked where they come in; ``where`` names their place in errors."""

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from kyvo.common.errors import InputError

Vector = tuple[float, float, float]


def read_mapping(item: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """Return the object under ``key``; an empty one where it is missing."""
    value = item.get(key, {})
    if not isinstance(value, dict):
        raise InputError(f"{where}: '{key}' is {value!r:.60}. Expected an object {{...}}.")
    return value


def read_objects(scene: Mapping[str, Any], where: str) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the objects of a scene, each with its place for error messages."""
    items = scene.get("objects")
    if not isinstance(items, list):
        raise InputError(f"{where}: no list under 'objects'. Expected a scene's JSON.")
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            raise InputError(
                f"{where}, object {index}: {item!r:.60}. Expected an object of a scene's JSON."
            )
        yield item, f"{where}, object {index}"


def read_word(item: Mapping[str, Any], key: str, words: Collection[str], where: str) -> str:
    """Return the word under ``key``, which must be one of ``words``."""
    word = item.get(key)
    if not isinstance(word, str) or word not in words:
        raise InputError(f"{where}: '{key}' is {word!r:.60}. Expected one of: {', '.join(words)}.")
    return word


def read_numbers(value: Any, count: int, where: str) -> list[float]:
    """Return ``count`` finite numbers, as they are: whole ones stay whole."""
    good = isinstance(value, list | tuple) and len(value) == count
    if not good or not all(isinstance(x, int | float) and math.isfinite(x) for x in value):
        raise InputError(f"{where}: {value!r:.60}. Expected finite numbers, {count} in all.")
    return list(value)


def read_vector(value: Any, where: str) -> Vector:
    """Return three finite numbers."""
    x, y, z = map(float, read_numbers(value, 3, where))
    return x, y, z


def read_pixel(item: Mapping[str, Any], where: str) -> tuple[int, int, float] | None:
    """Return column, row and depth of an object in the image; None where the key is missing."""
    if "pixel_coords" not in item:
        return None
    place = f"{where}, 'pixel_coords'"
    column, row, depth = read_numbers(item["pixel_coords"], 3, place)
    return int(column), int(row), float(depth)


def read_text(item: Mapping[str, Any], key: str, where: str) -> str:
    """Return the text under ``key``; an empty one where it is missing."""
    value = item.get(key, "")
    if not isinstance(value, str):
        raise InputError(f"{where}: '{key}' is {value!r:.60}. Expected a text.")
    return value


def read_index(item: Mapping[str, Any], key: str, where: str) -> int:
    """Return the whole number under ``key``; 0 where it is missing."""
    value = item.get(key, 0)
    if type(value) is not int or value < 0:
        raise InputError(f"{where}: '{key}' is {value!r:.60}. Expected a whole number, 0 or more.")
    return value
