"""How questions say things: noun phrases and relations, with their synonyms."""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

from kyvo.world.clevr.scene import ATTRIBUTES

SYNONYMS: dict[str, tuple[str, ...]] = {
    "large": ("large", "big"),
    "small": ("small", "tiny"),
    "metal": ("metal", "metallic", "shiny"),
    "rubber": ("rubber", "matte"),
    "cube": ("cube", "block"),
    "sphere": ("sphere", "ball"),
}
"""Synonyms of a word, itself among them; a word that is not here has none."""

ANY_SHAPE = ("object", "thing")
"""Nouns for objects whose shape is not said."""

RELATION_PHRASES: dict[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left side of"),
    "right": ("right of", "to the right of", "on the right side of"),
    "front": ("in front of",),
    "behind": ("behind",),
}


@dataclass(frozen=True)
class NounPhrase:
    """A description such as "tiny red ball", for ``str.format``.

    ``{}`` is the singular, ``{:s}`` the plural, ``{:a}`` the singular with its article.
    """

    text: str

    def __format__(self, spec: str) -> str:
        if spec == "s":
            return f"{self.text}s"
        if spec == "a":
            return f"{'an' if self.text[0] in 'aeiou' else 'a'} {self.text}"
        assert not spec, spec
        return self.text


def noun_phrase(words: Mapping[str, str], random: Random) -> NounPhrase:
    """Say the words of a description, given by attribute, with synonyms drawn at random."""
    chosen = [
        random.choice(SYNONYMS.get(words[name], (words[name],)))
        for name in ATTRIBUTES
        if name in words
    ]
    if "shape" not in words:
        chosen.append(random.choice(ANY_SHAPE))
    return NounPhrase(" ".join(chosen))
