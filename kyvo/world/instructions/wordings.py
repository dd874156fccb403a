"""How instructions are worded: templates, synonyms, and the phrases that name objects.

In the templates {one} is the phrase of an existing object, {new} the words of a new one, {value} a
word of an attribute, {place} a relation with its anchor, {heading} where something moves.
"""

from collections.abc import Collection, Mapping, Sequence
from random import Random

from kyvo.world.clevr.scene import ATTRIBUTES, ClevrObject
from kyvo.world.instructions.references import Reference

APPEARANCE = {
    "size": (
        "Change the size of {one} to {value}",
        "Change {one} to have a {value} size",
        "Change {one} to be {value}",
        "Make {one} {value}",
        "Make {one} {value} in size",
        "Please make {one} {value}",
        "Set the size of {one} to {value}",
        "Switch the size of {one} to {value}",
        "Resize {one} to be {value}",
        "Scale {one} so that it becomes {value}",
        "Give {one} a {value} size",
        "Let {one} be {value}",
        "Turn {one} into a {value} one",
        "{one} should become {value}",
    ),
    "color": (
        "Change the color of {one} to {value}",
        "Change {one} to have a {value} color",
        "Change {one} to {value}",
        "Make {one} {value}",
        "Please make {one} {value}",
        "Set the color of {one} to {value}",
        "Switch the color of {one} to {value}",
        "Paint {one} {value}",
        "Repaint {one} in {value}",
        "Color {one} {value}",
        "Recolor {one} in {value}",
        "Turn {one} {value}",
        "Give {one} a {value} color",
        "{one} should be {value}",
    ),
    "material": (
        "Change the material of {one} to {value}",
        "Change {one} to have a {value} surface",
        "Change {one} to be made of {value}",
        "Change {one} to {value}",
        "Make {one} out of {value}",
        "Please change {one} to {value}",
        "Set the material of {one} to {value}",
        "Switch the material of {one} to {value}",
        "Replace the material of {one} with {value}",
        "Use {value} as the material of {one}",
        "Give {one} a {value} surface",
        "Let {one} be made of {value}",
        "Turn {one} into {value}",
        "{one} should be made of {value}",
    ),
    "shape": (
        "Change the shape of {one} to a {value}",
        "Change {one} to have the shape of a {value}",
        "Change {one} into a {value}",
        "Make {one} a {value}",
        "Please turn {one} into a {value}",
        "Set the shape of {one} to a {value}",
        "Switch the shape of {one} to a {value}",
        "Transform {one} into a {value}",
        "Reshape {one} into a {value}",
        "Convert {one} into a {value}",
        "Give {one} the shape of a {value}",
        "Let {one} become a {value}",
        "Turn {one} into a {value}",
        "{one} should be a {value}",
    ),
}
"""By the attribute that changes."""

INSERTION = (
    "Put a {new} {place}",
    "Place a {new} {place}",
    "Place a new {new} {place}",
    "Add a {new} {place}",
    "Please add a {new} {place}",
    "Insert a {new} {place}",
    "Insert a new {new} {place}",
    "Set a {new} down {place}",
    "Position a {new} {place}",
    "Introduce a {new} {place}",
    "Create a {new} {place}",
    "Bring in a {new} and place it {place}",
    "Make a {new} appear {place}",
    "There should be a {new} {place}",
    "{place}, put a {new}",
    "{place}, add a {new}",
)
MOVING = (
    "Move {one} {heading}",
    "Please move {one} {heading}",
    "Shift {one} {heading}",
    "Push {one} {heading}",
    "Slide {one} {heading}",
    "Drag {one} {heading}",
    "Carry {one} {heading}",
    "Let {one} slide {heading}",
    "Take {one} and put it further {heading}",
    "Change the position of {one}, moving it {heading}",
    "Place {one} further {heading}",
    "Reposition {one} further {heading}",
    "{one} should be moved {heading}",
    "{one} should stand further {heading}",
)
REMOVAL = (
    "Remove {one}",
    "Please remove {one}",
    "Remove {one} from the scene",
    "Delete {one}",
    "Please delete {one}",
    "Delete {one} from the scene",
    "Erase {one}",
    "Discard {one}",
    "Eliminate {one}",
    "Take out {one}",
    "Take away {one}",
    "Take {one} out of the scene",
    "Clear away {one}",
    "Get rid of {one}",
    "Make {one} disappear",
    "{one} should be removed",
)

NOUNS = ("object", "thing")
"""For descriptions that leave the shape open."""
LINKS = ("", "that is ", "standing ", "located ")
"""Between an object and its relation."""
PLACES = {
    "left": ("to the left of", "left of", "on the left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right of", "on the right side of"),
    "front": ("in front of", "to the front of", "on the near side of"),
    "behind": ("behind", "to the rear of", "on the far side of"),
}
HEADINGS = {
    "left": ("to the left", "left", "leftwards", "towards the left"),
    "right": ("to the right", "right", "rightwards", "towards the right"),
    "front": ("to the front", "towards the front", "towards the viewer"),
    "behind": ("to the back", "towards the back", "to the rear", "away from the viewer"),
}
DIAGONALS = ("{first} and {second}", "to the {depth} {side}", "towards the {depth} {side}")
"""Two directions: each in its own words, or as a corner."""
CORNERS = {"front": "front", "behind": "back"}
"""Words for the depth of a corner."""


def word(random: Random, templates: Sequence[str], **phrases: str) -> str:
    """Return one of the templates, filled in, as a sentence without a full stop."""
    text = random.choice(templates).format(**phrases)
    return text[0].upper() + text[1:]


def refer(random: Random, objects: Sequence[ClevrObject], reference: Reference) -> str:
    """Return words for an object, such as "the cube that is left of the gray sphere"."""
    words = f"the {describe_words(random, objects[reference.index].words, reference.attributes)}"
    if reference.relation is None or reference.anchor is None:
        return words
    place = locate(random, objects, reference.relation, reference.anchor)
    return f"{words} {random.choice(LINKS)}{place}"


def locate(random: Random, objects: Sequence[ClevrObject], relation: str, anchor: Reference) -> str:
    """Return words for a place, such as "in front of the gray sphere"."""
    return f"{random.choice(PLACES[relation])} {refer(random, objects, anchor)}"


def describe_words(
    random: Random, words: Mapping[str, str], attributes: Collection[str] = tuple(ATTRIBUTES)
) -> str:
    """Return words for some attributes of an object, such as "small rubber thing"."""
    said = [words[name] for name in attributes]
    return " ".join(said if "shape" in attributes else [*said, random.choice(NOUNS)])


def head(random: Random, directions: Sequence[str]) -> str:
    """Return words for one direction, or for one sideways and one in depth, in any order."""
    each = [random.choice(HEADINGS[direction]) for direction in directions]
    if len(each) == 1:
        return each[0]
    depth = next(direction for direction in directions if direction in CORNERS)
    side = next(direction for direction in directions if direction not in CORNERS)
    return random.choice(DIAGONALS).format(
        first=each[0], second=each[1], depth=CORNERS[depth], side=side
    )
