"""Schemas: what an object of each data set consists of, in which order, words and units.

A schema is data. Adding a data set means adding one here and a vocabulary preset; an own domain
has both in yaml files (DATA.md) and needs no change of the package.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kyvo.common.config import load_config
from kyvo.common.errors import InputError, Problems
from kyvo.tokens.vocabulary import NumberRange, check_markers, check_numbers, format_number


@dataclass(frozen=True)
class WordField:
    """A field whose value is one of a fixed list of words, such as ``[SIZE] large``."""

    marker: str
    key: str
    words: tuple[str, ...]

    def faults(self, value: object) -> Iterator[str]:
        """What keeps ``value`` from being this field's."""
        if value not in self.words:
            yield f"{value!r:.60}, expected one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Axis:
    """One number: its name, unit and the values it may take, ascending.

    Values up to ``reach`` beyond the ends belong to the ends; a ``period`` first wraps angles to
    the turn that has the grid in its middle.
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
            start = (low + high - self.period) / 2
            value = (value - start) % self.period + start
        if not low - self.reach <= value <= high + self.reach:
            raise InputError(f"{self.name} = {value}, expected {low} to {high} {self.unit}")
        return min(self.grid, key=lambda point: abs(point - value))


@dataclass(frozen=True)
class NumberField:
    """A field of several numbers, such as ``[LOCATION]-0.550 0.050 0.700``."""

    marker: str
    key: str
    axes: tuple[Axis, ...]

    def faults(self, value: object) -> Iterator[str]:
        """What keeps ``value`` from being this field's: every axis is looked at."""
        numbers = value if isinstance(value, list | tuple) else ()
        if len(numbers) != len(self.axes) or not {*map(type, numbers)} <= {int, float}:
            yield f"{value!r:.60}, expected {len(self.axes)} numbers"
            return
        for axis, number in zip(self.axes, numbers, strict=True):
            try:
                axis.snap(number)
            except InputError as error:
                yield str(error)


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

    def faults(self, item: object) -> list[str]:
        """Everything that keeps ``item`` from being an object of this schema."""
        if not isinstance(item, Mapping):
            return [f"expected an object with fields, found {item!r:.60}"]
        values = self.normalise(item)
        faults = [f"'{f.key}' is missing" for f in self.fields if f.key not in values]
        for field in self.fields:
            if field.key in values:
                faults += [f"'{field.key}': {fault}" for fault in field.faults(values[field.key])]
        return faults

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


@dataclass(frozen=True)
class _AxisEntry(NumberRange):
    """One number of a field in a schema's yaml file."""

    name: str
    unit: str
    period: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        turn = self.high - self.low
        if self.period is not None and not turn < self.period <= turn + 2 * self.step:
            raise InputError(
                f"period {self.period}: expected more than high - low = {turn:.6g}, by two steps "
                "at most: the numbers must go once around"
            )

    def axis(self) -> Axis:
        """The axis; values up to half a step beyond its ends, or any angle, snap to it."""
        gap = self.step if self.period is None else self.period - (self.high - self.low)
        # So that the rounding of a wrapped angle refuses none.
        slack = 1e-6 * self.step
        return Axis(self.name, self.unit, self.values, gap / 2 + slack, self.period)


@dataclass(frozen=True)
class _FieldEntry:
    """One field in a schema's yaml file."""

    marker: str
    key: str
    words: tuple[str, ...] = ()
    numbers: tuple[_AxisEntry, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.words) == bool(self.numbers):
            raise InputError("expected either words or numbers, and at least one of them")
        for word in self.words:
            if not word or word != " ".join(word.split()) or self.words.count(word) > 1:
                raise InputError(f"word {word!r}: expected distinct words without outer blanks")

    def field(self) -> Field:
        """The field."""
        if self.words:
            return WordField(self.marker, self.key, self.words)
        return NumberField(self.marker, self.key, tuple(entry.axis() for entry in self.numbers))


@dataclass(frozen=True)
class _SchemaFile:
    """The keys of a schema's yaml file."""

    decimals: int
    fields: tuple[_FieldEntry, ...]

    def __post_init__(self) -> None:
        problems = Problems()
        axes = [axis for entry in self.fields for axis in entry.numbers]
        problems.attempt(check_numbers, axes, self.decimals)
        problems.attempt(check_markers, [entry.marker for entry in self.fields])
        problems.attempt(_check_keys, [entry.key for entry in self.fields])
        problems.raise_any()


def _check_keys(keys: Sequence[str]) -> None:
    if not keys or len(set(keys)) < len(keys):
        raise InputError(f"fields: expected at least one, with distinct keys; found {list(keys)}")


def get_schema(name: str) -> Schema:
    """The schema called ``name``, or that of the yaml file ``name``.

    Raises:
        InputError: there is no such schema, or the file has problems; it lists them.
    """
    if name.endswith(".yaml"):
        file = load_config(_SchemaFile, name)
        return Schema(name, tuple(entry.field() for entry in file.fields), file.decimals)
    if name not in SCHEMAS:
        known = ", ".join(SCHEMAS)
        raise InputError(f"no scene schema '{name}'; known: {known}, or the path of a .yaml file")
    return SCHEMAS[name]
