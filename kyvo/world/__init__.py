"""A CLEVR-style world: scenes that follow CLEVR's rules, and a ray tracer that shows them."""

from kyvo.world.camera import DIRECTIONS, project
from kyvo.world.clevr.sampler import SceneOptions, sample_scene
from kyvo.world.clevr.scene import ClevrObject, ClevrScene, find_relationships
from kyvo.world.constants import COLORS, MATERIALS, SHAPES, SIZES
from kyvo.world.render.tracer import render

__all__ = [
    "COLORS",
    "DIRECTIONS",
    "MATERIALS",
    "SHAPES",
    "SIZES",
    "ClevrObject",
    "ClevrScene",
    "SceneOptions",
    "find_relationships",
    "project",
    "render",
    "sample_scene",
]
