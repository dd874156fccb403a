"""Solids for tests: stages of single solids, and points spread over their surfaces."""

import numpy as np
import torch

from kyvo.world.render.rays import NO_OBJECT, Rays
from kyvo.world.render.scene_batch import SceneContent, Solid, Stage, build_stage, viewpoints


def stage_of(*solids: Solid) -> Stage:
    """A scene with these solids and CLEVR's camera and lamps."""
    return build_stage(
        [{}],
        torch.device("cpu"),
        lambda scene, name: SceneContent(viewpoints(scene, name), list(solids)),
    )


def rays_along(origins_N3: np.ndarray, directions_N3: np.ndarray) -> Rays:
    count = len(origins_N3)
    scenes = torch.zeros(count, dtype=torch.int64)
    columns = (torch.tensor(v.T, dtype=torch.float32) for v in (origins_N3, directions_N3))
    return Rays(
        *columns, scenes, torch.zeros(2, 4, count), torch.full_like(scenes, NO_OBJECT), count
    )


def inside(solid: Solid, points: np.ndarray, grown: float = 1.0) -> np.ndarray:
    """Whether points (..., 3) lie in a solid, straight from the definition of its shape."""
    offset = points - np.array(solid.center)
    x, y, z = (
        offset @ np.array(axis) / (half * grown)
        for axis, half in zip(solid.axes, solid.half, strict=True)
    )
    rim = (np.hypot(x, y) - 0.95).clip(0)
    return {
        "sphere": x * x + y * y + z * z <= 1,
        "cylinder": np.hypot(rim, (abs(z) - 0.95).clip(0)) <= 0.05,
        "cube": sum((abs(part) - 0.9).clip(0) ** 2 for part in (x, y, z)) <= 0.1**2,
    }[solid.shape]


def surface_points(solid: Solid, count: int = 1500) -> np.ndarray:
    """Points (N, 3) of a solid, most of them on its surface, edges and corners included."""
    unit = np.random.default_rng(0).normal(size=(count, 3)) * 3
    if solid.shape == "sphere":
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    if solid.shape == "cylinder":
        unit[:, :2] /= np.linalg.norm(unit[:, :2], axis=1, keepdims=True)
    return np.array(solid.center) + (unit.clip(-1, 1) * solid.half) @ np.array(solid.axes)
