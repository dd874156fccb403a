"""Sentences about the world: the wordings that the small text tokenizer is trained on.

They cover the vocabulary of instructions, questions and answers; they do not refer to any scene.
"""

import random
from collections.abc import Iterator

from kyvo.world.constants import COLORS, MATERIALS, SHAPES, SIZES

_RELATIONS = (
    "to the left of",
    "to the right of",
    "in front of",
    "behind",
    "left of",
    "right of",
    "on the left side of",
    "on the right side of",
    "next to",
)
_DIRECTIONS = ("left", "right", "front", "behind", "left and behind", "right and in front")
_INSTRUCTIONS = (
    "Change the {one} to have {color} color",
    "Make the {one} {color}",
    "Turn the {one} into a {shape}",
    "Change the {one} {relation} the {two} to be {material}",
    "Paint the {one} {relation} the {two} {color}",
    "Put a {one} {relation} the {two}",
    "Place a {one} {relation} {two}",
    "Add a {one} {relation} the {two}",
    "Insert a new {one} object {relation} the {two}",
    "Move the {one} object to {direction}",
    "Shift the {one} {relation} the {two} to the {direction}",
    "Take out the {one} object {relation} {two}",
    "Remove the {one} {relation} the {two}",
    "Delete the {one} that is {relation} the {two}",
)
_QUESTIONS = (
    "What color is the {one} {relation} the {two}?",
    "What is the {attribute} of the {one}?",
    "How many {one}s are there?",
    "How many other things are the same {attribute} as the {one}?",
    "Is there a {one} {relation} the {two}?",
    "Are there any other objects of the same {attribute} as the {two}?",
    "Are there more {one}s than {two}s?",
    "Are there fewer {one} objects than {two} objects?",
    "Is the number of {one}s equal to the number of {two}s?",
    "Does the {one} have the same {attribute} as the {two}?",
    "How many things are either a {one} or a {two}?",
    "What number of objects are both {relation} the {one} and {relation} the {two}?",
    "The {one} that is made of the same material as the {two} has what {attribute}?",
    "There is a {one}; what {attribute} is it?",
)
_ANSWERS = ("yes", "no", *map(str, range(11)), *COLORS, *SIZES, *SHAPES, *MATERIALS)
_ATTRIBUTES = ("size", "color", "material", "shape")


def sample_sentences(count: int, seed: int = 0) -> Iterator[str]:
    """``count`` sentences: instructions, questions and answers in turn, the same for a seed."""
    rng = random.Random(seed)
    templates = (_INSTRUCTIONS, _QUESTIONS, tuple(f" {answer}" for answer in _ANSWERS))
    for index in range(count):
        template = rng.choice(templates[index % len(templates)])
        yield template.format(
            one=_noun_phrase(rng),
            two=_noun_phrase(rng),
            relation=rng.choice(_RELATIONS),
            direction=rng.choice(_DIRECTIONS),
            attribute=rng.choice(_ATTRIBUTES),
            color=rng.choice(list(COLORS)),
            shape=rng.choice(SHAPES),
            material=rng.choice(MATERIALS),
        )


def _noun_phrase(rng: random.Random) -> str:
    """Such as "small gray rubber cylinder", with any of the attributes left out."""
    parts = [rng.choice(list(SIZES)), rng.choice(list(COLORS)), rng.choice(MATERIALS)]
    kept = [part for part in parts if rng.random() < 0.7]
    return " ".join([*kept, rng.choice((*SHAPES, "object", "thing"))])
