"""Referring expressions: descriptions that fit exactly one object of a scene.

An object is named by some of its attributes ("the small cube"), or by attributes that fit several
and where it is relative to another one ("the cube left of the gray sphere"). Left, right, in
front and behind mean what the scene's relationships say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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


class Names:
    """What could name the objects of a scene, each found when it is first needed."""

    def __init__(self, scene: ClevrScene) -> None:
        self._scene = scene

    @cached_property
    def alike(self) -> tuple[tuple[Objects, ...], ...]:
        """Of each object those that share the attributes of each of FORMS with it."""
        objects = self._scene.objects
        return find_alike({name: [item.words[name] for item in objects] for name in ATTRIBUTES})

    @cached_property
    def forms(self) -> list[list[Form]]:
        """The sets of attributes of each object that no other object shares."""
        return [
            [form for form, objects in zip(FORMS, sets, strict=True) if objects == 1 << index]
            for index, sets in enumerate(self.alike)
        ]

    @cached_property
    def places(self) -> list[tuple[str, int, Objects]]:
        """Each relation and anchor that attributes name, with the objects that are there."""
        relationships = self._scene.relationships
        assert relationships is not None, "a scene to refer to has its relationships"
        return [
            (relation, anchor, set_of(relationships[relation][anchor]))
            for relation in RELATIONS
            for anchor, forms in enumerate(self.forms)
            if forms
        ]


def draw_plain(random: Random, names: Names) -> Reference | None:
    """Return an object that its own attributes name, any number of them; None if none has any."""
    num_objects = len(names.forms)
    for index in random.sample(range(num_objects), num_objects):
        if forms := names.forms[index]:
            return Reference(index, _any_length(random, forms))
    return None


def draw_related(random: Random, names: Names) -> Reference | None:
    """Return an object that attributes name only together with a relation; None if none has any."""
    num_objects = len(names.forms)
    for index in random.sample(range(num_objects), num_objects):
        alike = dict(zip(FORMS, names.alike[index], strict=True))
        ways = {objects: _relations(objects, index, names.places) for objects in {*alike.values()}}
        if forms := [form for form, objects in alike.items() if ways[objects]]:
            form = _any_length(random, forms)
            relation, anchor = random.choice(ways[alike[form]])
            anchor_words = _any_length(random, names.forms[anchor])
            return Reference(index, form, relation, Reference(anchor, anchor_words))
    return None


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
