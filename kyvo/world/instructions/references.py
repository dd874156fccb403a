"""Referring expressions: descriptions that fit exactly one object of a scene.

An object is named by some of its attributes ("the small cube"), or by attributes that fit several
and where it is relative to another one ("the cube left of the gray sphere"). Left, right, in
front and behind mean what the scene's relationships say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random

from kyvo.world.clevr.scene import ATTRIBUTES, RELATIONS, ClevrObject, ClevrScene, Relationships

SUBSETS = tuple(
    subset for count in range(len(ATTRIBUTES) + 1) for subset in combinations(ATTRIBUTES, count)
)
"""All sets of attributes that a description may give."""


@dataclass(frozen=True)
class Reference:
    """Names the object ``index`` of a scene.

    Attributes:
        index: of the object.
        attributes: those that the words give; none means "the object".
        relation: where the object is as seen from ``anchor``; a name of RELATIONS.
        anchor: another object, named by its own attributes; None if there is no relation.
    """

    index: int
    attributes: tuple[str, ...]
    relation: str | None = None
    anchor: "Reference | None" = None


def draw_plain(random: Random, scene: ClevrScene) -> Reference | None:
    """Return an object that its own attributes name, any number of them; None if none has any."""
    objects = scene.objects
    for index in random.sample(range(len(objects)), len(objects)):
        if subsets := _naming(objects, index):
            return Reference(index, _any_length(random, subsets))
    return None


def draw_related(random: Random, scene: ClevrScene) -> Reference | None:
    """Return an object that attributes name only together with a relation; None if none has any."""
    objects, relationships = scene.objects, scene.relationships
    assert relationships is not None, "a scene to refer to has its relationships"
    naming = [_naming(objects, index) for index in range(len(objects))]
    anchors = [index for index, subsets in enumerate(naming) if subsets]
    for index in random.sample(range(len(objects)), len(objects)):
        ways = {
            subset: _relations(objects, relationships, index, subset, anchors) for subset in SUBSETS
        }
        if subsets := [subset for subset, found in ways.items() if found]:
            subset = _any_length(random, subsets)
            relation, anchor = random.choice(ways[subset])
            anchor_words = _any_length(random, naming[anchor])
            return Reference(index, subset, relation, Reference(anchor, anchor_words))
    return None


def _alike(objects: Sequence[ClevrObject], index: int, attributes: tuple[str, ...]) -> set[int]:
    """Return every object that shares these attributes with the object ``index``."""
    words = objects[index].words
    return {
        j
        for j, other in enumerate(objects)
        if all(other.words[name] == words[name] for name in attributes)
    }


def _naming(objects: Sequence[ClevrObject], index: int) -> list[tuple[str, ...]]:
    """Return the sets of attributes that no other object shares."""
    return [subset for subset in SUBSETS if len(_alike(objects, index, subset)) == 1]


def _relations(
    objects: Sequence[ClevrObject],
    relationships: Relationships,
    index: int,
    attributes: tuple[str, ...],
    anchors: Sequence[int],
) -> list[tuple[str, int]]:
    """Return each relation and anchor that single out the object among those alike."""
    alike = _alike(objects, index, attributes)
    if len(alike) == 1:
        return []
    return [
        (relation, anchor)
        for relation in RELATIONS
        for anchor in anchors
        if alike.intersection(relationships[relation][anchor]) == {index}
    ]


def _any_length(random: Random, subsets: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Draw the number of attributes first: there are many more long descriptions than short."""
    length = random.choice(sorted({len(subset) for subset in subsets}))
    return random.choice([subset for subset in subsets if len(subset) == length])
