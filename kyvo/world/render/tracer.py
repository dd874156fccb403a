"""A batched ray tracer for CLEVR-style scenes: elementwise PyTorch, and one Triton kernel on CUDA.

PyTorch takes some scenes and some of their pixels in a pass, as many rays as fit the caches; the
kernel, which draws the same up to rounding, takes whole pictures. A ray's result never depends on
the others of its pass: any batch gives the same bytes.

Shapes: G scenes of a pass, A pixels of a picture, R rays, H rays that met metal; a leading 3 holds
x, y, z or red, green, blue.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.world.render.geometry import FAR, dot
from kyvo.world.render.intersection import find_surface, lit_lamps, nearest_object
from kyvo.world.render.rays import Frame, Rays
from kyvo.world.render.scene_batch import SceneReader, Stage, build_stage, read_clevr_scene
from kyvo.world.render.shading import Surface, bounced_light, direct_light, lamp_light

_HAS_TRITON = find_spec("triton") is not None
if _HAS_TRITON:
    from kyvo.world.render.triton_tracer import trace_stage

RAYS_PER_PASS = {"cpu": 1 << 15, "cuda": 1 << (24 if _HAS_TRITON else 20)}
"""Rays that are traced together: working sets that fit the caches, or fill the GPU."""

MIRRORS = 1
"""Metals are traced this many times in a row; deeper ones show MIRROR_TINT times their albedo."""
MIRROR_TINT = 0.12

BRIGHTEST = 4.0
"""Radiance at which a sample is cut, against fireflies."""

VISIBILITY_FRAME = (90, 120)
"""Height and width of the picture in which visible pixels are counted."""


@torch.no_grad()
def render(
    scenes: Sequence[dict[str, Any]],
    height: int,
    width: int,
    samples_per_pixel: int = 4,
    device: torch.device | str = "cpu",
    seed: int = 0,
    read: SceneReader = read_clevr_scene,
) -> np.ndarray:
    """Render scenes: uint8 (B, height, width, 3), sRGB.

    The picture shows the 4:3 frustum squeezed into ``height`` x ``width``. Noise depends on pixel
    and ``seed`` alone: equal scenes give equal pictures, whatever their batch.

    Args:
        scenes: scene dicts that ``read`` understands; may be empty.
        height: pixels.
        width: pixels.
        samples_per_pixel: rays through each pixel; each sends one shadow ray to every lamp.
        device: where to compute.
        seed: of the noise in soft shadows.
        read: what the scenes mean.

    Raises:
        InputError: a scene is not understood, a number is not positive, or there is no such device.
    """
    if min(height, width, samples_per_pixel) < 1:
        raise InputError(
            f"render: height {height}, width {width}, samples_per_pixel {samples_per_pixel}. "
            "Expected whole numbers of at least 1."
        )
    device = find_device(device)
    frame = _frame(height, width, samples_per_pixel, seed, device)
    limit = RAYS_PER_PASS.get(device.type, RAYS_PER_PASS["cpu"])
    group = max(1, limit // (frame.num_pixels * samples_per_pixel))
    pictures = np.empty((len(scenes), height, width, 3), np.uint8)
    for start in range(0, len(scenes), group):
        stage = build_stage(scenes[start : start + group], device, read)
        pictures[start : start + group] = _render_stage(stage, frame, limit)
    return pictures


@torch.no_grad()
def visible_shares(scene: dict[str, Any], read: SceneReader = read_clevr_scene) -> list[float]:
    """Return the share of the picture (0..1) that shows each object, in the scene's order."""
    stage = build_stage([scene], torch.device("cpu"), read)
    frame = _visibility_frame()
    rays = frame.rays(stage.cameras, slice(None))
    _, slot_R = nearest_object(stage.solids, rays)
    owner_R = stage.solids.owner_N[slot_R[slot_R >= 0]]
    counts = torch.bincount(owner_R[owner_R >= 0], minlength=len(scene["objects"]))
    return (counts / frame.num_pixels).tolist()


def find_device(device: torch.device | str) -> torch.device:
    """Return the device of that name.

    Raises:
        InputError: there is no such device.
    """
    try:
        found = torch.device(device)
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device {str(device)!r}: {reason}. Use cpu, or cuda.") from None
    return found


@lru_cache(maxsize=1)
def _frame(height: int, width: int, num_samples: int, seed: int, device: torch.device) -> Frame:
    """Return the frame, kept for the next call: a GPU draws pictures faster than this noise."""
    return Frame(height, width, num_samples, seed, device)


@cache
def _visibility_frame() -> Frame:
    return Frame(*VISIBILITY_FRAME, 1, 0, torch.device("cpu"))


def _render_stage(stage: Stage, frame: Frame, limit: int) -> np.ndarray:
    """Return the pictures (G, height, width, 3) of a stage."""
    if _HAS_TRITON and stage.cameras.positions.is_cuda:
        radiance_3GA = trace_stage(stage, frame, MIRRORS, MIRROR_TINT, BRIGHTEST)
    else:
        radiance_3GA = _pass_by_pass(stage, frame, limit)
    levels_GA3 = _encode_srgb(radiance_3GA).permute(1, 2, 0)
    return levels_GA3.reshape(-1, *frame.shape, 3).cpu().numpy()


def _pass_by_pass(stage: Stage, frame: Frame, limit: int) -> Tensor:
    """Return the linear radiance (3, G, A) of the pictures, at most so many rays at a time."""
    num_scenes = stage.cameras.positions.shape[1]
    parts = []
    for pixels in frame.pixel_ranges(limit // num_scenes):
        radiance_3R = _trace(stage, frame.rays(stage.cameras, pixels), MIRRORS)
        shape = (3, num_scenes, frame.num_samples, -1)
        samples = radiance_3R.clamp_max(BRIGHTEST).view(shape).unbind(2)
        parts.append(sum(samples[1:], samples[0]) / frame.num_samples)
    return torch.cat(parts, -1)


def _encode_srgb(linear: Tensor) -> Tensor:
    """Return the nearest of the 256 sRGB levels (IEC 61966-2-1).

    Looked up, because a power rounds differently at the end of a vector than in its middle.
    """
    edges = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    decoded = torch.where(edges <= 0.04045, edges / 12.92, ((edges + 0.055) / 1.055) ** 2.4)
    return torch.bucketize(linear, decoded.to(linear), out_int32=True).to(torch.uint8)


def _trace(stage: Stage, rays: Rays, mirrors: int) -> Tensor:
    """Return the radiance (3, R) that rays see through so many mirrors."""
    distance_R, surface = find_surface(stage, rays)
    light = lamp_light(stage.lamps, rays, surface)
    lit_LR = lit_lamps(stage.solids, rays, surface, light)
    radiance_3R = direct_light(surface, light, lit_LR) + bounced_light(stage.solids, rays, surface)
    metal_H = (surface.metal_R & (distance_R < FAR)).nonzero()[:, 0]
    if len(metal_H):
        radiance_3R[:, metal_H] += _mirrored(stage, rays, surface, metal_H, mirrors)
    sky_3SN = rays.spread(stage.surroundings.sky_3G)
    return torch.where(rays.rows(distance_R < FAR), rays.rows(radiance_3R), sky_3SN).flatten(1)


def _mirrored(stage: Stage, rays: Rays, surface: Surface, metal_H: Tensor, mirrors: int) -> Tensor:
    """Return the radiance (3, H) that metals mirror."""
    albedo_3H = surface.albedo_3R[:, metal_H]
    if mirrors == 0:
        return albedo_3H * MIRROR_TINT
    arriving_3H, normal_3H = rays.directions_3R[:, metal_H], surface.normal_3R[:, metal_H]
    reflected = Rays(
        surface.lifted_3R[:, metal_H],
        arriving_3H - 2 * dot(arriving_3H, normal_3H) * normal_3H,
        rays.scenes_R[metal_H],
        rays.offsets_2LR[:, :, metal_H],
        surface.slot_R[metal_H],
    )
    return albedo_3H * _trace(stage, reflected, mirrors - 1)
