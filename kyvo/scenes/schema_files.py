"""Schemas by name, and from yaml files (DATA.md)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from kyvo.common.config import load_config, suggest
from kyvo.common.errors import InputError, Problems
from kyvo.scenes.drawing import Drawing
from kyvo.scenes.matching_rule import MatchingRule, Tolerance
from kyvo.scenes.presets import SCHEMAS
from kyvo.scenes.schema import Axis, Field, NumberField, Schema, WordField
from kyvo.tokens.vocabulary import NumberRange, check_markers, check_numbers


@dataclass(frozen=True)
class _AxisEntry(NumberRange):
    """One number of a field in a schema's yaml file.

    Attributes:
        name, unit: for messages.
        period: of an angle, the length of a full turn.
    """

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
    """One field in a schema's yaml file: of words, or of numbers.

    Attributes:
        marker: the structure token before the value.
        key: the entry of the scene's JSON.
        words: what the entry may be.
        numbers: the grids of the entry's numbers.
    """

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
class _ToleranceEntry:
    """A bound on the mean absolute error of some numbers of a field.

    Attributes:
        key: the field.
        limit: the bound, in the numbers' unit.
        axes: names of the field's numbers; none: all of them.
        is_inclusive: an error equal to ``limit`` is still allowed.
    """

    key: str
    limit: float
    axes: tuple[str, ...] = ()
    is_inclusive: bool = False

    def tolerance(self, fields: Mapping[str, Field]) -> Tolerance:
        """The bound; angles are compared the short way round.

        Raises:
            InputError: there is no such field or number, or angles are mixed with lengths.
        """
        axes = _number_field(self.key, fields).axes
        names = [axis.name for axis in axes]
        for name in self.axes:
            _require(name, names, f"axes of '{self.key}'")
        chosen = tuple(i for i, name in enumerate(names) if not self.axes or name in self.axes)
        periods = {axes[i].period for i in chosen}
        if len(periods) > 1 or not 0 <= self.limit < math.inf:
            raise InputError(
                f"matching: tolerance of '{self.key}': expected a limit of 0 or more, on numbers "
                "of one period; give angles a tolerance of their own"
            )
        return Tolerance(self.key, chosen, self.limit, periods.pop(), self.is_inclusive)


@dataclass(frozen=True)
class _MatchingEntry:
    """When two objects count as the same.

    Attributes:
        words: keys of the fields whose words must be equal.
        position: key of the field that holds the position.
        taus: bounds on the distance of two positions; the reported mean is over them.
        distance_axes: how many of the position's leading numbers the distance is over; none: all.
        tolerances: further bounds.
        dimensions: one more, whose limit ``--dimension_tau`` sets.
        is_nearest: a prediction takes the nearest object that qualifies, not the first.
    """

    words: tuple[str, ...]
    position: str
    taus: tuple[float, ...]
    distance_axes: int | None = None
    tolerances: tuple[_ToleranceEntry, ...] = ()
    dimensions: _ToleranceEntry | None = None
    is_nearest: bool = False

    def rule(self, fields: Mapping[str, Field]) -> MatchingRule:
        """The rule.

        Raises:
            InputError: it names a field that is not there, or a bound that is none.
        """
        known = [key for key, fld in fields.items() if isinstance(fld, WordField)]
        for key in self.words:
            _require(key, known, "words")
        length = len(_number_field(self.position, fields).axes)
        count = length if self.distance_axes is None else self.distance_axes
        if not 1 <= count <= length:
            raise InputError(f"matching: distance_axes: {count}, expected 1 to {length}")
        if not self.taus or not all(0 < tau < math.inf for tau in self.taus):
            raise InputError(
                f"matching: taus: {list(self.taus)}, expected positive numbers, or one"
            )
        return MatchingRule(
            self.words,
            self.position,
            count,
            tuple(entry.tolerance(fields) for entry in self.tolerances),
            self.dimensions.tolerance(fields) if self.dimensions else None,
            self.is_nearest,
            taus=self.taus,
        )


@dataclass(frozen=True)
class _SchemaFile:
    """The keys of a schema's yaml file.

    Attributes:
        decimals: digits after the point of every number.
        fields: what an object consists of, in order.
        matching: when two objects count as the same; none: scenes cannot be scored.
        drawing: how plots draw the objects.
    """

    decimals: int
    fields: tuple[_FieldEntry, ...]
    matching: _MatchingEntry | None = None
    drawing: Drawing = field(default_factory=Drawing)

    def schema(self, name: str) -> Schema:
        """The schema, under the name ``name``."""
        fields = self._fields
        rule = self.matching.rule(fields) if self.matching else None
        return Schema(
            name, tuple(fields.values()), self.decimals, matching=rule, drawing=self.drawing
        )

    @property
    def _fields(self) -> dict[str, Field]:
        return {entry.key: entry.field() for entry in self.fields}

    def __post_init__(self) -> None:
        problems = Problems()
        axes = [axis for entry in self.fields for axis in entry.numbers]
        problems.attempt(check_numbers, axes, self.decimals)
        problems.attempt(check_markers, [entry.marker for entry in self.fields])
        problems.attempt(_check_keys, [entry.key for entry in self.fields])
        if self.matching is not None:
            problems.attempt(self.matching.rule, self._fields)
        problems.raise_any()


def _check_keys(keys: Sequence[str]) -> None:
    if not keys or len(set(keys)) < len(keys):
        raise InputError(f"fields: expected at least one, with distinct keys; found {list(keys)}")


def _number_field(key: str, fields: Mapping[str, Field]) -> NumberField:
    known = {k: fld for k, fld in fields.items() if isinstance(fld, NumberField)}
    _require(key, list(known), "number fields")
    return known[key]


def _require(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        raise InputError(f"matching: {what}: no {name!r}; {suggest(name, known)}")


def get_schema(name: str) -> Schema:
    """The schema called ``name``, or that of the yaml file ``name``.

    Raises:
        InputError: there is no such schema, or the file has problems; it lists them.
    """
    if name.endswith(".yaml"):
        return load_config(_SchemaFile, name).schema(name)
    if name not in SCHEMAS:
        known = ", ".join(SCHEMAS)
        raise InputError(f"no scene schema '{name}'; known: {known}, or the path of a .yaml file")
    return SCHEMAS[name]
