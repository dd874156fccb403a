"""Referring expressions: descriptions that fit exactly one object of a scene.

An object is named by some of its attributes ("the small cube"), or by attributes that fit several
and where it is relative to another one ("the cube left of the gray sphere"). Left, right, in
front and behind mean what the scene's relationships say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from kyvo.world.clevr.descriptions import FORMS, Form, Objects, find_alike, set_of
from kyvo.world.clevr.scene import ATTRIBUTES, RELATIONS, ClevrScene


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
    attributes: Form
    relation: str | None = None
    anchor: "Reference | None" = None


def draw_plain(random: Random, scene: ClevrScene) -> Reference | None:
    """Return an object that its own attributes name, any number of them; None if none has any."""
    alike = _alike(scene)
    for index in random.sample(range(len(alike)), len(alike)):
        if forms := _naming(alike[index], index):
            return Reference(index, _any_length(random, forms))
    return None


def draw_related(random: Random, scene: ClevrScene) -> Reference | None:
    """Return an object that attributes name only together with a relation; None if none has any."""
    alike = _alike(scene)
    naming = [_naming(sets, index) for index, sets in enumerate(alike)]
    places = _places(scene, [index for index, forms in enumerate(naming) if forms])
    for index in random.sample(range(len(alike)), len(alike)):
        ways = {objects: _relations(objects, index, places) for objects in {*alike[index]}}
        forms = [form for form, same in zip(FORMS, alike[index], strict=True) if ways[same]]
        if forms:
            form = _any_length(random, forms)
            relation, anchor = random.choice(ways[alike[index][FORMS.index(form)]])
            anchor_words = _any_length(random, naming[anchor])
            return Reference(index, form, relation, Reference(anchor, anchor_words))
    return None


def _alike(scene: ClevrScene) -> tuple[tuple[Objects, ...], ...]:
    """Return of each object those that share the attributes of each of FORMS with it."""
    return find_alike({name: [item.words[name] for item in scene.objects] for name in ATTRIBUTES})


def _naming(alike: Sequence[Objects], index: int) -> list[Form]:
    """Return the sets of attributes that no other object shares."""
    return [form for form, objects in zip(FORMS, alike, strict=True) if objects == 1 << index]


def _places(scene: ClevrScene, anchors: Sequence[int]) -> list[tuple[str, int, Objects]]:
    """Return each relation and anchor, with the objects that are there."""
    relationships = scene.relationships
    assert relationships is not None, "a scene to refer to has its relationships"
    return [
        (relation, anchor, set_of(relationships[relation][anchor]))
        for relation in RELATIONS
        for anchor in anchors
    ]


def _relations(
    alike: Objects, index: int, places: Sequence[tuple[str, int, Objects]]
) -> list[tuple[str, int]]:
    """Return each relation and anchor that single out the object among those alike."""
    wanted = 1 << index
    if alike == wanted:
        return []
    return [(relation, anchor) for relation, anchor, objects in places if alike & objects == wanted]


def _any_length(random: Random, forms: Sequence[Form]) -> Form:
    """Draw the number of attributes first: there are many more long descriptions than short."""
    length = random.choice(sorted({len(form) for form in forms}))
    return random.choice([form for form in forms if len(form) == length])
