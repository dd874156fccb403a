"""A CLEVR scene as Python holds it; its JSON is read and written here and nowhere else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from kyvo.common.errors import InputError
from kyvo.world.camera import DIRECTIONS
from kyvo.world.clevr.placement import Footprint
from kyvo.world.constants import COLORS, MATERIALS, SHAPES, SIZES
from kyvo.world.json_values import (
    Vector,
    read_index,
    read_numbers,
    read_objects,
    read_pixel,
    read_text,
    read_vector,
    read_word,
)
from kyvo.world.render.description import Primitive, SceneDescription, upright_axes
from kyvo.world.viewpoints import Viewpoints

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "color": tuple(COLORS),
    "material": MATERIALS,
    "shape": SHAPES,
}
"""The words of each attribute, in the order in which English puts them."""

RELATIONS = ("left", "right", "front", "behind")
RELATION_GAP = 0.2
"""Metres along a direction from which one object counts as left of (behind, ...) another."""

Relationships = Mapping[str, Sequence[Sequence[int]]]
"""``[relation][i]`` lists every j that is in that direction of object i."""

_KEYS = (*ATTRIBUTES, "3d_coords", "rotation", "pixel_coords")
INSERTED_KEYS = (*ATTRIBUTES, "rotation", "3d_coords", "pixel_coords")
"""The keys of an object that an edit inserts: worlds have always had them in this order."""


@dataclass(frozen=True)
class ClevrObject:
    """One object.

    Attributes:
        size, color, material, shape: words of ``ATTRIBUTES``.
        position: x, y and z of the centre (metres); z is the size's radius, more or less.
        rotation: about z (radians; CLEVR draws it from 0 to 360 nevertheless).
        pixel: column, row (pixels) and depth (metres) in the image; None: not known.
        keys: of its JSON in their order, so that what was read is written alike.
    """

    size: str
    color: str
    material: str
    shape: str
    position: Vector
    rotation: float = 0.0
    pixel: tuple[int, int, float] | None = None
    keys: tuple[str, ...] = field(default=_KEYS, compare=False, repr=False)

    @classmethod
    def from_json(cls, item: Mapping[str, Any], where: str) -> "ClevrObject":
        """Read an object; a missing rotation is 0.

        Raises:
            InputError: an unknown word, or numbers that are missing or not finite; ``where`` names
                the object.
        """
        size, color, material, shape = (
            read_word(item, name, words, where) for name, words in ATTRIBUTES.items()
        )
        position = read_vector(item.get("3d_coords"), f"{where}, '3d_coords'")
        (rotation,) = read_numbers([item.get("rotation", 0.0)], 1, f"{where}, 'rotation'")
        pixel = read_pixel(item, where)
        return cls(size, color, material, shape, position, float(rotation), pixel, tuple(item))

    def to_json(self) -> dict[str, Any]:
        """Return what is written; what is not known is left out."""
        values = {
            **self.words,
            "3d_coords": self.position,
            "rotation": self.rotation,
            "pixel_coords": self.pixel,
        }
        return {key: values[key] for key in self.keys if values.get(key) is not None}

    @cached_property
    def words(self) -> Mapping[str, str]:
        """The word of each attribute."""
        return {
            "size": self.size,
            "color": self.color,
            "material": self.material,
            "shape": self.shape,
        }

    def with_word(self, attribute: str, word: str) -> "ClevrObject":
        """Return the object with another word, resting on the ground."""
        words = {**self.words, attribute: word}
        x, y, _ = self.position
        return replace(
            self,
            size=words["size"],
            color=words["color"],
            material=words["material"],
            shape=words["shape"],
            position=(x, y, SIZES[words["size"]]),
        )

    @property
    def footprint(self) -> Footprint:
        """What it covers on the ground."""
        x, y, _ = self.position
        return Footprint(x, y, SIZES[self.size], self.shape == "cube", self.rotation)

    def primitive(self, index: int) -> Primitive:
        """Return the shape that is drawn: on the ground and of its size, whatever its z says."""
        x, y, _ = self.position
        radius = SIZES[self.size]
        red, green, blue = COLORS[self.color]
        return Primitive(
            self.shape,
            (x, y, radius),
            (radius, radius, radius),
            upright_axes(self.rotation),
            (red / 255, green / 255, blue / 255),
            self.material == "metal",
            index,
        )


@dataclass(frozen=True)
class ClevrScene:
    """Objects, seen from somewhere.

    Attributes:
        objects: in the order of the file.
        viewpoints: of camera and lights.
        split, image_index, image_filename: which scene it is; empty and 0 where nothing says.
        relationships: None: not known.
    """

    objects: tuple[ClevrObject, ...]
    viewpoints: Viewpoints = field(default_factory=Viewpoints)
    split: str = ""
    image_index: int = 0
    image_filename: str = ""
    relationships: Relationships | None = None

    @classmethod
    def from_json(cls, scene: Mapping[str, Any], where: str) -> "ClevrScene":
        """Read a scene; "objects" is all that it must have.

        Raises:
            InputError: it is no scene of CLEVR's; ``where`` names it.
        """
        objects = tuple(
            ClevrObject.from_json(item, place) for item, place in read_objects(scene, where)
        )
        return cls(
            objects,
            Viewpoints.from_json(scene, where),
            read_text(scene, "split", where),
            read_index(scene, "image_index", where),
            read_text(scene, "image_filename", where),
            _read_relationships(scene, len(objects), where),
        )

    def to_json(self) -> dict[str, Any]:
        """Return CLEVR's JSON, and under "world" what it has no key for: camera and lights."""
        scene = {
            "split": self.split,
            "image_index": self.image_index,
            "image_filename": self.image_filename,
            "objects": [item.to_json() for item in self.objects],
            "directions": DIRECTIONS,
            "relationships": self.relationships,
            "world": self.viewpoints.to_json(),
        }
        return {key: value for key, value in scene.items() if value is not None}

    def describe(self) -> SceneDescription:
        """Return what is to be drawn."""
        primitives = [item.primitive(index) for index, item in enumerate(self.objects)]
        return SceneDescription(self.viewpoints, primitives)


def find_relationships(objects: Sequence[ClevrObject]) -> Relationships:
    """Return CLEVR's relations of objects.

    These are those of ``offset``: the directions are level, and each has its opposite.
    """
    places = [item.position[:2] for item in objects]
    (right_x, right_y, _), (behind_x, behind_y, _) = DIRECTIONS["right"], DIRECTIONS["behind"]
    found: dict[str, list[tuple[int, ...]]] = {name: [] for name in RELATIONS}
    for x, y in places:
        offsets = [(there_x - x, there_y - y) for there_x, there_y in places]
        rightwards = [dx * right_x + dy * right_y for dx, dy in offsets]
        backwards = [dx * behind_x + dy * behind_y for dx, dy in offsets]
        found["left"].append(tuple([j for j, far in enumerate(rightwards) if far < -RELATION_GAP]))
        found["right"].append(tuple([j for j, far in enumerate(rightwards) if far > RELATION_GAP]))
        found["front"].append(tuple([j for j, far in enumerate(backwards) if far < -RELATION_GAP]))
        found["behind"].append(tuple([j for j, far in enumerate(backwards) if far > RELATION_GAP]))
    return {name: tuple(rows) for name, rows in found.items()}


def offset(item: ClevrObject, other: ClevrObject, direction: str) -> float:
    """Return how far (metres) ``other`` is from ``item`` along a direction."""
    triples = zip(item.position, other.position, DIRECTIONS[direction], strict=True)
    return float(sum((there - here) * along for here, there, along in triples))


def _read_relationships(scene: Mapping[str, Any], count: int, where: str) -> Relationships | None:
    if "relationships" not in scene:
        return None
    value = scene["relationships"]
    found = value if isinstance(value, dict) else {}
    for name in RELATIONS:
        if not _are_lists_of_objects(found.get(name), count):
            raise InputError(
                f"{where}: relationships: {name}: expected a list of indices below {count} for "
                f"each of the {count} objects. Make the scene again."
            )
    return {name: tuple(tuple(row) for row in found[name]) for name in RELATIONS}


def _are_lists_of_objects(lists: Any, count: int) -> bool:
    return (
        isinstance(lists, list | tuple)
        and len(lists) == count
        and all(isinstance(row, list | tuple) for row in lists)
        and all(type(j) is int and 0 <= j < count for row in lists for j in row)
    )
