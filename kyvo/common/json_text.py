"""Strict JSON: what is wrong is said with its place and a remedy that fits.

Stricter than a parser: nothing but UTF-8, no byte order mark, no NaN, no key twice.
"""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from kyvo.common.errors import InputError

# Every string, with the colon that makes it a key; no closing quote is taken for an opening one.
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"\s*+(:?)', re.DOTALL)
_KEYS_AND_BRACKETS = re.compile(rb'("(?:[^"\\]|\\.)*+")\s*+(:?)|[{}]', re.DOTALL)
_OTHER_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
BOM_REMEDY = "Save it as UTF-8 without the byte order mark at its start."
_NESTED = {dict, list}
_NO_NUMBERS = re.compile(r"-?(NaN|Infinity|inf|nan)")


@dataclass
class JSONFault(ValueError):
    """What is wrong with a JSON text.

    Attributes:
        problem: in words.
        remedy: a sentence.
        line: counted from 1.
    """

    problem: str
    remedy: str
    line: int


def parse_json(data: bytes, where: str, lines_before: int = 0) -> Any:
    """The value of a JSON text.

    Args:
        where: names the text in errors, such as ``scenes: a.json``.
        lines_before: lines of the file above ``data``.

    Raises:
        InputError: the text is no JSON, or an object has a key twice.
    """
    try:
        return strict_json(data)
    except JSONFault as fault:
        line = fault.line + lines_before
        raise InputError(
            f"{where}: line {line}: not valid JSON: {fault.problem}. {fault.remedy}"
        ) from None


def strict_json(data: bytes) -> Any:
    """``parse_json`` for callers that know the place of the text; raises JSONFault."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        problem = f"{error.msg} at column {error.colno}"
        raise JSONFault(problem, _remedy(data, error), error.lineno) from None
    num_keys = _STRINGS.findall(data).count(b":")
    if num_keys > 1 and num_keys != _num_keys(value):
        key, offset = next(_repeated_keys(data))
        line = data.count(b"\n", 0, offset) + 1
        raise JSONFault(f"duplicate key {key!r:.120}", "Keep one of the two.", line)
    return value


def _remedy(data: bytes, error: orjson.JSONDecodeError) -> str:
    """What helps against the fault that the parser found."""
    if data.startswith(codecs.BOM_UTF8):
        return BOM_REMEDY
    if data.startswith(_OTHER_MARKS) or not _is_utf8(data):
        return "Save it as UTF-8."
    if not data.strip():
        return "It is empty: make or download it again."
    if _NO_NUMBERS.match(error.doc, error.pos):
        return "JSON has finite numbers only: write null, or leave the entry out."
    if error.pos >= len(error.doc.rstrip()):
        return "It may be truncated: make or download it again."
    if "depth" in error.msg:
        return "It is nested too deep: make it again."
    return "Correct that place, or make the file again."


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _num_keys(value: Any) -> int:
    """Keys of all objects in a parsed value."""
    count, todo = 0, [[value]]
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            count += len(item)
        values = item.values() if isinstance(item, dict) else item
        # Most lists hold numbers only: their kinds are found faster than walked through.
        if not _NESTED.isdisjoint(map(type, values)):
            todo += [part for part in values if type(part) in _NESTED]
    return count


def _repeated_keys(data: bytes) -> Iterator[tuple[str, int]]:
    """Keys that their object has already, and the offset of the second one; of valid JSON."""
    seen: list[set[str]] = []
    for match in _KEYS_AND_BRACKETS.finditer(data):
        if match[0] == b"{":
            seen.append(set())
        elif match[0] == b"}":
            seen.pop()
        elif match[2]:
            key = orjson.loads(match[1])
            if key in seen[-1]:
                yield key, match.start()
            seen[-1].add(key)
