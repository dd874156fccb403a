"""Random ObjaWorld scenes: 1 to 6 objects with their yaw, in a park or a living room."""

import math
from dataclasses import dataclass, replace
from random import Random

from kyvo.common.errors import InputError
from kyvo.world.camera import project
from kyvo.world.clevr.placement import Footprint, may_be_placed
from kyvo.world.clevr.sampler import MAX_STARTS, MAX_TRIES
from kyvo.world.objaworld.environments import ENVIRONMENTS
from kyvo.world.objaworld.models import ASSETS, center_height, footprint_radius
from kyvo.world.objaworld.scene import CAMERA, ObjaWorldObject, ObjaWorldScene
from kyvo.world.render.tracer import visible_shares
from kyvo.world.viewpoints import draw_viewpoints


@dataclass(frozen=True)
class ObjaWorldOptions:
    """What scenes to draw.

    Attributes:
        environment: "park" or "livingroom".
        min_objects: fewest objects of a scene.
        max_objects: most objects of a scene.
        extent: objects are placed at x and y in -extent..extent (metres).
        min_distance: gap between the discs that hold two objects (metres).
        min_visible_part: of what the image would show of each object if it were alone.
        camera_jitter: the camera moves by up to this along each axis (metres).
        lamp_jitter: the lights likewise; named as in the world.json of worlds made before.
        height: of the image that ``pixel_coords`` refer to (pixels).
        width: likewise.
    """

    environment: str = "park"
    min_objects: int = 1
    max_objects: int = 6
    extent: float = 2.5
    min_distance: float = 0.05
    min_visible_part: float = 0.5
    camera_jitter: float = 0.3
    lamp_jitter: float = 1.0
    height: int = 256
    width: int = 256

    def __post_init__(self) -> None:
        if self.environment not in ENVIRONMENTS:
            raise InputError(
                f"scene options: environment {self.environment!r}. Expected one of: "
                f"{', '.join(ENVIRONMENTS)}."
            )
        limits = {
            "min_objects": (1, self.max_objects),
            "extent": (0.1, 3.0),
            "min_distance": (0.0, math.inf),
            "min_visible_part": (0.0, 1.0),
            "camera_jitter": (0.0, 1.0),
            "lamp_jitter": (0.0, 1.5),
            "height": (1, math.inf),
            "width": (1, math.inf),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(
                    f"scene options: {name} {getattr(self, name)}. Expected {low} to {high}."
                )


def sample_objaworld_scene(
    index: int, split: str, seed: int, options: ObjaWorldOptions
) -> ObjaWorldScene:
    """Draw the scene number ``index`` of ``split``; the arguments alone decide it.

    Its objects are assets, and their yaws are in -pi..pi.

    Raises:
        InputError: so many objects find no place under these options.
    """
    random = Random(f"{seed}/{options.environment}/{split}/{index}")
    viewpoints = draw_viewpoints(random, CAMERA, options.camera_jitter, options.lamp_jitter)
    name = image_filename(split, index)
    empty = ObjaWorldScene((), options.environment, viewpoints, split, index, name)
    count = random.randint(options.min_objects, options.max_objects)
    for _ in range(MAX_STARTS):
        scene = replace(empty, objects=_draw_objects(random, count, options))
        if len(scene.objects) == count and _shows_all(scene, options):
            return _with_pixels(scene, options)
    raise InputError(
        f"scene {index} of {split}: {count} objects found no place in {MAX_STARTS} starts. "
        "Expected fewer objects, a larger extent, or a smaller min_distance or min_visible_part."
    )


def image_filename(split: str, index: int) -> str:
    """Return the name of an image; every environment counts its own."""
    return f"ObjaWorld_{split}_{index:06d}.png"


def _draw_objects(
    random: Random, count: int, options: ObjaWorldOptions
) -> tuple[ObjaWorldObject, ...]:
    """Return ``count`` objects that keep their distance, or fewer if one found no place."""
    kinds = ENVIRONMENTS[options.environment].kinds
    footprints: list[Footprint] = []
    objects: list[ObjaWorldObject] = []
    while len(objects) < count:
        chosen = random.choice(kinds)
        asset = random.choice([name for name, (kind, _) in ASSETS.items() if kind == chosen])
        place = _find_place(random, footprint_radius(asset), footprints, options)
        if place is None:
            break
        footprints.append(place)
        position = (place.x, place.y, center_height(asset))
        objects.append(ObjaWorldObject(asset, position, random.uniform(-math.pi, math.pi)))
    return tuple(objects)


def _find_place(
    random: Random, radius: float, others: list[Footprint], options: ObjaWorldOptions
) -> Footprint | None:
    for _ in range(MAX_TRIES):
        x, y = (random.uniform(-options.extent, options.extent) for _ in range(2))
        place = Footprint(x, y, radius, square=False, rotation=0.0)
        if may_be_placed(place, others, options.min_distance, 0.0):
            return place
    return None


def _shows_all(scene: ObjaWorldScene, options: ObjaWorldOptions) -> bool:
    """Whether the image shows enough of each object, compared with the object alone."""
    alone = [visible_shares(replace(scene, objects=(item,)))[0] for item in scene.objects]
    together = visible_shares(scene)
    return all(
        one > 0 and share >= one * options.min_visible_part
        for one, share in zip(alone, together, strict=True)
    )


def _with_pixels(scene: ObjaWorldScene, options: ObjaWorldOptions) -> ObjaWorldScene:
    camera, size = scene.viewpoints.camera, (options.height, options.width)
    objects = (replace(item, pixel=project(camera, item.position, *size)) for item in scene.objects)
    return replace(scene, objects=tuple(objects))
