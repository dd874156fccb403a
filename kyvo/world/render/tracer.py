"""A batched ray tracer for CLEVR-style scenes: elementwise PyTorch, and one Triton kernel on CUDA.

PyTorch takes some scenes and some of their pixels in a pass, as many rays as fit the caches; the
kernel, which draws the same up to rounding, takes whole images. A ray's result never depends on
the others of its pass: any batch gives the same bytes.

Shapes: G scenes of a pass, A pixels of an image, R rays, H rays that hit metal; a leading 3 holds
x, y, z or red, green, blue.
"""

from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.world.render.description import Renderable
from kyvo.world.render.geometry import FAR, dot
from kyvo.world.render.intersection import find_surface, nearest_primitive, visible_lights
from kyvo.world.render.rays import Frame, Rays
from kyvo.world.render.scene_batch import SceneBatch, build_scene_batch
from kyvo.world.render.shading import Surface, bounced_light, direct_light, sample_lights

_HAS_TRITON = find_spec("triton") is not None
if _HAS_TRITON:
    from kyvo.world.render.triton_tracer import trace_batch

RAYS_PER_PASS = {"cpu": 1 << 15, "cuda": 1 << (24 if _HAS_TRITON else 20)}
"""Rays that are traced together: working sets that fit the caches, or fill the GPU."""

_KEPT_FRAMES = 256
"""Frames, each with its own noise, that are kept: a megabyte at 128 x 128 pixels with 2 rays."""

MAX_BOUNCES = 1
"""Mirror reflections that are traced in a row."""
TERMINAL_RADIANCE = 0.12
"""Radiance that metals mirror after the last bounce."""

RADIANCE_CLAMP = 4.0
"""Radiance at which a sample is cut, against fireflies."""

VISIBILITY_FRAME = (90, 120)
"""Height and width of the image in which visible pixels are counted."""


@torch.no_grad()
def render(
    scenes: Sequence[Renderable],
    height: int,
    width: int,
    samples_per_pixel: int = 4,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> np.ndarray:
    """Render scenes: uint8 (B, height, width, 3), sRGB.

    The image shows the 4:3 frustum squeezed into ``height`` x ``width``. Noise depends on pixel
    and ``seed`` alone: equal scenes give equal images, whatever their batch.

    Args:
        scenes: of any world; may be empty.
        height: pixels.
        width: pixels.
        samples_per_pixel: rays through each pixel; each sends one shadow ray to every light.
        device: where to compute.
        seed: of the noise in soft shadows.

    Raises:
        InputError: a number is not positive, or there is no such device.
    """
    device = find_device(device)
    frame = _frame(height, width, samples_per_pixel, seed, device)
    limit = RAYS_PER_PASS.get(device.type, RAYS_PER_PASS["cpu"])
    group = max(1, limit // (frame.num_pixels * samples_per_pixel))
    images = np.empty((len(scenes), height, width, 3), np.uint8)
    for start in range(0, len(scenes), group):
        batch = build_scene_batch(scenes[start : start + group], device)
        images[start : start + group] = _render_batch(batch, frame, limit).cpu().numpy()
    return images


@torch.no_grad()
def render_batch(
    batch: SceneBatch, height: int, width: int, samples_per_pixel: int = 4, seed: int = 0
) -> Tensor:
    """Render scenes that are on a device, there: uint8 (G, height, width, 3), as ``render`` does.

    On a GPU the host only launches, and waits for nothing, once the frame is kept.

    Raises:
        InputError: a number is not positive.
    """
    device = batch.cameras.positions.device
    frame = _frame(height, width, samples_per_pixel, seed, device)
    return _render_batch(batch, frame, RAYS_PER_PASS.get(device.type, RAYS_PER_PASS["cpu"]))


def prepare(scenes: Sequence[Renderable]) -> SceneBatch:
    """Scenes as ``render_prepared`` takes them: arrays, which go to other processes cheaply."""
    return build_scene_batch(scenes, torch.device("cpu")).each(Tensor.numpy)


def render_prepared(
    batch: SceneBatch,
    height: int,
    width: int,
    samples_per_pixel: int,
    device: torch.device | str,
    seed: int,
) -> np.ndarray:
    """Render what ``prepare`` gave, as ``render`` would, in one pass or few: a GPU's way."""
    there = batch.each(lambda array: torch.from_numpy(array).to(device))
    return render_batch(there, height, width, samples_per_pixel, seed).numpy(force=True)


@torch.no_grad()
def visible_shares(scene: Renderable) -> list[float]:
    """Return the share of the image (0..1) that shows each object, in the scene's order."""
    batch = build_scene_batch([scene], torch.device("cpu"))
    frame = _visibility_frame()
    rays = frame.rays(batch.cameras, slice(None))
    _, primitive_R = nearest_primitive(batch.primitives, rays)
    object_index_R = batch.primitives.object_index_N[primitive_R[primitive_R >= 0]]
    num_objects = int(batch.primitives.object_index_N.max()) + 1
    counts = torch.bincount(object_index_R[object_index_R >= 0], minlength=num_objects)
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


@lru_cache(maxsize=_KEPT_FRAMES)
def _frame(height: int, width: int, num_samples: int, seed: int, device: torch.device) -> Frame:
    """Return the frame, kept for later calls: a GPU draws images faster than this noise."""
    if min(height, width, num_samples) < 1:
        raise InputError(
            f"render: height {height}, width {width}, samples_per_pixel {num_samples}. "
            "Expected whole numbers of at least 1."
        )
    return Frame(height, width, num_samples, seed, device)


@cache
def _visibility_frame() -> Frame:
    return Frame(*VISIBILITY_FRAME, 1, 0, torch.device("cpu"))


def _render_batch(batch: SceneBatch, frame: Frame, limit: int) -> Tensor:
    """Return the images (G, height, width, 3) of a batch, on its device."""
    if _HAS_TRITON and batch.cameras.positions.is_cuda:
        radiance_3GA = trace_batch(batch, frame, MAX_BOUNCES, TERMINAL_RADIANCE, RADIANCE_CLAMP)
    else:
        radiance_3GA = _pass_by_pass(batch, frame, limit)
    # Colours side by side: a convolution over any other layout takes several times as long.
    levels_GA3 = _encode_srgb(radiance_3GA).permute(1, 2, 0).contiguous()
    return levels_GA3.reshape(-1, *frame.shape, 3)


def _pass_by_pass(batch: SceneBatch, frame: Frame, limit: int) -> Tensor:
    """Return the linear radiance (3, G, A) of the images, at most so many rays at a time."""
    num_scenes = batch.cameras.positions.shape[1]
    parts = []
    for pixels in frame.pixel_ranges(limit // num_scenes):
        radiance_3R = _trace(batch, frame.rays(batch.cameras, pixels), MAX_BOUNCES)
        shape = (3, num_scenes, frame.num_samples, -1)
        samples = radiance_3R.clamp_max(RADIANCE_CLAMP).view(shape).unbind(2)
        parts.append(sum(samples[1:], samples[0]) / frame.num_samples)
    return torch.cat(parts, -1)


def _encode_srgb(linear: Tensor) -> Tensor:
    """Return the nearest of the 256 sRGB levels (IEC 61966-2-1).

    Looked up, because a power rounds differently at the end of a vector than in its middle.
    """
    return torch.bucketize(linear, _level_edges(linear.device), out_int32=True).to(torch.uint8)


@cache
def _level_edges(device: torch.device) -> Tensor:
    """Return the linear values between levels; kept, because the host would wait for the copy."""
    edges = (torch.arange(255, dtype=torch.float64) + 0.5) / 255
    decoded = torch.where(edges <= 0.04045, edges / 12.92, ((edges + 0.055) / 1.055) ** 2.4)
    return decoded.float().to(device)


def _trace(batch: SceneBatch, rays: Rays, num_bounces: int) -> Tensor:
    """Return the radiance (3, R) that rays see, over so many more bounces."""
    distance_R, surface = find_surface(batch, rays)
    samples = sample_lights(batch.lights, rays, surface)
    visible_LR = visible_lights(batch.primitives, rays, surface, samples)
    radiance_3R = direct_light(surface, samples, visible_LR)
    radiance_3R = radiance_3R + bounced_light(batch.primitives, rays, surface)
    metal_H = (surface.metal_R & (distance_R < FAR)).nonzero()[:, 0]
    if len(metal_H):
        radiance_3R[:, metal_H] += _mirrored(batch, rays, surface, metal_H, num_bounces)
    sky_3SN = rays.spread(batch.environments.sky_3G)
    return torch.where(rays.rows(distance_R < FAR), rays.rows(radiance_3R), sky_3SN).flatten(1)


def _mirrored(
    batch: SceneBatch, rays: Rays, surface: Surface, metal_H: Tensor, num_bounces: int
) -> Tensor:
    """Return the radiance (3, H) that metals mirror."""
    albedo_3H = surface.albedo_3R[:, metal_H]
    if num_bounces == 0:
        return albedo_3H * TERMINAL_RADIANCE
    arriving_3H, normal_3H = rays.directions_3R[:, metal_H], surface.normal_3R[:, metal_H]
    reflected = Rays(
        surface.lifted_3R[:, metal_H],
        arriving_3H - 2 * dot(arriving_3H, normal_3H) * normal_3H,
        rays.scenes_R[metal_H],
        rays.offsets_2LR[:, :, metal_H],
        surface.primitive_R[metal_H],
    )
    return albedo_3H * _trace(batch, reflected, num_bounces - 1)
