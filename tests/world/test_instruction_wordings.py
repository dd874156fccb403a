"""The wordings of instructions: varied, all of them used, plain English."""

import re

import pytest

from kyvo.world import SceneOptions
from kyvo.world.instructions import KINDS, sample_edit, wordings

OPTIONS = SceneOptions(min_visible_share=0, max_objects=5)
ADJECTIVES = "large|small|gray|red|blue|green|brown|purple|cyan|yellow|rubber|metal"
NOUNS = "cube|sphere|cylinder|object|thing"
PHRASE = rf"(?:(?:{ADJECTIVES}) )*(?:{NOUNS})"
FILLERS = {
    "one": f"the {PHRASE}(?: .* the {PHRASE})?",
    "new": PHRASE,
    "value": f"(?:{ADJECTIVES}|{NOUNS})",
    "place": f".* the {PHRASE}",
    "heading": ".*",
}


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    return {
        kind: [sample_edit(i, "train", kind, 9, OPTIONS).instruction for i in range(600)]
        for kind in KINDS
    }


def pattern(template: str) -> re.Pattern[str]:
    return re.compile(template.format(**FILLERS), re.IGNORECASE)


TEMPLATES = {
    "appearance_no_relation": [t for part in wordings.APPEARANCE.values() for t in part],
    "appearance_with_relation": [t for part in wordings.APPEARANCE.values() for t in part],
    "insertion_with_relation": wordings.INSERTION,
    "moving_with_relation": wordings.MOVING,
    "removal_with_relation": wordings.REMOVAL,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_wording_occurs_and_no_other(texts: dict[str, list[str]], kind: str) -> None:
    patterns = [pattern(template) for template in TEMPLATES[kind]]
    assert all(any(p.fullmatch(text) for text in texts[kind]) for p in patterns)
    assert all(any(p.fullmatch(text) for p in patterns) for text in texts[kind])


def skeleton(text: str) -> str:
    """The sentence without what depends on the scene: phrases and where things are."""
    one = rf"\bthe {PHRASE}\b"
    text = re.sub(rf"{one}.* the {PHRASE}|{one}|\ba (?:{ADJECTIVES}) {PHRASE}", "@", text)
    text = re.sub(rf"\b(?:{ADJECTIVES}|{NOUNS})\b", "*", text)
    return re.sub(r"@ .*\b(?:left|right|front|back|rear|viewer|leftwards|rightwards)$", "@", text)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_has_a_dozen_wordings(texts: dict[str, list[str]], kind: str) -> None:
    assert len({skeleton(text) for text in texts[kind]}) >= 12


def test_sentences_are_plain_english(texts: dict[str, list[str]]) -> None:
    for text in (text for group in texts.values() for text in group):
        assert text.isascii()
        assert text[0].isupper()
        assert text[1:] == text[1:].lower()
        assert text == " ".join(text.split())
        assert text[-1].isalpha()
        assert not re.search(r"[{}]", text)
        assert not re.search(r"\b(\w+) \1\b", text), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text), text


def test_places_and_headings_use_all_their_synonyms(texts: dict[str, list[str]]) -> None:
    related = " ".join(texts["removal_with_relation"])
    for relation in (words for group in wordings.PLACES.values() for words in group):
        assert f" {relation} the " in related
    for link in ("that is", "standing", "located"):
        assert f" {link} " in related
    moves = texts["moving_with_relation"]
    for heading in (words for group in wordings.HEADINGS.values() for words in group):
        assert any(text.endswith(f" {heading}") for text in moves)
    for corner in ("front left", "front right", "back left", "back right"):
        for start in ("to", "towards"):
            assert any(text.endswith(f" {start} the {corner}") for text in moves)
