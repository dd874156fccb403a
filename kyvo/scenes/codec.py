"""Scene <-> ids, both ways.

Writing is strict: an object that does not fit the schema is an error. Reading is total: any ids
give objects and a report that counts, by reason, everything that could not be read.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import NamedTuple

from kyvo.common.errors import InputError
from kyvo.scenes.schema import Axis, Field, NumberField, Schema
from kyvo.scenes.types import Scene, SceneObject
from kyvo.tokens.interface import TextTokenizer
from kyvo.tokens.vocabulary import BRACKETS, OBJECT_END, OBJECT_START, Vocabulary

Value = str | tuple[float, ...]
"""What a field holds."""
_MORE_DECIMALS = 2
"""Of a number off the grid, beyond those of the grid."""


class _Token(NamedTuple):
    """An id, and the number that is meant by it; NaN: that of the id, if it has one."""

    id: int
    value: float


@dataclass
class ParseReport:
    """What a reader found.

    Attributes:
        num_scenes: scenes read.
        num_objects: objects in them.
        num_complete: objects of which every field could be read.
        reasons: how often each fault occurred.
    """

    num_scenes: int = 0
    num_objects: int = 0
    num_complete: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, other: "ParseReport") -> None:
        """Count ``other``'s findings too."""
        self.num_scenes += other.num_scenes
        self.num_objects += other.num_objects
        self.num_complete += other.num_complete
        self.reasons.update(other.reasons)

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """The report as JSON values."""
        return {
            "scenes": self.num_scenes,
            "objects": self.num_objects,
            "complete_objects": self.num_complete,
            "reasons": dict(self.reasons.most_common()),
        }


@dataclass(frozen=True)
class SceneCodec:
    """Writes and reads the scenes of one schema in one vocabulary."""

    schema: Schema
    vocabulary: Vocabulary
    tokenizer: TextTokenizer

    def encode(self, scene: Scene, where: str = "scene") -> list[int]:
        """Ids of a scene, SCENE-START to SCENE-END; numbers snap to the schema's grid.

        Raises:
            InputError: naming ``where``, the object and the field that does not fit.
        """
        return self.encode_with_remainders(scene, where)[0]

    def encode_with_remainders(
        self, scene: Scene, where: str = "scene"
    ) -> tuple[list[int], list[float]]:
        """``encode``, and by how much each token's true number exceeds the grid's; 0 elsewhere."""
        start, end = self.vocabulary.brackets("three_d")
        opening, closing = self._id(OBJECT_START), self._id(OBJECT_END)
        word_ids, number_ids, markers = self.word_ids, self._number_ids, self._field_ids
        ids, remainders = [start], {}
        for index, item in enumerate(scene.objects):
            ids.append(opening)
            for marker, (fld, value) in zip(markers, self._values(item, where, index), strict=True):
                ids.append(marker)
                if isinstance(value, str):
                    ids += word_ids[value]
                    continue
                assert isinstance(fld, NumberField)
                for axis, exact, snapped in zip(
                    fld.axes, item.numbers[fld.key], value, strict=True
                ):
                    remainders[len(ids)] = axis.remainder(exact, snapped)
                    ids.append(number_ids[snapped])
            ids.append(closing)
        ids.append(end)
        return ids, [remainders.get(place, 0.0) for place in range(len(ids))]

    def string(self, scene: Scene, where: str = "scene") -> str:
        """The scene as text, such as ``[SCENE-START][OBJECT-START][SIZE] large...``."""
        start, end = BRACKETS["three_d"]
        parts = [start]
        for index, item in enumerate(scene.objects):
            parts.append(OBJECT_START)
            for fld, value in self._values(item, where, index):
                parts += [fld.marker, self._text(value)]
            parts.append(OBJECT_END)
        return "".join([*parts, end])

    def read(
        self, ids: Sequence[int], values: Sequence[float] | None = None
    ) -> tuple[Scene, ParseReport]:
        """The scene in ``ids`` and a report; never raises, drops nothing silently.

        An object that is only partly readable is kept with the fields that are, so that metrics
        count it as a wrong prediction.

        Args:
            values: of each id the number that is meant by it, off the grid; NaN, or None for all:
                that of the id. An angle (an axis with a period) is always that of its id: the two
                ends of its grid are neighbours, and a mean over bins does not know that.
        """
        report = ParseReport(num_scenes=1)
        meant = repeat(math.nan) if values is None else values
        chunks, reasons = self._split_objects(ids, meant)
        report.reasons.update(reasons)
        objects = []
        for chunk in chunks:
            item, faults = self._read_object(chunk)
            objects.append(item)
            report.num_objects += 1
            report.num_complete += not faults
            report.reasons.update(faults)
        return Scene(tuple(objects)), report

    @cached_property
    def word_ids(self) -> dict[str, list[int]]:
        """Ids of every word of the schema, with the leading blank that the sequence has."""
        words = (word for fld in self.schema.word_fields for word in fld.words)
        return {word: self.tokenizer.encode(f" {word}") for word in words}

    @cached_property
    def _number_ids(self) -> dict[float, int]:
        """Ids of every value of the schema's grids."""
        axes = (axis for fld in self.schema.number_fields for axis in fld.axes)
        values = {value for axis in axes for value in axis.grid}
        return {value: self.vocabulary.number_id(self._number(value)) for value in values}

    @cached_property
    def _field_ids(self) -> list[int]:
        """Ids of the markers of the schema's fields."""
        return [self._id(fld.marker) for fld in self.schema.fields]

    def _id(self, marker: str) -> int:
        return self.vocabulary.marker_id(marker)

    def _number(self, value: float) -> str:
        return self.schema.number_string(value)

    def _text(self, value: Value) -> str:
        return f" {value}" if isinstance(value, str) else " ".join(map(self._number, value))

    def _values(self, item: SceneObject, where: str, index: int) -> list[tuple[Field, Value]]:
        """Each field of object ``index`` of ``where`` with its checked word or snapped numbers."""
        try:
            return [(fld, _checked(fld, item)) for fld in self.schema.fields]
        except InputError as error:
            raise InputError(f"{where}: object {index}: {error}") from None

    def _cut_scene(self, ids: Sequence[int]) -> tuple[Sequence[int], Counter[str]]:
        """``ids`` up to the first SCENE-END, and what is wrong with the scene's brackets."""
        start, end = self.vocabulary.brackets("three_d")
        scene = ids[: ids.index(end) + 1] if end in ids else ids
        reasons = Counter(
            {
                "no [SCENE-START]": int(start not in scene),
                "[SCENE-START] not at the beginning": scene[1:].count(start),
                "no [SCENE-END]": int(end not in scene),
                "token after [SCENE-END]": len(ids) - len(scene),
            }
        )
        return scene, +reasons

    def _split_objects(
        self, ids: Sequence[int], values: Iterable[float]
    ) -> tuple[list[list[_Token]], Counter[str]]:
        """The tokens of each object without its brackets, and what is wrong around them."""
        scene, reasons = self._cut_scene(ids)
        opening, closing = self._id(OBJECT_START), self._id(OBJECT_END)
        brackets = (opening, closing, *self.vocabulary.brackets("three_d"))
        chunks: list[list[_Token]] = []
        inside = False
        for token, value in zip(scene, values, strict=False):
            if token in brackets:
                if inside and token != closing:
                    reasons["object without [OBJECT-END]"] += 1
                elif token == closing and not inside:
                    reasons["[OBJECT-END] without [OBJECT-START]"] += 1
                inside = token == opening
                if inside:
                    chunks.append([])
            elif inside:
                chunks[-1].append(_Token(token, value))
            else:
                reasons["token outside objects"] += 1
        if inside:
            reasons["object without [OBJECT-END]"] += 1
        return chunks, reasons

    def _read_object(self, tokens: list[_Token]) -> tuple[SceneObject, list[str]]:
        known = {self._id(f.marker): f for f in self.schema.fields}
        payloads: dict[int, list[_Token]] = {}
        faults = []
        current: list[_Token] | None = None
        for token in tokens:
            if token.id in known and token.id in payloads:
                faults.append(f"{known[token.id].marker} repeated")
                current = []
            elif token.id in known:
                current = payloads[token.id] = []
            elif current is None:
                faults.append("token before the first field")
            else:
                current.append(token)
        words: dict[str, str] = {}
        numbers: dict[str, tuple[float, ...]] = {}
        for marker, fld in known.items():
            if marker not in payloads:
                faults.append(f"{fld.marker} missing")
                continue
            value, fault = self._read_field(fld, payloads[marker])
            if fault:
                faults.append(f"{fld.marker} {fault}")
            elif isinstance(value, str):
                words[fld.key] = value
            else:
                numbers[fld.key] = value
        return self.schema.make(words, numbers), faults

    def _read_field(self, fld: Field, tokens: list[_Token]) -> tuple[Value, str | None]:
        """The field's value, or what keeps it from being read."""
        ids = [token.id for token in tokens]
        if isinstance(fld, NumberField):
            if len(ids) != len(fld.axes):
                return (), f"has not {len(fld.axes)} numbers"
            if not all(token in self.vocabulary.number for token in ids):
                return (), "has a token that is no number"
            return tuple(map(self._read_number, fld.axes, tokens)), None
        if not all(token in self.vocabulary.text for token in ids):
            return (), "has a token that is no text"
        word = self.tokenizer.decode(ids).strip()
        return (word, None) if word in fld.words else ((), "has an unknown word")

    def _read_number(self, axis: Axis, token: _Token) -> float:
        if axis.period or not math.isfinite(token.value):
            return float(self.vocabulary.token_string(token.id) or "nan")
        return round(token.value, self.schema.decimals + _MORE_DECIMALS) + 0.0


def _checked(fld: Field, item: SceneObject) -> Value:
    """The field's word, or its numbers snapped to the grid."""
    value = (item.numbers if isinstance(fld, NumberField) else item.words).get(fld.key)
    if value is None:
        raise InputError(f"'{fld.key}' is missing. Add it, or choose another schema.")
    if isinstance(fld, NumberField) and not isinstance(value, str) and len(value) == len(fld.axes):
        try:
            return tuple([axis.snap(number) for axis, number in zip(fld.axes, value, strict=True)])
        except InputError as error:
            raise InputError(f"'{fld.key}': {error}") from None
    if fault := next(fld.faults(value), None):
        raise InputError(f"'{fld.key}': {fault}")
    return value
