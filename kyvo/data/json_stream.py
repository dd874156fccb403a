"""Reading a large JSON object entry by entry, in bounded memory, with the place of every fault."""

import codecs
import mmap
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kyvo.common.errors import InputError
from kyvo.common.files import require_file
from kyvo.common.json_text import BOM_REMEDY, JSONFault, strict_json

# Strings (so that brackets inside them do not count) and brackets: all that nesting depends on.
# A quote alone opens a string that the file's end cuts off.
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\]"]', re.DOTALL)
_NEWLINE = re.compile(rb"\n")
_MAX_DEPTH = 64
_REMEDY = (
    "Expected one JSON object {key: value, ...}; the file may be truncated: make or download it "
    "again."
)
_MAX_VALUE_BYTES = 1 << 26


def iterate_entries(path: Path, purpose: str) -> Iterator[tuple[str, Any]]:
    """Yield (key, value) of the JSON object in ``path``, one value in memory at a time.

    Raises:
        InputError: missing file, not a JSON object, truncated, nested too deep, a duplicate key;
            the message names the file and the line.
    """
    require_file(path, purpose)
    if path.stat().st_size == 0:
        raise InputError(f"{purpose}: {path}: the file is empty. Make or download it again.")
    with path.open("rb") as stream:
        data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        with data:
            yield from _entries(data, path, purpose)


def _entries(data: mmap.mmap, path: Path, purpose: str) -> Iterator[tuple[str, Any]]:
    if data[: len(codecs.BOM_UTF8)] == codecs.BOM_UTF8:
        raise _fault(data, 0, "a byte order mark", path, purpose, BOM_REMEDY)
    seen: set[str] = set()
    end_of_last = _expect(data, 0, rb"\s*\{", path, purpose)
    first = True
    for key_start, key_stop, value_stop in _spans(data, path, purpose):
        separator = rb"\s*" if first else rb"\s*,\s*"
        if _expect(data, end_of_last, separator, path, purpose) != key_start:
            raise _fault(data, end_of_last, "expected a key", path, purpose)
        value_start = _expect(data, key_stop, rb"\s*:\s*", path, purpose)
        if value_stop - value_start > _MAX_VALUE_BYTES:
            raise _fault(data, value_start, "this value is too large for a sample", path, purpose)
        key = _parse(data, key_start, key_stop, path, purpose)
        if key in seen:
            raise _fault(data, key_start, f"duplicate key {key!r}", path, purpose)
        seen.add(key)
        yield key, _parse(data, value_start, value_stop, path, purpose)
        end_of_last, first = value_stop, False
    _expect(data, end_of_last, rb"\s*\}\s*\Z", path, purpose)


def _spans(data: mmap.mmap, path: Path, purpose: str) -> Iterator[tuple[int, int, int]]:
    """Offsets (key start, key stop, value stop) of the root's entries with bracketed values."""
    depth = 0
    key: tuple[int, int] | None = None
    for match in _STRUCTURE.finditer(data):
        token = data[match.start()]
        if token in b"{[":
            depth += 1
            if depth > _MAX_DEPTH:
                raise _fault(data, match.start(), "nested too deep", path, purpose)
        elif token in b"}]":
            depth -= 1
            if depth == 1 and key is not None:
                yield (*key, match.end())
                key = None
            if depth == 0:
                return
        elif match.end() - match.start() == 1:
            break
        elif depth == 1 and key is None:
            key = match.span()
        elif depth == 1:
            raise _fault(data, match.start(), "expected a list or an object", path, purpose)
    raise _fault(data, len(data), "the file ends in the middle of a value", path, purpose)


def _expect(data: mmap.mmap, start: int, pattern: bytes, path: Path, purpose: str) -> int:
    match = re.compile(pattern).match(data, start)
    if match is None:
        found = bytes(data[start : start + 20])
        raise _fault(data, start, f"unexpected {found!r}", path, purpose)
    return match.end()


def _parse(data: mmap.mmap, start: int, stop: int, path: Path, purpose: str) -> Any:
    try:
        return strict_json(data[start:stop])
    except JSONFault as fault:
        problem = f"invalid value: {fault.problem}"
        raise _fault(data, start, problem, path, purpose, fault.remedy) from None


def _fault(
    data: mmap.mmap, offset: int, problem: str, path: Path, purpose: str, remedy: str = _REMEDY
) -> InputError:
    line = 1 + sum(1 for _ in _NEWLINE.finditer(data, 0, offset))
    return InputError(f"{purpose}: {path}: line {line}, byte {offset}: {problem}. {remedy}")
