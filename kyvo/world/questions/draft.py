"""Filling a template for a scene: which objects a question names, and in which words.

A template grows into a program step by step, each executed at once, so that every choice is made
among those that keep the question valid.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

from kyvo.world.clevr.scene import ATTRIBUTES, RELATIONS
from kyvo.world.questions.programs import (
    FUNCTIONS,
    Facts,
    Objects,
    Program,
    Step,
    apply,
    as_text,
)
from kyvo.world.questions.template import RELATION_SLOTS, SCENE, Call, Described, Part, Template

Words = Mapping[str, str]
"""A description: some attributes with their words."""
Form = tuple[str, ...]
"""The attributes that a description says."""

FORMS: tuple[Form, ...] = tuple(
    form
    for length in range(len(ATTRIBUTES) + 1)
    for form in itertools.combinations(ATTRIBUTES, length)
)
LENGTH_WEIGHTS = (4, 4, 2, 1, 1)
"""How often a group's description says so many attributes, for each choice of them."""


class DeadEnd(Exception):
    """These choices lead to no valid question."""


@dataclass(frozen=True)
class Shape:
    """What of a question is chosen before its words, so that no answer favours some shapes.

    Attributes:
        slots: attributes by x and y, relations by r, s and t.
        forms: what the description of each group says.
    """

    slots: Mapping[str, str]
    forms: Mapping[str, Form]


def draw_shape(template: Template, asked: str, random: Random) -> Shape:
    """Draw relations, attributes and forms; x is ``asked`` unless that is empty."""
    x = asked or random.choice(list(ATTRIBUTES))
    y = random.choice([name for name in ATTRIBUTES if name != x])
    slots = {"x": x, "y": y} | {slot: random.choice(RELATIONS) for slot in RELATION_SLOTS}
    return Shape(slots, {part.slot: _draw_form(part, slots, random) for part in template.groups})


def _draw_form(part: Described, slots: Mapping[str, str], random: Random) -> Form:
    # "Things" alone would be the whole scene.
    forms = [form for form in _open_forms(part, slots) if form or part.source is not SCENE]
    return random.choices(forms, [LENGTH_WEIGHTS[len(form)] for form in forms])[0]


def _open_forms(part: Described, slots: Mapping[str, str]) -> tuple[Form, ...]:
    """The forms that give away none of the part's hidden attributes."""
    return _forms_without(tuple(slots[slot] for slot in part.hidden))


@cache
def _forms_without(hidden: tuple[str, ...]) -> tuple[Form, ...]:
    return tuple(form for form in FORMS if not set(form) & set(hidden))


@dataclass(frozen=True)
class _Found:
    """A step that was added.

    Attributes:
        step: its index in the program.
        lesser: where it gives objects, those that it would give if one relation, or one side of an
            "and" or "or", were left out of the question.
    """

    step: int
    lesser: tuple[Objects, ...] = ()


class Draft:
    """A template filled for one scene.

    Attributes:
        template: what was filled.
        shape: what was chosen before the words.
        words: the descriptions, by slot.
    """

    def __init__(
        self, template: Template, shape: Shape, wanted: str, facts: Facts, random: Random
    ) -> None:
        """Fill it such that the answer is ``wanted``, if the last choice alone decides that.

        Raises:
            DeadEnd: the choices that ``random`` made lead nowhere; try again.
        """
        self.template, self.shape = template, shape
        self._wanted, self._facts, self._random = wanted, facts, random
        self._steps: list[Step] = []
        self._outputs: list[Any] = []
        self._named: frozenset[int] = frozenset()
        self.words: dict[str, Words] = {}
        self._grow(template.program)
        if template.apart:
            first, second = (self.words[slot].items() for slot in template.apart)
            _refuse(first <= second or second <= first)

    @property
    def program(self) -> Program:
        """The steps."""
        return tuple(self._steps)

    @property
    def answer(self) -> str:
        """What the program answers."""
        return as_text(self._outputs[-1])

    def _add(self, function: str, indices: tuple[int, ...] = (), value: str = "") -> int:
        step = Step(function, indices, value)
        self._outputs.append(apply(step, self._outputs, self._facts))
        self._steps.append(step)
        return len(self._steps) - 1

    def _grow(self, part: Part) -> _Found:
        if isinstance(part, Described):
            return self._describe(part)
        inputs = [self._grow(child) for child in part.inputs]
        indices = tuple(found.step for found in inputs)
        outputs = [self._outputs[index] for index in indices]
        for objects, found in zip(outputs, inputs, strict=True):
            _refuse(part.function in ("count", "exist", "unique") and objects in found.lesser)
        # Two empty groups compare alike in every scene: such a question asks nothing.
        _refuse(
            outputs == [0, 0] and part.function in ("equal_integer", "greater_than", "less_than")
        )
        slots = self.shape.slots
        step = self._add(part.function.format(**slots), indices, part.value.format(**slots))
        return _Found(step, self._lesser(part, outputs, inputs))

    def _lesser(self, part: Call, outputs: list[Any], inputs: list[_Found]) -> tuple[Objects, ...]:
        """The objects that ``part`` would give if a piece of the question were left out."""
        if part.function in ("relate", "same_{y}"):
            return (self._facts.everything - {outputs[0]},)
        if part.function not in ("union", "intersect"):
            return ()
        is_union = part.function == "union"
        join = frozenset.union if is_union else frozenset.intersection
        first, second = outputs
        # Without red cubes, "red cubes or balls" are the balls: that is no reason not to ask.
        sides = (first, second) if is_union and first and second else ()
        return (
            *sides,
            *(join(less, second) for less in inputs[0].lesser),
            *(join(first, less) for less in inputs[1].lesser),
        )

    def _describe(self, part: Described) -> _Found:
        source = self._grow(part.source)
        candidates = self._outputs[source.step]
        choose = self._words_for_one if part.single else self._words_for_some
        words = self.words[part.slot] = choose(part, candidates, source.lesser)
        step = source.step
        for attribute, word in words.items():
            step = self._add(f"filter_{attribute}", (step,), word)
        described = self._facts.described(words)
        return _Found(step, tuple(described & less for less in source.lesser))

    def _words_for_one(
        self, part: Described, candidates: Objects, lesser: tuple[Objects, ...]
    ) -> Words:
        """Describe one of the candidates, not named yet, such that every relation is needed."""
        targets = candidates - self._named
        if part is self.template.last:
            targets &= self._facts.having[self.shape.slots["x"], self._wanted]
        _refuse(not targets)
        target = self._random.choice(sorted(targets))
        forms = _open_forms(part, self.shape.slots)
        for form in sorted(forms, key=lambda _: self._random.random()):
            words = self._words_of(target, form)
            described = self._facts.described(words)
            fits = described & candidates
            if len(fits) == 1 and all(described & less != fits for less in lesser):
                self._named |= fits
                return words
        raise DeadEnd

    def _words_for_some(
        self, part: Described, candidates: Objects, lesser: tuple[Objects, ...]
    ) -> Words:
        """Describe a group: as some object is, or by words that need not occur together."""
        form = self.shape.forms[part.slot]
        options = [self._words_of(item, form) for item in sorted(self._facts.everything)]
        if not lesser:
            options += [self._any_words(form) for _ in options]
        good = [words for words in options if self._may_say(words, part, candidates, lesser)]
        _refuse(not good)
        return self._random.choice(good)

    def _may_say(
        self, words: Words, part: Described, candidates: Objects, lesser: tuple[Objects, ...]
    ) -> bool:
        """Whether every relation is needed and, if that is decided here, the answer is right."""
        described = self._facts.described(words)
        fits = described & candidates
        if any(described & less == fits for less in lesser):
            return False
        answer = FUNCTIONS[self.template.program.function].call
        return part is not self.template.last or (
            as_text(answer(self._facts, "", fits)) == self._wanted
        )

    def _any_words(self, form: Form) -> Words:
        return {attribute: self._random.choice(ATTRIBUTES[attribute]) for attribute in form}

    def _words_of(self, item: int, form: Form) -> Words:
        return {attribute: self._facts.words[attribute][item] for attribute in form}


def _refuse(is_bad: bool) -> None:
    if is_bad:
        raise DeadEnd
