"""Functional programs over scenes, as CLEVR's question files hold them, and what they answer.

A program is a list of steps; each applies a function to the outputs of earlier steps, and the last
one gives the answer (Johnson et al. 2017, https://arxiv.org/abs/1612.06890, section 3).
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from typing import Any

from kyvo.common.errors import InputError
from kyvo.world.clevr.descriptions import Objects, find_alike, having, set_of
from kyvo.world.clevr.scene import ATTRIBUTES, RELATIONS, ClevrScene


@dataclass(frozen=True)
class Facts:
    """What programs may know of a scene; objects are their indices.

    Attributes:
        everything: all objects.
        words: ``[attribute][i]`` is the word for object i.
        having: ``[attribute, word]`` are the objects with that word.
        related: ``[relation][i]`` are the objects in that direction of object i.
    """

    everything: Objects
    words: Mapping[str, tuple[str, ...]]
    having: Mapping[tuple[str, str], Objects]
    related: Mapping[str, tuple[Objects, ...]]

    @property
    def num_objects(self) -> int:
        """How many objects the scene has."""
        return self.everything.bit_count()

    def described(self, words: Mapping[str, str]) -> Objects:
        """Return the objects that have every one of the words, given by attribute."""
        having = self.having
        return reduce(operator.and_, (having[pair] for pair in words.items()), self.everything)

    @cached_property
    def alike(self) -> tuple[tuple[Objects, ...], ...]:
        """``[i][k]`` are the objects with the words of object i for the attributes FORMS[k]."""
        return find_alike(self.words)


def facts_of(scene: ClevrScene) -> Facts:
    """Return what programs may know of a scene.

    Raises:
        InputError: its relationships are missing.
    """
    relationships = scene.relationships
    if relationships is None:
        raise InputError(
            f"scene {scene.image_filename!r}: the key 'relationships' is missing. Expected CLEVR's "
            f"JSON: objects, and relationships with {', '.join(RELATIONS)}."
        )
    words = {name: tuple(item.words[name] for item in scene.objects) for name in ATTRIBUTES}
    related = {name: tuple(map(set_of, relationships[name])) for name in RELATIONS}
    found = {(name, word): 0 for name, known in ATTRIBUTES.items() for word in known}
    for name in ATTRIBUTES:
        found |= {(name, word): objects for word, objects in having(words[name]).items()}
    return Facts((1 << len(scene.objects)) - 1, words, found, related)


@dataclass(frozen=True)
class Step:
    """One step of a program.

    Attributes:
        function: a key of ``FUNCTIONS``.
        inputs: the indices of the steps whose outputs it takes.
        value: the word or relation that it needs; empty for most functions.
    """

    function: str
    inputs: tuple[int, ...] = ()
    value: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the step as CLEVR's question files write it."""
        return {
            "function": self.function,
            "inputs": list(self.inputs),
            "value_inputs": [self.value] if self.value else [],
        }


Program = tuple[Step, ...]


class NoAnswerError(Exception):
    """A program says "the cube" of a scene that has none, or several."""


@dataclass(frozen=True)
class Function:
    """What a step may do.

    Attributes:
        takes: the kinds of its inputs: objects, object, number, truth or an attribute's name.
        gives: the kind of its output.
        values: the values that it may be given; none if it takes no value.
        call: the function itself, of the facts, the value and the inputs.
    """

    takes: tuple[str, ...]
    gives: str
    values: tuple[str, ...]
    call: Callable[..., Any]


def _the_only(facts: Facts, value: str, objects: Objects) -> int:
    if objects.bit_count() != 1:
        raise NoAnswerError(f"{objects.bit_count()} objects where one was expected")
    return objects.bit_length() - 1


def _filter(attribute: str, facts: Facts, value: str, objects: Objects) -> Objects:
    return objects & facts.having[attribute, value]


def _same(attribute: str, facts: Facts, value: str, item: int) -> Objects:
    return facts.having[attribute, facts.words[attribute][item]] & ~(1 << item)


def _query(attribute: str, facts: Facts, value: str, item: int) -> str:
    return facts.words[attribute][item]


def _attribute_functions(name: str) -> dict[str, Function]:
    """Return the four functions that each attribute has."""
    return {
        f"filter_{name}": Function(
            ("objects",), "objects", ATTRIBUTES[name], partial(_filter, name)
        ),
        f"same_{name}": Function(("object",), "objects", (), partial(_same, name)),
        f"query_{name}": Function(("object",), name, (), partial(_query, name)),
        f"equal_{name}": Function((name, name), "truth", (), lambda facts, _, a, b: a == b),
    }


_NUMBERS = ("number", "number")
_SETS = ("objects", "objects")

FUNCTIONS: dict[str, Function] = {
    "scene": Function((), "objects", (), lambda facts, _: facts.everything),
    "unique": Function(("objects",), "object", (), _the_only),
    "relate": Function(
        ("object",), "objects", RELATIONS, lambda facts, name, item: facts.related[name][item]
    ),
    "union": Function(_SETS, "objects", (), lambda facts, _, a, b: a | b),
    "intersect": Function(_SETS, "objects", (), lambda facts, _, a, b: a & b),
    "count": Function(("objects",), "number", (), lambda facts, _, objects: objects.bit_count()),
    "exist": Function(("objects",), "truth", (), lambda facts, _, objects: bool(objects)),
    "equal_integer": Function(_NUMBERS, "truth", (), lambda facts, _, a, b: a == b),
    "greater_than": Function(_NUMBERS, "truth", (), lambda facts, _, a, b: a > b),
    "less_than": Function(_NUMBERS, "truth", (), lambda facts, _, a, b: a < b),
}
"""CLEVR's functions by name."""
for _name in ATTRIBUTES:
    FUNCTIONS |= _attribute_functions(_name)


def execute(program: Sequence[Step], scene: ClevrScene) -> str | None:
    """Answer a program on a scene.

    Returns:
        "yes", "no", a number in digits or an attribute's word; None if the program has no valid
        answer, because a ``unique`` found no object or several.

    Raises:
        InputError: the scene's relationships are missing.
    """
    facts = facts_of(scene)
    outputs: list[Any] = []
    try:
        for step in program:
            outputs.append(apply(step, outputs, facts))
    except NoAnswerError:
        return None
    return as_text(outputs[-1])


def apply(step: Step, outputs: Sequence[Any], facts: Facts) -> Any:
    """Return the output of one step, given those of the steps before it.

    Raises:
        NoAnswerError: the step is a ``unique`` of no object or several.
    """
    inputs = (outputs[index] for index in step.inputs)
    return FUNCTIONS[step.function].call(facts, step.value, *inputs)


def as_text(output: bool | int | str) -> str:
    """Return the output of a last step in the words of an answer."""
    if isinstance(output, bool):
        return "yes" if output else "no"
    return str(output)


def read_program(rows: Sequence[Mapping[str, Any]]) -> Program:
    """Read a program as CLEVR's question files hold it.

    Args:
        rows: ``{"function": name, "inputs": [indices of steps], "value_inputs": [words]}`` each.

    Raises:
        InputError: a key of a step is missing, a function is unknown, its inputs do not fit, or the
            last step gives no answer.
    """
    steps: list[Step] = []
    for index, row in enumerate(rows):
        if missing := {"function", "inputs", "value_inputs"} - row.keys():
            raise InputError(f"program: step {index}: {', '.join(sorted(missing))} is missing.")
        step = Step(row["function"], tuple(row["inputs"]), " ".join(row["value_inputs"]))
        _check(step, steps)
        steps.append(step)
    if not steps or FUNCTIONS[steps[-1].function].gives in ("objects", "object"):
        raise InputError("program: the last step must give a number, a word, or yes or no.")
    return tuple(steps)


def _check(step: Step, before: Sequence[Step]) -> None:
    """Raise an InputError unless ``step`` may follow the steps ``before`` it."""
    place = f"program: step {len(before)}: {step.function!r}"
    function = FUNCTIONS.get(step.function)
    if function is None:
        raise InputError(f"{place} is no function. Expected one of {', '.join(FUNCTIONS)}.")
    if not all(isinstance(i, int) and 0 <= i < len(before) for i in step.inputs):
        raise InputError(f"{place} takes the steps {[*step.inputs]}; expected earlier ones.")
    kinds = tuple(FUNCTIONS[before[index].function].gives for index in step.inputs)
    if kinds != function.takes:
        raise InputError(f"{place} takes {[*kinds]}; expected {[*function.takes]}.")
    if step.value not in (function.values or ("",)):
        expected = ", ".join(function.values) or "none"
        raise InputError(f"{place} has the value {step.value!r}; expected {expected}.")
