"""A second way to answer questions: read the English, and look at every object.

Nothing here comes from the templates or from the programs: only the words, and the coordinates.
"""

import re
from collections.abc import Callable
from typing import Any

from question_scenes import WORDS, offset

from kyvo.world import ClevrScene

MEANINGS = {
    "big": "large",
    "tiny": "small",
    "shiny": "metal",
    "metallic": "metal",
    "matte": "rubber",
    "block": "cube",
    "ball": "sphere",
}
RELATIONS = {
    "to the left of": "left",
    "on the left side of": "left",
    "left of": "left",
    "to the right of": "right",
    "on the right side of": "right",
    "right of": "right",
    "in front of": "front",
    "behind": "behind",
}


def spoken(attribute: str) -> str:
    words = WORDS[attribute]
    return "|".join([*words, *(word for word, means in MEANINGS.items() if means in words)])


ADJECTIVES = "".join(rf"(?:(?P<{name}>{spoken(name)}) )?" for name in ("size", "color", "material"))
NOUN = rf"(?P<shape>{spoken('shape')}|object|thing)(?P<plural>s?)"
PHRASE = re.compile(rf"(?P<article>the |an |a |another )?(?:other )?{ADJECTIVES}{NOUN}(?= |$)")
RELATION = "|".join(RELATIONS)
SAME = r"(?:with|have|has) the same (size|color|material|shape) as (the .+)"
ATTRIBUTE = "(size|color|material|shape)"


class Reader:
    """Answers questions about one scene."""

    def __init__(self, scene: ClevrScene) -> None:
        self.objects = scene.objects

    def answer(self, question: str) -> str:
        text = question[0].lower() + question[1:].removesuffix("?")
        # "Take the ball behind the cube: what is left of it" speaks of one thing twice.
        if match := re.fullmatch(r"take (the .+): (.+) it", text):
            text = f"{match[2]} {match[1]}"
        for pattern, respond in HEADS:
            if match := re.fullmatch(pattern, text):
                result = respond(self, *match.groups())
                return ("no", "yes")[result] if isinstance(result, bool) else str(result)
        raise AssertionError(f"cannot read {question!r}")

    def group(self, text: str) -> set[int]:
        """Everything that "red balls left of the cube" or "cubes or balls" may mean."""
        match = re.fullmatch(r"(?:either )?(.+) or (.+)", text)
        if match and (second := PHRASE.fullmatch(match[2])):
            assert bool(second["plural"]) == (second["article"] is None), text
            return self.group(match[1]) | self.group(match[2])
        phrase = PHRASE.match(text)
        assert phrase, f"cannot read {text!r}"
        assert bool(phrase["plural"]) == (phrase["article"] is None), f"number: {text!r}"
        found = {i for i in range(len(self.objects)) if self.fits(i, phrase)}
        rest = text[phrase.end() :].strip()
        return found & self.modifier(rest) if rest else found

    def one(self, text: str) -> int:
        """The only object that "the red ball left of the cube" may mean."""
        assert text.startswith("the "), text
        found = self.group(text)
        assert len(found) == 1, f"{text!r} means {len(found)} objects"
        return found.pop()

    def word(self, attribute: str, text: str) -> str:
        return self.objects[self.one(text)].words[attribute]

    def fits(self, i: int, phrase: re.Match[str]) -> bool:
        said = {name: phrase[name] for name in WORDS if phrase[name]}
        return all(
            word in ("object", "thing") or MEANINGS.get(word, word) == self.objects[i].words[name]
            for name, word in said.items()
        )

    def modifier(self, text: str) -> set[int]:
        """Everything that is "left of the cube and behind the ball"."""
        text = re.sub(r"^that ((is|are) )?", "", text)
        # Inside a reference there is neither "and" nor "or", so the one there is divides.
        if match := re.fullmatch(r"(?:both )?(.+) and (?:also )?(.+)", text):
            return self.modifier(match[1]) & self.modifier(match[2])
        if match := re.fullmatch(r"(?:either )?(.+) or (.+)", text):
            return self.modifier(match[1]) | self.modifier(match[2])
        if match := re.fullmatch(rf"({RELATION}) (the .+)", text):
            return self.towards(RELATIONS[match[1]], self.one(match[2]))
        match = re.fullmatch(SAME, text)
        assert match, f"cannot read {text!r}"
        return self.alike(match[1], self.one(match[2]))

    def towards(self, direction: str, i: int) -> set[int]:
        here = self.objects[i]
        return {j for j, item in enumerate(self.objects) if offset(here, item, direction) > 0.2}

    def alike(self, attribute: str, i: int) -> set[int]:
        word = self.objects[i].words[attribute]
        return {
            j for j, item in enumerate(self.objects) if item.words[attribute] == word and j != i
        }


def count(reader: Reader, text: str) -> int:
    return len(reader.group(text))


def exist(reader: Reader, text: str) -> bool:
    return bool(reader.group(text))


def word_of(attribute: str) -> Callable[[Reader, str], str]:
    return lambda reader, text: reader.word(attribute, text)


def alike(reader: Reader, one: str, other: str, attribute: str) -> bool:
    first, second = reader.one(one), reader.one(other)
    assert first != second
    return reader.objects[first].words[attribute] == reader.objects[second].words[attribute]


HEADS: list[tuple[str, Callable[..., Any]]] = [
    (r"how many things are there in total", lambda reader: len(reader.objects)),
    (r"what is the total number of objects", lambda reader: len(reader.objects)),
    (r"how many objects does the whole scene contain", lambda reader: len(reader.objects)),
    (rf"what {ATTRIBUTE} is (the .+)", Reader.word),
    (rf"what is the {ATTRIBUTE} of (the .+)", Reader.word),
    (rf"which {ATTRIBUTE} does (the .+) have", Reader.word),
    (rf"looking at (the .+), what {ATTRIBUTE} is it", lambda r, text, name: r.word(name, text)),
    (r"how (?:big|large) is (the .+)", word_of("size")),
    (r"of which material is (the .+)", word_of("material")),
    (r"what kind of material is used for (the .+)", word_of("material")),
    (r"what form does (the .+) have", word_of("shape")),
    (
        rf"(the .+) shares its {ATTRIBUTE} with how many other (.+)",
        lambda r, text, name, others: count(r, f"{others} with the same {name} as {text}"),
    ),
    (r"how many things are (either .+ or .+)", count),
    (r"what number of objects are (.+ or .+)", count),
    (r"how many (.+) are there", count),
    (rf"how many (.+) are ((?:{RELATION}) the .+)", lambda r, a, b: count(r, f"{a} {b}")),
    (
        rf"how many (other .+) have (the same {ATTRIBUTE} as the .+)",
        lambda r, a, b, _: count(r, f"{a} with {b}"),
    ),
    (r"what number of (.+) are there", count),
    (r"what is the number of (.+)", count),
    (r"counting the (.+), how many do you get", count),
    (r"(?:are there|does the scene contain|can you find) any (.+)", exist),
    (r"is there anything that is (either .+ or .+)", exist),
    (r"is there (an? .+)", exist),
    (r"can (an? .+) be seen", exist),
    (
        rf"does (another .+) have (the same {ATTRIBUTE} as the .+)",
        lambda r, a, b, _: exist(r, f"{a} with {b}"),
    ),
    (
        rf"does (the .+) share its {ATTRIBUTE} with (another .+)",
        lambda r, a, name, b: exist(r, f"{b} with the same {name} as {a}"),
    ),
    (r"are there as many (.+) as (.+)", lambda r, a, b: count(r, a) == count(r, b)),
    (
        r"is the number of (.+) the same as the number of (.+)",
        lambda r, a, b: count(r, a) == count(r, b),
    ),
    (r"are the (.+) and the (.+) equal in number", lambda r, a, b: count(r, a) == count(r, b)),
    (r"are there more (.+) than (.+)", lambda r, a, b: count(r, a) > count(r, b)),
    (
        r"is the number of (.+) greater than the number of (.+)",
        lambda r, a, b: count(r, a) > count(r, b),
    ),
    (r"do the (.+) outnumber the (.+)", lambda r, a, b: count(r, a) > count(r, b)),
    (r"are there fewer (.+) than (.+)", lambda r, a, b: count(r, a) < count(r, b)),
    (
        r"is the number of (.+) smaller than the number of (.+)",
        lambda r, a, b: count(r, a) < count(r, b),
    ),
    (r"are the (.+) outnumbered by the (.+)", lambda r, a, b: count(r, a) < count(r, b)),
    (rf"do (the .+) and (the .+) have the same {ATTRIBUTE}", alike),
    (
        rf"does (the .+) have the same {ATTRIBUTE} as (the .+)",
        lambda r, a, name, b: alike(r, a, b, name),
    ),
    (
        rf"is the {ATTRIBUTE} of (the .+) the same as that of (the .+)",
        lambda r, name, a, b: alike(r, a, b, name),
    ),
    (rf"are (the .+) and (the .+) alike in {ATTRIBUTE}", alike),
    (r"is (the .+) just as big as (the .+)", lambda r, a, b: alike(r, a, b, "size")),
    (
        r"are (the .+) and (the .+) made of the same material",
        lambda r, a, b: alike(r, a, b, "material"),
    ),
]
"""What whole questions look like; the first that fits is read."""
