"""Drawing questions: the family first, then the answer, then a question that has it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeVar

from kyvo.common.errors import InputError
from kyvo.world.clevr.scene import ATTRIBUTES, ClevrScene
from kyvo.world.questions.draft import DeadEnd, Draft, Shape, draw_shape
from kyvo.world.questions.programs import Facts, Program, facts_of
from kyvo.world.questions.template import RELATION_SLOTS, Kind, Template
from kyvo.world.questions.templates import FAMILIES, TEMPLATES
from kyvo.world.questions.wording import RELATION_PHRASES, noun_phrase

NUM_ROUNDS = 5
"""How often all families are gone through before a scene is said to have no question."""
NUM_SHAPES = 4
"""Shapes of a template that are tried for an answer."""
NUM_TRIES = 5
"""Choices of words that are tried for a shape."""
TYPE_WEIGHTS = {"truth": 1.0, "number": 2.5, "word": 1.0}
"""How often a family that can be answered in several ways asks for each; word: per attribute."""
TRUTHS = ("yes", "no")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """A question about one scene.

    Attributes:
        text: in English.
        answer: "yes", "no", a number in digits or an attribute's word.
        family: what answering takes, one of ``FAMILIES``.
        template: the name of its template.
        program: whose execution gives the answer.
    """

    text: str
    answer: str
    family: str
    template: str
    program: Program

    def to_json(self) -> dict[str, Any]:
        """Return it with the program as CLEVR's question files write that."""
        return {
            "question": self.text,
            "answer": self.answer,
            "family": self.family,
            "template": self.template,
            "program": [step.to_json() for step in self.program],
        }


def ask(scene: ClevrScene, random: Random, families: Sequence[str] = FAMILIES) -> Question:
    """Draw a question about a scene; the arguments alone decide it.

    Family and answer are drawn before the question, so that over many scenes families occur
    equally often, and so do the answers of a type as far as the scenes allow. Where a scene has no
    such question, other answers, then other types, then other families take its place.

    Every object that the question names is unique, every relation in it is needed to find what it
    speaks of, and its words alone don't give the answer.

    Raises:
        InputError: the scene's relationships are missing or it has too few objects for any question
            of these families, or a family is unknown.
    """
    if unknown := set(families) - set(FAMILIES):
        raise InputError(
            f"question families: {', '.join(sorted(unknown))}: expected {', '.join(FAMILIES)}."
        )
    facts = facts_of(scene)
    for template, shape, wanted in _plans(families, facts, random):
        if draft := _fill(template, shape, wanted, facts, random):
            return _question(draft, random)
    raise InputError(
        f"scene {scene.image_filename!r}: no question of {', '.join(families)} fits its "
        f"{facts.num_objects} objects. Ask of more families, or make richer scenes."
    )


def _plans(
    families: Sequence[str], facts: Facts, random: Random
) -> Iterator[tuple[Template, Shape, str]]:
    """Draw templates, shapes and answers, in the order to try."""
    for _ in range(NUM_ROUNDS):
        for family in random.sample(families, len(families)):
            for kind, templates in _kinds(family, random):
                for wanted in _answers(kind, facts, random):
                    for template, shape in _shapes(templates, kind, facts, random):
                        yield template, shape, wanted


def _kinds(family: str, random: Random) -> list[tuple[Kind, list[Template]]]:
    """What the family can ask for, in the order to try, with the templates that do."""
    templates: dict[Kind, list[Template]] = {}
    for template in TEMPLATES:
        if template.family == family:
            for kind in template.kinds:
                templates.setdefault(kind, []).append(template)
    order = _weighted_order({kind: TYPE_WEIGHTS[kind.answer_type] for kind in templates}, random)
    return [(kind, templates[kind]) for kind in order]


def _answers(kind: Kind, facts: Facts, random: Random) -> list[str]:
    """The answers that the scene may have, in the order to try."""
    if kind.answer_type == "truth":
        return [random.choice(TRUTHS)]
    if kind.answer_type == "number":
        wanted = random.randint(0, facts.num_objects)
        # Zero and one can nearly always be had: as ways out they would outnumber the rest.
        return [str(number) for number in (wanted, *range(wanted - 1, 1, -1))]
    asked = kind.attribute
    words = ATTRIBUTES[asked]
    return [word for word in random.sample(words, len(words)) if facts.having[asked, word]]


def _weighted_order(weights: Mapping[Item, float], random: Random) -> list[Item]:
    """Draw without replacement: each next item by its weight among those that are left."""
    return sorted(weights, key=lambda item: random.expovariate(weights[item]))


def _shapes(
    templates: Sequence[Template], kind: Kind, facts: Facts, random: Random
) -> Iterator[tuple[Template, Shape]]:
    """Draw shapes for each template in its turn."""
    for template in random.sample(templates, len(templates)):
        if template.num_named <= facts.num_objects:
            for _ in range(NUM_SHAPES):
                yield template, draw_shape(template, kind.attribute, random)


def _fill(
    template: Template, shape: Shape, wanted: str, facts: Facts, random: Random
) -> Draft | None:
    """Find a draft with the wanted answer, or none.

    Yes is only given, and so is no, where the same shape admits the other one too: what kind of
    question it is says nothing about its answer.
    """
    rivals = [answer for answer in TRUTHS if answer != wanted] if wanted in TRUTHS else []
    found = _search(template, shape, wanted, facts, random)
    if found and all(_search(template, shape, rival, facts, random) for rival in rivals):
        return found
    return None


def _search(
    template: Template, shape: Shape, wanted: str, facts: Facts, random: Random
) -> Draft | None:
    for _ in range(NUM_TRIES):
        try:
            draft = Draft(template, shape, wanted, facts, random)
        except DeadEnd:
            continue
        if draft.answer == wanted:
            return draft
    return None


def _question(draft: Draft, random: Random) -> Question:
    """Put a draft in words."""
    template, slots = draft.template, dict(draft.shape.slots)
    for slot in RELATION_SLOTS:
        slots[slot] = random.choice(RELATION_PHRASES[slots[slot]])
    phrases = {slot: noun_phrase(words, random) for slot, words in draft.words.items()}
    wording = random.choice(template.wordings_for(slots["x"]))
    return Question(
        text=wording.format(**slots, **phrases),
        answer=draft.answer,
        family=template.family,
        template=template.name,
        program=draft.program,
    )
