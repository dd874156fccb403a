"""What a question template is: wordings and a program, both with slots.

Slots are single letters: a, b, c, d are descriptions of objects, r, s, t relations, x is the
attribute that is asked for or compared, y one that objects share.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from kyvo.world.clevr.scene import ATTRIBUTES

RELATION_SLOTS = ("r", "s", "t")


@dataclass(frozen=True)
class Call:
    """A function of a program; its name and value may hold slots, as in ``query_{x}``."""

    function: str
    inputs: tuple["Part", ...] = ()
    value: str = ""


@dataclass(frozen=True)
class Described:
    """Those of the source's objects that a description fits: a chain of filters.

    Attributes:
        slot: the description's name.
        source: the objects to choose from.
        single: whether it must fit exactly one of them.
        hidden: the attribute slots that the description must not give away.
    """

    slot: str
    source: "Part"
    single: bool
    hidden: str


Part = Call | Described
SCENE = Call("scene")


def some(slot: str, source: Part = SCENE, hidden: str = "") -> Described:
    """The objects of ``source``, none or more, that a description fits."""
    return Described(slot, source, False, hidden)


def the(slot: str, source: Part = SCENE, hidden: str = "") -> Call:
    """The one object of ``source`` that a description fits."""
    return Call("unique", (Described(slot, source, True, hidden),))


def relate(slot: str, one: Part) -> Call:
    """The objects in some direction of one."""
    return Call("relate", (one,), f"{{{slot}}}")


def same(one: Part) -> Call:
    """The other objects that share attribute y with one."""
    return Call("same_{y}", (one,))


def both(first: Part, second: Part) -> Call:
    """The objects that two sets have in common."""
    return Call("intersect", (first, second))


def either(first: Part, second: Part) -> Call:
    """The objects of two sets together."""
    return Call("union", (first, second))


def count(objects: Part) -> Call:
    """How many they are."""
    return Call("count", (objects,))


def exist(objects: Part) -> Call:
    """Whether there are any."""
    return Call("exist", (objects,))


def query(one: Part) -> Call:
    """The word for attribute x of one."""
    return Call("query_{x}", (one,))


class Kind(NamedTuple):
    """What a question asks for.

    Attributes:
        answer_type: truth, number, or word.
        attribute: the x that it asks for or compares, empty if it has none.
    """

    answer_type: str
    attribute: str


@dataclass(frozen=True)
class Template:
    """A kind of question.

    Attributes:
        family: what answering takes; several templates share one.
        name: unique among the templates.
        program: the tree of functions.
        wordings: ways to ask, for ``str.format`` with the slots.
        special: further wordings for one value of x.
        apart: two descriptions neither of which may imply the other, as "cube" does "red cube".
    """

    family: str
    name: str
    program: Call
    wordings: tuple[str, ...]
    special: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    apart: tuple[str, ...] = ()

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """What it may ask for."""
        function = self.program.function
        answer_type = {"count": "number", "query_{x}": "word"}.get(function, "truth")
        attributes = ATTRIBUTES if "{x}" in function else ("",)
        return tuple(Kind(answer_type, attribute) for attribute in attributes)

    @cached_property
    def last(self) -> Described | None:
        """The description that the answer is read from, if it is a single one."""
        part: Part = self.program
        while isinstance(part, Call) and len(part.inputs) == 1:
            part = part.inputs[0]
        return part if isinstance(part, Described) else None

    @cached_property
    def descriptions(self) -> tuple[Described, ...]:
        """All descriptions, inner ones first."""
        return tuple(_descriptions(self.program))

    @cached_property
    def texts(self) -> frozenset[str]:
        """The functions and values of the program, in which slots may be."""
        return frozenset(
            text for call in _calls(self.program) for text in (call.function, call.value)
        )

    @cached_property
    def groups(self) -> tuple[Described, ...]:
        """The descriptions that may fit any number of objects."""
        return tuple(part for part in self.descriptions if not part.single)

    @cached_property
    def num_named(self) -> int:
        """How many different objects the question names."""
        return sum(part.single for part in self.descriptions)

    def wordings_for(self, attribute: str) -> tuple[str, ...]:
        """The wordings that fit if x is ``attribute``."""
        return self.wordings + self.special.get(attribute, ())


def _descriptions(part: Part) -> list[Described]:
    """The descriptions in a tree, inner ones first."""
    if isinstance(part, Described):
        return [*_descriptions(part.source), part]
    return [found for child in part.inputs for found in _descriptions(child)]


def _calls(part: Part) -> list[Call]:
    """The functions in a tree, inner ones first."""
    if isinstance(part, Described):
        return _calls(part.source)
    return [*(found for child in part.inputs for found in _calls(child)), part]
