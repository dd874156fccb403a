"""An ObjaWorld-like world: people, birds and furniture with a yaw, in a park or a living room."""

from kyvo.world.objaworld.environments import ENVIRONMENTS
from kyvo.world.objaworld.models import MODELS
from kyvo.world.objaworld.pictures import render, visible_shares
from kyvo.world.objaworld.sampler import (
    ObjaWorldOptions,
    image_filename,
    sample_objaworld_scene,
    scene_key,
)

__all__ = [
    "ENVIRONMENTS",
    "MODELS",
    "ObjaWorldOptions",
    "image_filename",
    "render",
    "sample_objaworld_scene",
    "scene_key",
    "visible_shares",
]
