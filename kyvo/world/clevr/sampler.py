"""Random scenes that follow CLEVR's rules."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import torch

from kyvo.common.errors import InputError
from kyvo.world.camera import project_all
from kyvo.world.clevr.placement import Footprint, may_be_placed
from kyvo.world.clevr.scene import ClevrObject, ClevrScene, find_relationships
from kyvo.world.constants import CAMERA, COLORS, MATERIALS, SHAPES, SIZES
from kyvo.world.render.scene_batch import build_scene_batch
from kyvo.world.render.visibility import shows_enough
from kyvo.world.viewpoints import Viewpoints, draw_viewpoints

MAX_TRIES = 50
"""Places tried for an object before the scene is started again."""
MAX_STARTS = 2000
"""Starts of a scene before its options are called impossible."""
WORDS = {
    "sizes": tuple(SIZES),
    "colors": tuple(COLORS),
    "shapes": SHAPES,
    "materials": MATERIALS,
}
"""All words of every attribute."""


@dataclass(frozen=True)
class SceneOptions:
    """What scenes to draw; the defaults are CLEVR's.

    Attributes:
        min_objects: fewest objects of a scene.
        max_objects: most objects of a scene.
        extent: objects are placed at x and y in -extent..extent (metres).
        min_distance: gap between the radii of two objects (metres).
        margin: least offset of two objects along right and along behind (metres).
        min_visible_share: part of the image that shows each object at least; 0 is not checked.
        camera_jitter: the camera moves by up to this along each axis (metres).
        lamp_jitter: the lights likewise; named as in the world.json of worlds made before.
        height: of the image that ``pixel_coords`` refer to (pixels).
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
                f"{self.lamp_jitter}. Expected 0 to 3 metres for the camera, 0 or more for lights."
            )
        if not 0 < self.extent <= 3:
            raise InputError(
                f"scene options: extent {self.extent}. Expected more than 0, at most 3 metres: "
                "the number grid and the image end there."
            )
        if min(self.height, self.width) < 1:
            raise InputError(
                f"scene options: an image of {self.height} x {self.width} pixels. "
                "Expected at least 1 x 1."
            )


def sample_scene(index: int, split: str, seed: int, options: SceneOptions) -> ClevrScene:
    """Draw the scene number ``index`` of ``split``; the arguments alone decide it.

    Raises:
        InputError: so many objects find no place under these options.
    """
    (scene,) = sample_each([index], split, seed, options)
    return scene


def sample_each(
    indices: Sequence[int], split: str, seed: int, options: SceneOptions
) -> list[ClevrScene]:
    """Draw what ``sample_scene`` draws for each of the numbers; together they take less time."""
    drafts = [_draft(index, split, seed, options) for index in indices]
    waiting = drafts
    while waiting:
        for draft in waiting:
            draft.draw(split, options)
        shown = _show_all([ClevrScene(d.objects, d.viewpoints) for d in waiting], options)
        waiting = [draft for draft, is_shown in zip(waiting, shown, strict=True) if not is_shown]
    return [complete_scene(d.index, split, d.objects, d.viewpoints, options) for d in drafts]


@dataclass
class _Draft:
    """A scene that is being drawn.

    Attributes:
        index: its number.
        random: what it draws from; no other scene does.
        viewpoints: of its camera and lights.
        count: how many objects it will have.
        num_starts: how often its objects were drawn, those without a place included.
        objects: those of the last start.
    """

    index: int
    random: Random
    viewpoints: Viewpoints
    count: int
    num_starts: int = 0
    objects: tuple[ClevrObject, ...] = ()

    def draw(self, split: str, options: SceneOptions) -> None:
        """Start again until all objects have a place."""
        while self.num_starts < MAX_STARTS:
            self.num_starts += 1
            self.objects = _draw_objects(self.random, self.count, options)
            if len(self.objects) == self.count:
                return
        raise no_place_error(self.index, split, self.count)


def _draft(index: int, split: str, seed: int, options: SceneOptions) -> _Draft:
    random = Random(f"{seed}/{split}/{index}")
    viewpoints = draw_viewpoints(random, CAMERA, options.camera_jitter, options.lamp_jitter)
    count = random.randint(options.min_objects, options.max_objects)
    return _Draft(index, random, viewpoints, count)


def no_place_error(index: int, split: str, count: int) -> InputError:
    """Return the error of a scene that has used up all of its starts."""
    return InputError(
        f"scene {index} of {split}: {count} objects found no place in {MAX_STARTS} starts. "
        "Expected fewer objects, a smaller margin or min_distance, or less camera_jitter."
    )


def shows_all(scene: ClevrScene, options: SceneOptions) -> bool:
    """Whether the image shows enough of each object of ``scene``."""
    (is_shown,) = _show_all([scene], options)
    return is_shown


def _show_all(scenes: Sequence[ClevrScene], options: SceneOptions) -> list[bool]:
    least = options.min_visible_share
    if least <= 0:
        return [True] * len(scenes)
    shown_G = shows_enough(build_scene_batch(scenes, torch.device("cpu")), least)
    return shown_G.tolist()


def complete_scene(
    index: int,
    split: str,
    objects: Sequence[ClevrObject],
    viewpoints: Viewpoints,
    options: SceneOptions,
) -> ClevrScene:
    """Return the scene of these objects with everything that follows from them."""
    positions_1K3 = np.array([[item.position for item in objects]])
    camera_13 = np.array([viewpoints.camera])
    (pixels,) = project_all(camera_13, positions_1K3, options.height, options.width)
    return ClevrScene(
        tuple(replace(item, pixel=pixel) for item, pixel in zip(objects, pixels, strict=True)),
        viewpoints,
        split,
        index,
        image_filename(split, index),
        find_relationships(objects),
    )


def image_filename(split: str, index: int) -> str:
    """Return CLEVR's name of an image."""
    return f"CLEVR_{split}_{index:06d}.png"


def _draw_objects(random: Random, count: int, options: SceneOptions) -> tuple[ClevrObject, ...]:
    """Return ``count`` objects that keep their distance, or fewer if one found no place."""
    footprints: list[Footprint] = []
    objects: list[ClevrObject] = []
    while len(objects) < count:
        size, shape = random.choice(options.sizes), random.choice(options.shapes)
        footprint = _find_place(random, SIZES[size], shape == "cube", footprints, options)
        if footprint is None:
            break
        footprints.append(footprint)
        color, material = random.choice(options.colors), random.choice(options.materials)
        position = (footprint.x, footprint.y, footprint.radius)
        objects.append(ClevrObject(size, color, material, shape, position, footprint.rotation))
    return tuple(objects)


def _find_place(
    random: Random, radius: float, square: bool, others: list[Footprint], options: SceneOptions
) -> Footprint | None:
    draw, low, width = random.random, -options.extent, options.extent + options.extent
    for _ in range(MAX_TRIES):
        # What random.uniform returns, to the last bit: a scene draws hundreds of places.
        # CLEVR draws 0..360 as if in degrees; its renderer takes the number as radians.
        place = Footprint(low + width * draw(), low + width * draw(), radius, square, 360 * draw())
        if may_be_placed(place, others, options.min_distance, options.margin):
            return place
    return None
