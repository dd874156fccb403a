"""An ObjaWorld-like world: people, birds and furniture with a yaw, in a park or a living room."""

from kyvo.world.objaworld.environments import ENVIRONMENTS
from kyvo.world.objaworld.models import MODELS
from kyvo.world.objaworld.sampler import (
    ObjaWorldOptions,
    image_filename,
    sample_objaworld_scene,
)
from kyvo.world.objaworld.scene import ObjaWorldObject, ObjaWorldScene

__all__ = [
    "ENVIRONMENTS",
    "MODELS",
    "ObjaWorldObject",
    "ObjaWorldOptions",
    "ObjaWorldScene",
    "image_filename",
    "sample_objaworld_scene",
]
