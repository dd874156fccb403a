"""Schemas: what an object of a data set consists of, in which order, its words and units.

A schema is data, and the door between JSON and typed scenes. The released data sets have theirs in
``kyvo.scenes.presets``; an own data set has one in a yaml file (DATA.md) and needs no change of
the package.
"""

import math
import sys
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from kyvo.common.errors import InputError
from kyvo.scenes.drawing import Drawing
from kyvo.scenes.folders import SceneFolder
from kyvo.scenes.matching_rule import MatchingRule
from kyvo.scenes.types import Scene, SceneObject
from kyvo.tokens.vocabulary import format_number


@dataclass(frozen=True)
class WordField:
    """A field whose value is one of a fixed list of words, such as ``[SIZE] large``.

    Attributes:
        marker: the structure token before the value.
        key: the entry of the scene's JSON.
        words: what the entry may be.
    """

    marker: str
    key: str
    words: tuple[str, ...]

    def faults(self, value: object) -> Iterator[str]:
        """What keeps ``value`` from being this field's."""
        if value not in self.words:
            yield f"{value!r:.60}, expected one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Axis:
    """One number of a field.

    Attributes:
        name, unit: for messages.
        grid: the values that it may take, ascending.
        reach: values up to this far beyond the grid's ends belong to the ends.
        period: angles are first wrapped to the turn that has the grid in its middle.
    """

    name: str
    unit: str
    grid: tuple[float, ...]
    reach: float = 0.025
    period: float | None = None

    def snap(self, value: float) -> float:
        """The grid value nearest to ``value``.

        Raises:
            InputError: ``value`` is not finite or more than ``reach`` beyond the grid.
        """
        low, high = self.grid[0], self.grid[-1]
        if self.period and math.isfinite(value):
            start = (low + high - self.period) / 2
            value = (value - start) % self.period + start
        if not low - self.reach <= value <= high + self.reach:
            raise InputError(f"{self.name} = {value}, expected {low} to {high} {self.unit}")
        index = bisect_left(self.grid, value)
        below, above = self.grid[max(index - 1, 0)], self.grid[min(index, len(self.grid) - 1)]
        return below if abs(below - value) <= abs(above - value) else above

    def remainder(self, value: float, snapped: float) -> float:
        """By how much ``value`` exceeds the grid value that it was snapped to."""
        rest = value - snapped
        if self.period:
            rest -= self.period * round(rest / self.period)
        return rest


@dataclass(frozen=True)
class NumberField:
    """A field of several numbers, such as ``[LOCATION]-0.550 0.050 0.700``.

    Attributes:
        marker: the structure token before the value.
        key: the entry of the scene's JSON.
        axes: its numbers, in order.
    """

    marker: str
    key: str
    axes: tuple[Axis, ...]

    def faults(self, value: object) -> Iterator[str]:
        """What keeps ``value`` from being this field's: every axis is checked."""
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


JsonObject = dict[str, str | list[float]]
"""An object as the result files have it."""


@dataclass(frozen=True)
class Schema:
    """The fields of an object in their order, how they are written, matched and drawn.

    Attributes:
        name: such as ``clevr``, or the path of the schema's file.
        fields: in the order in which the model writes them.
        decimals: digits after the point of every number.
        variant_separator: what separates a word from the variant that a ground-truth file names
            ("bench-05": the bench).
        yaw_key: entry of a ground-truth file whose number ends a position without one.
        name_field: the field of a stored scene's ``string`` that names it in result files; None:
            its key does.
        matching: when two objects count as the same; None: nothing is said, nothing can be scored.
        drawing: how plots draw the objects.
        scene_folder: where the true scenes are; None: not one file each.
    """

    name: str
    fields: tuple[Field, ...]
    decimals: int
    variant_separator: str | None = None
    yaw_key: str | None = None
    name_field: str | None = None
    matching: MatchingRule | None = None
    drawing: Drawing = field(default_factory=Drawing)
    scene_folder: SceneFolder | None = field(default_factory=SceneFolder)

    @cached_property
    def word_fields(self) -> tuple[WordField, ...]:
        """The fields that hold a word."""
        return tuple(fld for fld in self.fields if isinstance(fld, WordField))

    @cached_property
    def number_fields(self) -> tuple[NumberField, ...]:
        """The fields that hold numbers."""
        return tuple(fld for fld in self.fields if isinstance(fld, NumberField))

    @cached_property
    def position_field(self) -> NumberField | None:
        """The field of the position; None if there is none.

        It is the matching rule's, or without a rule the first field of two numbers or more.
        """
        key = self.matching.position if self.matching else None
        found = (f for f in self.number_fields if f.key == key or (not key and len(f.axes) > 1))
        return next(found, None)

    @property
    def rule(self) -> MatchingRule:
        """The matching rule.

        Raises:
            InputError: the schema has none.
        """
        if self.matching is None:
            raise InputError(
                f"scene schema '{self.name}' has no matching rule: when are two objects the same? "
                "Add 'matching' to it (DATA.md)."
            )
        return self.matching

    def make(
        self, words: Mapping[str, str], numbers: Mapping[str, tuple[float, ...]]
    ) -> SceneObject:
        """An object of this schema."""
        place = self.position_field
        return SceneObject(words, numbers, place.key if place else None)

    def parse(self, value: object, where: str) -> SceneObject:
        """Read a JSON object, strictly; numbers stay as they are, off the grid.

        Raises:
            InputError: naming ``where`` and the field that does not fit.
        """
        if fault := next(self._faults(value), None):
            raise InputError(f"{where}: {fault}")
        assert isinstance(value, Mapping)
        return self.read(value)

    def read(self, value: Mapping[str, object]) -> SceneObject:
        """Read what a JSON object has of this schema; never raises.

        A field is left out unless it holds a word, known or not, or a list; an entry of a list
        that is no finite number becomes NaN.
        """
        values = self._normalised(value)
        words: dict[str, str] = {}
        numbers: dict[str, tuple[float, ...]] = {}
        for fld in self.fields:
            found = values.get(fld.key)
            if isinstance(fld, WordField):
                if isinstance(found, str):
                    words[fld.key] = found
            elif isinstance(found, list | tuple):
                numbers[fld.key] = tuple(map(_finite, found))
        return self.make(words, numbers)

    def to_json(self, item: SceneObject) -> JsonObject:
        """The object's fields of this schema, in their order, as the result files have them."""
        result: JsonObject = {}
        for fld in self.fields:
            if fld.key in item.words:
                result[fld.key] = item.words[fld.key]
            elif fld.key in item.numbers:
                result[fld.key] = list(item.numbers[fld.key])
        return result

    def parse_scene(self, objects: object, where: str) -> Scene:
        """Read a JSON list of objects, strictly.

        Raises:
            InputError: naming ``where``, the object and the field that does not fit.
        """
        if not isinstance(objects, list):
            raise InputError(f"{where}: expected a list of objects, found {objects!r:.60}.")
        places = (f"{where}: object {index}" for index in range(len(objects)))
        return Scene(tuple(map(self.parse, objects, places)))

    def scene_to_json(self, scene: Scene) -> list[JsonObject]:
        """The scene's objects as the result files have them."""
        return [self.to_json(item) for item in scene.objects]

    def complete(self, scene: Scene) -> Scene:
        """The objects that have every field; one read in part cannot be written as tokens."""
        keys = {fld.key for fld in self.fields}
        objects = (o for o in scene.objects if keys <= o.words.keys() | o.numbers.keys())
        return Scene(tuple(objects))

    def faults(self, value: object) -> list[str]:
        """Everything that keeps a JSON value from being an object of this schema."""
        return list(self._faults(value))

    def number_string(self, value: float) -> str:
        """``value`` as the vocabulary writes it."""
        return format_number(value, self.decimals)

    def _faults(self, value: object) -> Iterator[str]:
        if not isinstance(value, Mapping):
            yield f"expected an object with fields, found {value!r:.60}"
            return
        values = self._normalised(value)
        yield from (f"'{fld.key}' is missing" for fld in self.fields if fld.key not in values)
        for fld in self.fields:
            if fld.key in values:
                yield from (f"'{fld.key}': {fault}" for fault in fld.faults(values[fld.key]))

    def _normalised(self, value: Mapping[str, object]) -> dict[str, object]:
        """The entries of a ground-truth file that this schema has, as its fields read them."""
        result = {fld.key: value[fld.key] for fld in self.fields if fld.key in value}
        if self.variant_separator:
            for word_field in self.word_fields:
                if isinstance(word := result.get(word_field.key), str):
                    result[word_field.key] = word.split(self.variant_separator)[0]
        if self.yaw_key and self.yaw_key in value:
            for fld in self.number_fields:
                found = result.get(fld.key)
                if isinstance(found, list | tuple) and len(found) < len(fld.axes):
                    result[fld.key] = [*found, value[self.yaw_key]]
        return result


def _finite(value: object) -> float:
    """The value if it is a finite number, else NaN."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    return float(value) if abs(value) <= sys.float_info.max else math.nan
