"""Schemas: what an object of each data set consists of, in which order, words and units.

A schema is data. Adding a data set means adding one here and a vocabulary preset.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from kyvo.errors import InputError
from kyvo.vocabulary import format_number


@dataclass(frozen=True)
class WordField:
    """A field whose value is one of a fixed list of words, such as ``[SIZE] large``."""

    marker: str
    key: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Axis:
    """One number: its name, unit and the values it may take, ascending.

    Values up to ``reach`` beyond the ends belong to the ends; a ``period`` wraps angles first.
    """

    name: str
    unit: str
    grid: tuple[float, ...]
    reach: float = 0.025
    period: float | None = None

    def snap(self, value: float) -> float:
        """The grid value nearest to ``value``.

        Raises:
            InputError: ``value`` is not finite or lies more than ``reach`` beyond the grid.
        """
        low, high = self.grid[0], self.grid[-1]
        if self.period and math.isfinite(value):
            value = (value + self.period / 2) % self.period - self.period / 2
        if not low - self.reach <= value <= high + self.reach:
            raise InputError(f"{self.name} = {value}, expected {low} to {high} {self.unit}")
        return min(self.grid, key=lambda point: abs(point - value))


@dataclass(frozen=True)
class NumberField:
    """A field of several numbers, such as ``[LOCATION]-0.550 0.050 0.700``."""

    marker: str
    key: str
    axes: tuple[Axis, ...]


Field = WordField | NumberField


@dataclass(frozen=True)
class Schema:
    """The fields of an object in their order, and how its numbers are written."""

    name: str
    fields: tuple[Field, ...]
    decimals: int
    # Ground-truth file -> the schema's own keys and words, applied before anything else.
    variant_separator: str | None = None
    yaw_key: str | None = None
    # The field of a stored scene's ``string`` that names it in result files; None: the key.
    name_field: str | None = None

    def normalise(self, item: Mapping[str, object]) -> dict[str, object]:
        """The object as this schema's fields read it.

        ObjaWorld's files name a variant ("bench-05": the bench) and keep the yaw apart.
        """
        result = dict(item)
        yaw = [result[self.yaw_key]] if self.yaw_key in result else []
        for field in self.fields:
            value = result.get(field.key)
            if isinstance(field, WordField) and self.variant_separator and isinstance(value, str):
                result[field.key] = value.split(self.variant_separator)[0]
            if isinstance(field, NumberField) and isinstance(value, list | tuple):
                result[field.key] = [*value, *yaw] if len(value) < len(field.axes) else value
        return result

    def number_string(self, value: float) -> str:
        """``value`` as the vocabulary writes it."""
        return format_number(value, self.decimals)


def _grid(low: float, high: float, step: float) -> tuple[float, ...]:
    return tuple(round(low + i * step, 6) for i in range(round((high - low) / step) + 1))


_SPACE = _grid(-3, 3, 0.05)

CLEVR = Schema(
    "clevr",
    (
        WordField("[SIZE]", "size", ("large", "small")),
        WordField(
            "[COLOR]",
            "color",
            ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow"),
        ),
        WordField("[MATERIAL]", "material", ("rubber", "metal")),
        WordField("[SHAPE]", "shape", ("cube", "sphere", "cylinder")),
        NumberField(
            "[LOCATION]", "3d_coords", tuple(Axis(n, "scene units", _SPACE) for n in "xyz")
        ),
    ),
    decimals=3,
)

OBJAWORLD = Schema(
    "objaworld",
    (
        WordField(
            "[SHAPE]",
            "shape",
            ("person", "bird", "bench", "lamppost", "sofa", "table", "chair", "barrel"),
        ),
        NumberField(
            "[LOCATION]",
            "3d_coords",
            (
                *(Axis(n, "scene units", _SPACE) for n in "xyz"),
                # The released number block ends at 3.000, so a yaw near pi is written as 3.000.
                Axis("yaw", "radians", _SPACE, reach=0.15, period=2 * math.pi),
            ),
        ),
    ),
    decimals=3,
    variant_separator="-",
    yaw_key="rotation",
)

OBJECTRON = Schema(
    "objectron",
    (
        WordField(
            "[CATEGORY]",
            "category",
            (
                "bicycle",
                "book",
                "bottle",
                "camera",
                "cereal box",
                "chair",
                "cup",
                "laptop",
                "shoes",
            ),
        ),
        NumberField(
            "[CENTER_CAM]",
            "center_cam",
            (
                Axis("x", "metres", _grid(-0.2, 0.2, 0.01)),
                Axis("y", "metres", _grid(-0.2, 0.1, 0.01)),
                Axis("z", "metres", (*_grid(0, 3, 0.05), 5, 7.5, 10, 12.5, 15, 17.5)),
            ),
        ),
        NumberField(
            "[DIMENSIONS]",
            "dimensions",
            (
                Axis("length", "metres", _grid(0, 1, 0.05)),
                Axis("width", "metres", _grid(0, 1, 0.05)),
                Axis("height", "metres", _grid(0, 1.2, 0.05)),
            ),
        ),
    ),
    decimals=2,
    name_field="file_path",
)

SCHEMAS = {schema.name: schema for schema in (CLEVR, OBJAWORLD, OBJECTRON)}


def get_schema(name: str) -> Schema:
    """The schema called ``name``; InputError lists the schemas if there is none."""
    if name not in SCHEMAS:
        raise InputError(f"no scene schema '{name}'; known: {', '.join(SCHEMAS)}")
    return SCHEMAS[name]
