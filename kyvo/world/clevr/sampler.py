"""Random scenes that follow CLEVR's rules, in CLEVR's JSON."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from kyvo.common.errors import InputError
from kyvo.world.camera import DIRECTIONS, project
from kyvo.world.clevr.placement import Footprint, may_stand
from kyvo.world.constants import CAMERA, COLORS, LAMPS, MATERIALS, SHAPES, SIZES
from kyvo.world.render.tracer import visible_shares

MAX_TRIES = 50
"""Places tried for an object before the scene is started again."""
MAX_STARTS = 2000
"""Starts of a scene before its options are called impossible."""
RELATION_GAP = 0.2
"""Metres along a direction from which one object counts as left of (behind, ...) another."""
WORDS = {
    "sizes": tuple(SIZES),
    "colors": tuple(COLORS),
    "shapes": SHAPES,
    "materials": MATERIALS,
}
"""All words of every attribute."""
RELATIONS = ("left", "right", "front", "behind")


@dataclass(frozen=True)
class SceneOptions:
    """What scenes to draw; the defaults are CLEVR's.

    Attributes:
        min_objects: fewest objects of a scene.
        max_objects: most objects of a scene.
        extent: objects stand at x and y in -extent..extent (metres).
        min_distance: gap between the radii of two objects (metres).
        margin: least offset of two objects along right and along behind (metres).
        min_visible_share: part of the picture that shows each object at least; 0 is not checked.
        camera_jitter: the camera moves by up to this along each axis (metres).
        lamp_jitter: the lamps likewise.
        height: of the picture that ``pixel_coords`` refer to (pixels).
        width: likewise.
        sizes, colors, shapes, materials: words that objects draw from; fewer make an easier world.
    """

    min_objects: int = 3
    max_objects: int = 10
    extent: float = 3.0
    min_distance: float = 0.25
    margin: float = 0.4
    min_visible_share: float = 0.0026
    camera_jitter: float = 0.5
    lamp_jitter: float = 1.0
    height: int = 256
    width: int = 256
    sizes: tuple[str, ...] = tuple(SIZES)
    colors: tuple[str, ...] = tuple(COLORS)
    shapes: tuple[str, ...] = SHAPES
    materials: tuple[str, ...] = MATERIALS

    def __post_init__(self) -> None:
        for name, known in WORDS.items():
            words = getattr(self, name)
            if not words or not set(words) <= set(known):
                raise InputError(
                    f"scene options: {name} {' '.join(words)!r}: expected one or more of "
                    f"{', '.join(known)}."
                )
        if not 1 <= self.min_objects <= self.max_objects:
            raise InputError(
                f"scene options: min_objects {self.min_objects}, max_objects {self.max_objects}. "
                "Expected 1 <= min_objects <= max_objects."
            )
        if min(self.camera_jitter, self.lamp_jitter) < 0 or self.camera_jitter > 3:
            raise InputError(
                f"scene options: camera_jitter {self.camera_jitter}, lamp_jitter "
                f"{self.lamp_jitter}. Expected 0 to 3 metres for the camera, 0 or more for lamps."
            )
        if not 0 < self.extent <= 3:
            raise InputError(
                f"scene options: extent {self.extent}. Expected more than 0, at most 3 metres: "
                "the number grid and the picture end there."
            )
        if min(self.height, self.width) < 1:
            raise InputError(
                f"scene options: a picture of {self.height} x {self.width} pixels. "
                "Expected at least 1 x 1."
            )


def sample_scene(index: int, split: str, seed: int, options: SceneOptions) -> dict[str, Any]:
    """Draw the scene number ``index`` of ``split``; the arguments alone decide it.

    Returns:
        CLEVR's scene JSON (split, image_index, image_filename, objects, directions,
        relationships) and under "world" what that lacks: the positions of camera and lamps.

    Raises:
        InputError: so many objects find no place under these options.
    """
    random = Random(f"{seed}/{split}/{index}")
    world = {
        "camera": jittered(random, CAMERA, options.camera_jitter),
        "lamps": {
            lamp.name: jittered(random, lamp.position, options.lamp_jitter) for lamp in LAMPS
        },
    }
    count = random.randint(options.min_objects, options.max_objects)
    for _ in range(MAX_STARTS):
        objects = _draw_objects(random, count, options)
        scene = {"objects": objects, "world": world}
        if len(objects) == count and shows_all(scene, options):
            return describe(index, split, scene, options)
    raise InputError(
        f"scene {index} of {split}: {count} objects found no place in {MAX_STARTS} starts. "
        "Expected fewer objects, a smaller margin or min_distance, or less camera_jitter."
    )


def shows_all(scene: dict[str, Any], options: SceneOptions) -> bool:
    """Whether the picture shows enough of each object of ``scene`` (its objects and its world)."""
    least = options.min_visible_share
    return least <= 0 or min(visible_shares(scene)) >= least


def relationships(objects: Sequence[dict[str, Any]]) -> dict[str, list[list[int]]]:
    """Return CLEVR's relations: ``[name][i]`` lists every j that lies in that direction of i."""
    return {
        name: [
            [j for j, other in enumerate(objects) if _offset(item, other, name) > RELATION_GAP]
            for item in objects
        ]
        for name in RELATIONS
    }


def _offset(item: dict[str, Any], other: dict[str, Any], direction: str) -> float:
    """Return how far (metres) ``other`` lies from ``item`` along a direction."""
    triples = zip(item["3d_coords"], other["3d_coords"], DIRECTIONS[direction], strict=True)
    return float(sum((there - here) * along for here, there, along in triples))


def jittered(random: Random, position: Sequence[float], jitter: float) -> list[float]:
    """Return ``position`` moved by up to ``jitter`` along each axis."""
    return [coordinate + random.uniform(-jitter, jitter) for coordinate in position]


def _draw_objects(random: Random, count: int, options: SceneOptions) -> list[dict[str, Any]]:
    """Return ``count`` objects that keep their distance, or fewer if one found no place."""
    footprints: list[Footprint] = []
    objects: list[dict[str, Any]] = []
    while len(objects) < count:
        size, shape = random.choice(options.sizes), random.choice(options.shapes)
        footprint = _find_place(random, SIZES[size], shape == "cube", footprints, options)
        if footprint is None:
            break
        footprints.append(footprint)
        objects.append(
            {
                "size": size,
                "color": random.choice(options.colors),
                "material": random.choice(options.materials),
                "shape": shape,
                "3d_coords": [footprint.x, footprint.y, footprint.radius],
                "rotation": footprint.rotation,
            }
        )
    return objects


def _find_place(
    random: Random, radius: float, square: bool, others: list[Footprint], options: SceneOptions
) -> Footprint | None:
    for _ in range(MAX_TRIES):
        x, y = (random.uniform(-options.extent, options.extent) for _ in range(2))
        # CLEVR draws 0..360 as if in degrees; its renderer takes the number as radians.
        place = Footprint(x, y, radius, square, rotation=random.uniform(0.0, 360.0))
        if all(may_stand(place, other, options.min_distance, options.margin) for other in others):
            return place
    return None


def describe(
    index: int, split: str, scene: dict[str, Any], options: SceneOptions
) -> dict[str, Any]:
    """Return the scene with everything that follows from its objects and its world."""
    camera = scene["world"]["camera"]
    objects = [
        item
        | {"pixel_coords": [*project(camera, item["3d_coords"], options.height, options.width)]}
        for item in scene["objects"]
    ]
    return {
        "split": split,
        "image_index": index,
        "image_filename": image_filename(split, index),
        "objects": objects,
        "directions": DIRECTIONS,
        "relationships": relationships(objects),
        "world": scene["world"],
    }


def image_filename(split: str, index: int) -> str:
    """Return CLEVR's name of a picture."""
    return f"CLEVR_{split}_{index:06d}.png"
