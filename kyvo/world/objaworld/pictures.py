"""Pictures of ObjaWorld scenes: the JSON as the tracer's solids, and the tracer told to read it."""

from functools import partial
from typing import Any

from kyvo.common.errors import InputError
from kyvo.scenes.presets import OBJAWORLD
from kyvo.world.objaworld.environments import ENVIRONMENTS
from kyvo.world.objaworld.models import ASSETS, MODELS, find_asset
from kyvo.world.objaworld.parts import assemble
from kyvo.world.render import tracer
from kyvo.world.render.scene_batch import (
    SceneContent,
    Solid,
    Vector,
    read_numbers,
    read_word,
    scene_objects,
    viewpoints,
)

CAMERA: Vector = (6.6, -5.75, 3.5)
"""Where the camera stands before any jitter. It looks at the origin without roll."""


def read_scene(scene: dict[str, Any], name: str) -> SceneContent:
    """Read an ObjaWorld scene dict with its environment.

    An object stands on the ground, whatever its z says. Its yaw is ``rotation`` or, as models
    write it, the fourth number of ``3d_coords``; a shape without a number is a variant of that
    height. Without the key "world" camera and lamps stand in their usual places.

    Raises:
        InputError: an unknown environment or shape, or a number that is missing or not finite.
    """
    word = read_word(scene, "environment", tuple(ENVIRONMENTS), name)
    environment = ENVIRONMENTS[word]
    solids = assemble(environment.scenery, environment.paints)
    for index, (item, where) in enumerate(scene_objects(scene, name)):
        solids += _object_solids(item, index, where)
    return SceneContent(viewpoints(scene, name, CAMERA), solids, environment.setting)


render = partial(tracer.render, read=read_scene)
"""``kyvo.world.render.tracer.render`` for ObjaWorld scenes."""

visible_shares = partial(tracer.visible_shares, read=read_scene)
"""``kyvo.world.render.tracer.visible_shares`` for an ObjaWorld scene."""


def _object_solids(item: dict[str, Any], index: int, where: str) -> list[Solid]:
    place = OBJAWORLD.read(item).numbers.get("3d_coords")
    x, y, z, yaw = read_numbers(place, 4, f"{where}, '3d_coords' and 'rotation'")
    asset = find_asset(str(item.get("shape")), z)
    if asset is None:
        raise InputError(
            f"{where}: 'shape' is {item.get('shape')!r}. Expected one of: {', '.join(MODELS)}, "
            f"or a variant such as {next(iter(ASSETS))}."
        )
    kind, number = ASSETS[asset]
    return MODELS[kind].solids(number, x, y, yaw, index)
