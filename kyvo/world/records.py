"""What is said about scenes, read back from its files and held against the scenes.

SPLIT/instructions and SPLIT/questions hold one JSON file an item (see ``kyvo.world.writer``).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kyvo.common.config import build_config
from kyvo.common.errors import InputError, Problems
from kyvo.world.clevr.scene import ATTRIBUTES, RELATIONS, ClevrObject, ClevrScene, offset
from kyvo.world.instructions import KINDS
from kyvo.world.instructions.wordings import CORNERS, HEADINGS, PLACES
from kyvo.world.questions import FAMILIES, Program, execute, read_program
from kyvo.world.questions.templates import TEMPLATES
from kyvo.world.questions.wording import RELATION_PHRASES, SYNONYMS

_WORDS = {word for words in ATTRIBUTES.values() for word in words}


@dataclass(frozen=True)
class _EditForm:
    """Which of its optional keys a kind of edit uses, and which scenes have the edited object."""

    keys: frozenset[str]
    in_source: bool = True
    in_target: bool = True


_ATTRIBUTE, _RELATION = frozenset({"attribute", "value"}), frozenset({"relation", "anchor"})
_EDIT_FORMS = {
    "appearance_no_relation": _EditForm(_ATTRIBUTE),
    "appearance_with_relation": _EditForm(_ATTRIBUTE | _RELATION),
    "insertion_with_relation": _EditForm(_RELATION, in_source=False),
    "moving_with_relation": _EditForm(frozenset({"directions"})),
    "removal_with_relation": _EditForm(_RELATION, in_target=False),
}


@dataclass(frozen=True)
class EditRecord:
    """The file of an instruction: what ``Edit.to_json`` gives."""

    kind: str
    instruction: str
    index: int
    attribute: str | None
    value: str | None
    directions: tuple[str, ...]
    relation: str | None
    anchor: int | None

    def __post_init__(self) -> None:
        problems = Problems()
        for name, word, known in (
            ("kind", self.kind, KINDS),
            ("attribute", self.attribute, (None, *ATTRIBUTES)),
            ("value", self.value, (None, *ATTRIBUTES.get(self.attribute or "", ()))),
            ("relation", self.relation, (None, *RELATIONS)),
            *(("directions", word, RELATIONS) for word in self.directions),
        ):
            if word not in known:
                problems.add(f"{name}: {word!r}, expected one of {', '.join(map(str, known))}")
        problems.raise_any()
        names = ("attribute", "value", "directions", "relation", "anchor")
        used = {name for name in names if getattr(self, name) not in (None, ())}
        if used != self._form.keys:
            found, expected = (", ".join(sorted(keys)) for keys in (used, self._form.keys))
            raise InputError(f"{self.kind}: has {found or 'nothing'}, expected {expected}")

    @property
    def group(self) -> str:
        """What such records are counted by."""
        return self.kind

    @property
    def _form(self) -> _EditForm:
        return _EDIT_FORMS[self.kind]

    def faults(self, source: ClevrScene, target: ClevrScene) -> Iterator[str]:
        """What the scenes, or the words, do otherwise than the record says."""
        before, after = source.objects, target.objects
        if faults := [*self._index_faults(before, after)]:
            yield from faults
            return
        if source.viewpoints != target.viewpoints:
            yield "camera or lights of source and target differ"
        old = before[self.index] if self._form.in_source else None
        new = after[self.index] if self._form.in_target else None
        rest_before = before if old is None else _without(before, self.index)
        rest_after = after if new is None else _without(after, self.index)
        if [*map(_essence, rest_before)] != [*map(_essence, rest_after)]:
            yield f"source and target differ in more than objects[{self.index}]"
        elif old and new:
            yield from self._change_faults(old, new)
        yield from self._relation_faults(target if old is None else source)
        anchor = None if self.anchor is None else before[self.anchor]
        yield from self._word_faults([item for item in (old, new, anchor) if item])
        if old is None and new:
            yield from self._unsaid([*new.words.values()])

    def _index_faults(
        self, before: Sequence[ClevrObject], after: Sequence[ClevrObject]
    ) -> Iterator[str]:
        """What keeps the record's indices from being those of objects."""
        expected = len(before) + self._form.in_target - self._form.in_source
        if len(after) != expected:
            yield f"the target has {len(after)} objects, expected {expected}: {self.kind}"
        objects = before if self._form.in_source else after
        for name, index, count in (
            ("index", self.index, len(objects)),
            ("anchor", self.anchor, len(before)),
        ):
            if index is not None and not 0 <= index < count:
                yield f"{name}: {index}, but there are {count} objects"

    def _change_faults(self, old: ClevrObject, new: ClevrObject) -> Iterator[str]:
        one, other, place = _essence(old), _essence(new), f"objects[{self.index}]"
        changed = {key for key, value in one.items() if other[key] != value}
        expected = self.attribute or "position"
        if changed != {expected}:
            yield f"{place} changes in {', '.join(sorted(changed)) or 'nothing'}, not in {expected}"
        elif self.attribute and new.words[self.attribute] != self.value:
            yield f"{place} becomes {new.words[self.attribute]!r} in the target, not {self.value!r}"
        for name in self.directions:
            if offset(old, new, name) <= 0:
                yield f"{place} does not move in the direction {name!r}"

    def _relation_faults(self, scene: ClevrScene) -> Iterator[str]:
        if self.relation is None or self.anchor is None or scene.relationships is None:
            return
        if self.index not in scene.relationships[self.relation][self.anchor]:
            found = f"objects[{self.index}] is not {self.relation!r}"
            yield f"{found} as seen from objects[{self.anchor}]"

    def _word_faults(self, named: Sequence[ClevrObject]) -> Iterator[str]:
        """Words of no object that the instruction names, and what it should say but does not."""
        said = set(re.findall("[a-z]+", self.instruction.lower())) & _WORDS
        for word in sorted(said - {word for item in named for word in item.words.values()}):
            yield f"instruction: {word!r} is no word of the objects that it names"
        yield from self._unsaid([self.value] if self.value else [])
        if self.relation and not _says(self.instruction, PLACES[self.relation]):
            yield f"instruction: does not say the relation {self.relation!r}"
        for name in self.directions:
            if not _says(self.instruction, (*HEADINGS[name], CORNERS.get(name, name))):
                yield f"instruction: does not say the direction {name!r}"

    def _unsaid(self, words: Sequence[str]) -> Iterator[str]:
        for word in words:
            if not _says(self.instruction, (word,)):
                yield f"instruction: does not say {word!r}"


@dataclass(frozen=True)
class StepRecord:
    """A step of a program, as CLEVR's question files write it."""

    function: str
    inputs: tuple[int, ...]
    value_inputs: tuple[str, ...]


@dataclass(frozen=True)
class QuestionRecord:
    """The file of a question."""

    question: str
    answer: str
    family: str
    template: str
    program: tuple[StepRecord, ...]

    def __post_init__(self) -> None:
        problems = Problems()
        templates = [template.name for template in TEMPLATES if template.family == self.family]
        if not templates:
            problems.add(f"family: {self.family!r}, expected one of {', '.join(FAMILIES)}")
        elif self.template not in templates:
            problems.add(f"template: {self.template!r}, expected one of {', '.join(templates)}")
        problems.attempt(self._read_program)
        problems.raise_any()

    @property
    def group(self) -> str:
        """What such records are counted by."""
        return self.family

    def _read_program(self) -> Program:
        return read_program([asdict(step) for step in self.program])

    def faults(self, scene: ClevrScene) -> Iterator[str]:
        """Where the answer is not the program's, and what the words leave out."""
        program = self._read_program()
        answer = execute(program, scene)
        if answer is None:
            yield "program: no answer: where it expects one object the scene has none, or several"
        elif answer != self.answer:
            yield f"answer: {self.answer!r}, but the program gives {answer!r}"
        for value in dict.fromkeys(step.value for step in program if step.value):
            if not _says(self.question, RELATION_PHRASES.get(value, SYNONYMS.get(value, (value,)))):
                yield f"question: does not say {value!r}, which its program asks for"


Record = EditRecord | QuestionRecord
RECORDS: Mapping[str, type[Record]] = {"instructions": EditRecord, "questions": QuestionRecord}
"""By the folder that holds them."""


def read_record(folder: str, value: Mapping[str, Any], place: str) -> Record:
    """Read a record of a ``folder`` from JSON; it may still not fit its scenes.

    Raises:
        InputError: listing missing, unknown and wrong-typed keys and unknown words.
    """
    return build_config(RECORDS[folder], value, place)


def check_record(record: Record, scenes: Sequence[Mapping[str, Any]], place: str) -> None:
    """Hold a record against its scenes: source and target, or the one that is asked about.

    Args:
        record: what is said.
        scenes: the JSON of the scenes.
        place: names the record in errors.

    Raises:
        InputError: listing what does not fit.
    """
    problems = Problems()
    read = [scene for value in scenes if (scene := problems.attempt(_read_scene, value))]
    if not problems.messages:
        for fault in record.faults(*read):
            problems.add(fault)
    problems.raise_any(place)


def _read_scene(value: Mapping[str, Any]) -> ClevrScene:
    where = f"scene {value.get('image_filename')}"
    scene = ClevrScene.from_json(value, where)
    if scene.relationships is None:
        raise InputError(
            f"{where}: relationships: missing. Expected lists for {', '.join(RELATIONS)}. "
            "Make the scene again."
        )
    return scene


def _essence(item: ClevrObject) -> dict[str, object]:
    """The object without what follows from the rest: its height, its pixel in the image."""
    return {**item.words, "position": item.position[:2], "rotation": item.rotation}


def _without(objects: Sequence[ClevrObject], index: int) -> list[ClevrObject]:
    return [*objects[:index], *objects[index + 1 :]]


def _says(text: str, phrases: Sequence[str]) -> bool:
    return any(phrase in text.lower() for phrase in phrases)
