"""Reading logs and numbers for a report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kyvo.common.errors import InputError
from kyvo.common.files import read_json, read_json_lines
from kyvo.metrics.fields import expect

Row = Mapping[str, Any]


def read_log(path: Path | str) -> list[Row]:
    """Read a log of one JSON object per line.

    Raises:
        InputError: the file is missing, or a line is not a JSON object.
    """
    return list(read_json_lines(path, "log"))


def series(rows: list[Row], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one logged quantity, where it is a number."""
    found = [row for row in rows if is_number(row.get("step")) and is_number(row.get(name))]
    return [row["step"] for row in found], [row[name] for row in found]


def read_numbers(path: Path | str, purpose: str) -> dict[str, float]:
    """Read a JSON object whose values are all numbers.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    numbers = expect(read_json(path, purpose), dict, f"{purpose}: {path}")
    for name, value in numbers.items():
        if not is_number(value):
            raise InputError(f"{purpose}: {path}: {name}: expected a number, found {value!r:.60}.")
    return numbers


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number (a boolean is none)."""
    return isinstance(value, int | float) and not isinstance(value, bool)
