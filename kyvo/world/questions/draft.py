"""Filling a template for a scene: which objects a question names, and in which words.

A template grows into a program step by step, each executed at once, so that every choice is made
among those that keep the question valid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from random import Random
from typing import Any, TypeVar

from kyvo.world.clevr.descriptions import FORMS, Form, Objects, members
from kyvo.world.clevr.scene import ATTRIBUTES, RELATIONS
from kyvo.world.questions.programs import (
    FUNCTIONS,
    Facts,
    Program,
    Step,
    as_text,
)
from kyvo.world.questions.template import RELATION_SLOTS, SCENE, Call, Described, Part, Template

Item = TypeVar("Item")
Words = Mapping[str, str]
"""A description: some attributes with their words."""
_Said = tuple[int | Words, int]
"""Words, or an object whose words are said; and an index into ``FORMS``."""

LENGTH_WEIGHTS = (4, 4, 2, 1, 1)
"""How often a group's description says so many attributes, for each choice of them."""

_ENDS = frozenset({"count", "exist", "unique"})
"""Functions that take objects and give none: what the question says of these ends there."""
_COMPARISONS = frozenset({"equal_integer", "greater_than", "less_than"})


class DeadEnd(Exception):
    """These choices lead to no valid question."""


@dataclass(frozen=True)
class Shape:
    """What of a question is chosen before its words, so that no answer favours some shapes.

    Attributes:
        slots: attributes by x and y, relations by r, s and t.
        forms: what the description of each group says, as an index into ``FORMS``.
        open_forms: by the slot of each description, what it may say: none of what it must hide.
        filled: functions and values of the template's program with the slots filled in.
    """

    slots: Mapping[str, str]
    forms: Mapping[str, int]
    open_forms: Mapping[str, tuple[int, ...]]
    filled: Mapping[str, str]


def draw_shape(template: Template, asked: str, random: Random) -> Shape:
    """Draw relations, attributes and forms; x is ``asked`` unless that is empty."""
    x = asked or random.choice(list(ATTRIBUTES))
    y = random.choice([name for name in ATTRIBUTES if name != x])
    slots = {"x": x, "y": y} | {slot: random.choice(RELATIONS) for slot in RELATION_SLOTS}
    open_forms = {
        part.slot: _forms_without(tuple([slots[slot] for slot in part.hidden]))
        for part in template.descriptions
    }
    forms = {part.slot: _draw_form(part, open_forms[part.slot], random) for part in template.groups}
    filled = {text: text.format(**slots) for text in template.texts}
    return Shape(slots, forms, open_forms, filled)


def _draw_form(part: Described, open_forms: tuple[int, ...], random: Random) -> int:
    # "Things" alone would be the whole scene.
    forms = [form for form in open_forms if FORMS[form] or part.source is not SCENE]
    return random.choices(forms, [LENGTH_WEIGHTS[len(FORMS[form])] for form in forms])[0]


@cache
def _forms_without(hidden: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(k for k, form in enumerate(FORMS) if not set(form) & set(hidden))


class Draft:
    """A template filled for one scene.

    Attributes:
        template: what was filled.
        shape: what was chosen before the words.
        answer: what the program answers.
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
        self._last = template.last
        self._named: Objects = 0
        self._said: dict[str, _Said] = {}
        self.answer = as_text(self._call(template.program)[0])
        if template.apart:
            first, second = (self.words[slot].items() for slot in template.apart)
            if first <= second or second <= first:
                raise DeadEnd

    @cached_property
    def words(self) -> Mapping[str, Words]:
        """The descriptions, by slot."""
        known = self._facts.words
        return {
            slot: {name: known[name][chosen] for name in FORMS[form]}
            if isinstance(chosen, int)
            else chosen
            for slot, (chosen, form) in self._said.items()
        }

    @property
    def program(self) -> Program:
        """The steps."""
        steps: list[Step] = []
        self._write(self.template.program, steps)
        return tuple(steps)

    def _write(self, part: Part, steps: list[Step]) -> int:
        """Add the steps of a part, and return the index of the last."""
        if isinstance(part, Described):
            index = self._write(part.source, steps)
            for attribute, word in self.words[part.slot].items():
                steps.append(Step(f"filter_{attribute}", (index,), word))
                index = len(steps) - 1
            return index
        inputs = tuple([self._write(child, steps) for child in part.inputs])
        filled = self.shape.filled
        steps.append(Step(filled[part.function], inputs, filled[part.value]))
        return len(steps) - 1

    def _call(self, part: Call) -> tuple[Any, tuple[Objects, ...]]:
        """Choose the words of what a function takes.

        Returns:
            What it gives, and where that is objects: those that it would give if one relation, or
            one side of an "and" or "or", were left out of the question.
        """
        function = part.function
        if function == "unique":
            (described,) = part.inputs
            assert isinstance(described, Described)
            return self._describe_one(described), ()
        inputs = [
            self._describe_some(child) if isinstance(child, Described) else self._call(child)
            for child in part.inputs
        ]
        outputs = [found[0] for found in inputs]
        if function in _ENDS and outputs[0] in inputs[0][1]:
            raise DeadEnd
        # Two empty groups compare alike in every scene: such a question asks nothing.
        if function in _COMPARISONS and outputs == [0, 0]:
            raise DeadEnd
        filled = self.shape.filled
        run = FUNCTIONS[filled[function]].call
        return run(self._facts, filled[part.value], *outputs), self._lesser(function, inputs)

    def _lesser(self, function: str, inputs: list[tuple[Any, Any]]) -> tuple[Objects, ...]:
        """The objects that a function would give if a piece of the question were left out."""
        if function in ("relate", "same_{y}"):
            return (self._facts.everything & ~(1 << inputs[0][0]),)
        if function not in ("union", "intersect"):
            return ()
        (first, firsts), (second, seconds) = inputs
        if function == "intersect":
            return (*[less & second for less in firsts], *[first & less for less in seconds])
        # Without red cubes, "red cubes or balls" are the balls: that is no reason not to ask.
        sides = (first, second) if first and second else ()
        return (*sides, *[less | second for less in firsts], *[first | less for less in seconds])

    def _candidates(self, part: Described) -> tuple[Objects, tuple[Objects, ...]]:
        """The objects that a description chooses from, as ``_call`` gives them."""
        source = part.source
        assert isinstance(source, Call)
        return (self._facts.everything, ()) if source is SCENE else self._call(source)

    def _describe_one(self, part: Described) -> int:
        """Describe one of the candidates, not named yet, such that every relation is needed."""
        candidates, lesser = self._candidates(part)
        targets = candidates & ~self._named
        if part is self._last:
            targets &= self._facts.having[self.shape.slots["x"], self._wanted]
        if not targets:
            raise DeadEnd
        target = _choose(members(targets), self._random)
        alike, wanted = self._facts.alike[target], 1 << target
        forms = self.shape.open_forms[part.slot]
        # Every form draws a number, and of those that name the target the least wins.
        draw = self._random.random
        drawn = [draw() for _ in forms]
        good = [place for place, form in enumerate(forms) if alike[form] & candidates == wanted]
        if lesser:
            good = [place for place in good if _needs_all(alike[forms[place]], wanted, lesser)]
        if not good:
            raise DeadEnd
        self._named |= wanted
        self._said[part.slot] = target, forms[min(good, key=drawn.__getitem__)]
        return target

    def _describe_some(self, part: Described) -> tuple[Objects, tuple[Objects, ...]]:
        """Describe a group: as some object is, or by words that need not occur together.

        Returns:
            The objects, as ``_call`` gives them.
        """
        candidates, lesser = self._candidates(part)
        facts, form = self._facts, self.shape.forms[part.slot]
        good: list[tuple[int | Words, Objects]] = [
            (item, alike[form]) for item, alike in enumerate(facts.alike)
        ]
        if lesser:
            good = [each for each in good if _needs_all(each[1], each[1] & candidates, lesser)]
        else:
            good += [self._any_words(FORMS[form]) for _ in facts.alike]
        if part is self._last:
            right = self._gives_wanted({described & candidates for _, described in good})
            good = [each for each in good if each[1] & candidates in right]
        if not good:
            raise DeadEnd
        chosen, described = _choose(good, self._random)
        self._said[part.slot] = chosen, form
        return described & candidates, tuple([described & less for less in lesser])

    def _gives_wanted(self, groups: set[Objects]) -> set[Objects]:
        """Those of the groups that give the wanted answer."""
        answer, facts = FUNCTIONS[self.template.program.function].call, self._facts
        return {fits for fits in groups if as_text(answer(facts, "", fits)) == self._wanted}

    def _any_words(self, form: Form) -> tuple[Words, Objects]:
        """Draw a word for each attribute; these, and the objects that have them all."""
        words, fits = {}, self._facts.everything
        for attribute in form:
            word = words[attribute] = _choose(ATTRIBUTES[attribute], self._random)
            fits &= self._facts.having[attribute, word]
        return words, fits


def _needs_all(described: Objects, fits: Objects, lesser: tuple[Objects, ...]) -> bool:
    """Whether the words fit other objects than these if less is said."""
    for less in lesser:  # noqa: SIM110 - a generator costs more than what it does here
        if described & less == fits:
            return False
    return True


def _choose(items: Sequence[Item], random: Random) -> Item:
    """``random.choice``, number for number, in a third of its time."""
    count, draw = len(items), random.getrandbits
    size = count.bit_length()
    number = draw(size)
    while number >= count:
        number = draw(size)
    return items[number]
