"""What is said about scenes, read back from its files and held against the scenes.

SPLIT/instructions and SPLIT/questions hold one JSON file an item (see ``kyvo.world.writer``).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from kyvo.common.config import build_config
from kyvo.common.errors import InputError, Problems
from kyvo.world.camera import DIRECTIONS
from kyvo.world.clevr.sampler import RELATIONS
from kyvo.world.instructions import KINDS
from kyvo.world.instructions.wordings import CORNERS, HEADINGS, PLACES
from kyvo.world.questions import FAMILIES, Program, execute, read_program
from kyvo.world.questions.programs import ATTRIBUTES
from kyvo.world.questions.templates import TEMPLATES
from kyvo.world.questions.wording import RELATION_PHRASES, SYNONYMS
from kyvo.world.render.scene_batch import read_clevr_scene

Scene = Mapping[str, Any]
Object = Mapping[str, Any]

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
    """The file of an instruction: the fields of an ``Edit`` without its scenes."""

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

    def faults(self, source: Scene, target: Scene) -> Iterator[str]:
        """What the scenes, or the words, do otherwise than the record says."""
        before, after = source["objects"], target["objects"]
        if faults := [*self._place_faults(before, after)]:
            yield from faults
            return
        if source.get("world") != target.get("world"):
            yield "camera or lamps of source and target differ"
        old = before[self.index] if self._form.in_source else None
        new = after[self.index] if self._form.in_target else None
        rest_before = before if old is None else _without(before, self.index)
        rest_after = after if new is None else _without(after, self.index)
        if [*map(_seen, rest_before)] != [*map(_seen, rest_after)]:
            yield f"source and target differ in more than objects[{self.index}]"
        elif old and new:
            yield from self._change_faults(old, new)
        yield from self._relation_faults(target if old is None else source)
        anchor = None if self.anchor is None else before[self.anchor]
        yield from self._word_faults([item for item in (old, new, anchor) if item])
        if old is None and new:
            yield from self._unsaid([new[name] for name in ATTRIBUTES])

    def _place_faults(self, before: Sequence[Object], after: Sequence[Object]) -> Iterator[str]:
        """What keeps the record's places from being those of objects."""
        expected = len(before) + self._form.in_target - self._form.in_source
        if len(after) != expected:
            yield f"the target has {len(after)} objects, expected {expected}: {self.kind}"
        objects = before if self._form.in_source else after
        for name, place, count in (
            ("index", self.index, len(objects)),
            ("anchor", self.anchor, len(before)),
        ):
            if place is not None and not 0 <= place < count:
                yield f"{name}: {place}, but there are {count} objects"

    def _change_faults(self, old: Object, new: Object) -> Iterator[str]:
        one, other, place = _seen(old), _seen(new), f"objects[{self.index}]"
        changed = {key for key in one | other if one.get(key) != other.get(key)}
        expected = self.attribute or "3d_coords"
        if changed != {expected}:
            yield f"{place} changes in {', '.join(sorted(changed)) or 'nothing'}, not in {expected}"
        elif self.attribute and new[self.attribute] != self.value:
            yield f"{place} becomes {new[self.attribute]!r} in the target, not {self.value!r}"
        for name in self.directions:
            steps = zip(old["3d_coords"], new["3d_coords"], DIRECTIONS[name], strict=True)
            if sum((there - here) * along for here, there, along in steps) <= 0:
                yield f"{place} does not move in the direction {name!r}"

    def _relation_faults(self, scene: Scene) -> Iterator[str]:
        if self.relation is None or self.anchor is None:
            return
        if self.index not in scene["relationships"][self.relation][self.anchor]:
            found = f"objects[{self.index}] does not stand {self.relation!r}"
            yield f"{found} as seen from objects[{self.anchor}]"

    def _word_faults(self, named: Sequence[Object]) -> Iterator[str]:
        """Words of no object that the instruction names, and what it should say but does not."""
        said = set(re.findall("[a-z]+", self.instruction.lower())) & _WORDS
        for word in sorted(said - {item[name] for item in named for name in ATTRIBUTES}):
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

    def faults(self, scene: Scene) -> Iterator[str]:
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


def check_record(record: Record, scenes: Sequence[dict[str, Any]], place: str) -> None:
    """Hold a record against its scenes: source and target, or the one that is asked about.

    Raises:
        InputError: listing what does not fit; ``place`` names the record.
    """
    problems = Problems()
    for scene in scenes:
        problems.attempt(_check_scene, scene)
    if not problems.messages:
        for fault in record.faults(*scenes):
            problems.add(fault)
    problems.raise_any(place)


def _check_scene(scene: dict[str, Any]) -> None:
    """Raise an InputError unless the scene has CLEVR's objects and relationships."""
    name = f"scene {scene.get('image_filename')}"
    count = len(read_clevr_scene({"objects": scene.get("objects")}, name).solids)
    relationships = scene.get("relationships")
    for relation in RELATIONS:
        lists = relationships.get(relation) if isinstance(relationships, dict) else None
        if not _are_places(lists, count):
            raise InputError(
                f"{name}: relationships: {relation}: expected a list of places below {count} for "
                f"each of the {count} objects. Make the scene again."
            )


def _are_places(lists: Any, count: int) -> bool:
    return (
        isinstance(lists, list)
        and len(lists) == count
        and all(isinstance(places, list) for places in lists)
        and all(type(j) is int and 0 <= j < count for places in lists for j in places)
    )


def _seen(item: Object) -> dict[str, Any]:
    """The object without what follows from the rest: its height, its place in the picture."""
    kept = {key: value for key, value in item.items() if key != "pixel_coords"}
    return kept | {"3d_coords": item["3d_coords"][:2]}


def _without(objects: Sequence[Object], index: int) -> list[Object]:
    return [*objects[:index], *objects[index + 1 :]]


def _says(text: str, phrases: Sequence[str]) -> bool:
    return any(phrase in text.lower() for phrase in phrases)
