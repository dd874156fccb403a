"""Primitives for tests: batches of single primitives, and points spread over their surfaces."""

from dataclasses import dataclass

import numpy as np
import torch

from kyvo.world.render.description import Primitive, SceneDescription
from kyvo.world.render.rays import NO_PRIMITIVE, Rays
from kyvo.world.render.scene_batch import SceneBatch, build_scene_batch
from kyvo.world.viewpoints import Viewpoints


@dataclass(frozen=True)
class PrimitiveScene:
    """A scene of bare primitives with CLEVR's camera and lights."""

    primitives: tuple[Primitive, ...]

    def describe(self) -> SceneDescription:
        return SceneDescription(Viewpoints(), self.primitives)


def batch_of(*primitives: Primitive) -> SceneBatch:
    return build_scene_batch([PrimitiveScene(primitives)], torch.device("cpu"))


def rays_along(origins_N3: np.ndarray, directions_N3: np.ndarray) -> Rays:
    count = len(origins_N3)
    scenes = torch.zeros(count, dtype=torch.int64)
    columns = (torch.tensor(v.T, dtype=torch.float32) for v in (origins_N3, directions_N3))
    return Rays(
        *columns, scenes, torch.zeros(2, 4, count), torch.full_like(scenes, NO_PRIMITIVE), count
    )


def inside(primitive: Primitive, points: np.ndarray, grown: float = 1.0) -> np.ndarray:
    """Whether points (..., 3) are in a primitive, straight from the definition of its shape."""
    offset = points - np.array(primitive.center)
    x, y, z = (
        offset @ np.array(axis) / (half * grown)
        for axis, half in zip(primitive.axes, primitive.half, strict=True)
    )
    rim = (np.hypot(x, y) - 0.95).clip(0)
    return {
        "sphere": x * x + y * y + z * z <= 1,
        "cylinder": np.hypot(rim, (abs(z) - 0.95).clip(0)) <= 0.05,
        "cube": sum((abs(part) - 0.9).clip(0) ** 2 for part in (x, y, z)) <= 0.1**2,
    }[primitive.shape]


def surface_points(primitive: Primitive, count: int = 1500) -> np.ndarray:
    """Points (N, 3) of a primitive, most of them on its surface, edges and corners included."""
    unit = np.random.default_rng(0).normal(size=(count, 3)) * 3
    if primitive.shape == "sphere":
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    if primitive.shape == "cylinder":
        unit[:, :2] /= np.linalg.norm(unit[:, :2], axis=1, keepdims=True)
    return np.array(primitive.center) + (unit.clip(-1, 1) * primitive.half) @ np.array(
        primitive.axes
    )
