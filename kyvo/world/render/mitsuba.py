"""Path-traced images with Mitsuba 3: slower than the project's tracer, nearer to Blender's.

The optional package ``mitsuba`` renders what the tracer renders: the same camera, lights, ground
and primitives. What the tracer only fits (light between surfaces) is simulated here. Grounds of
other colours than CLEVR's, and skies, are left out.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kyvo.common.errors import InputError, MissingDependencyError
from kyvo.world.camera import view_axes
from kyvo.world.constants import (
    GROUND_ALBEDO,
    HALF_WIDTH,
    LIGHTS,
    SHAPES,
    SUN,
    SUN_DISTANCE,
    Light,
)
from kyvo.world.render.description import Primitive, Renderable
from kyvo.world.render.meshes import ground_mesh, primitive_mesh, write_ply
from kyvo.world.viewpoints import Viewpoints

SAMPLES_PER_PIXEL = 64
MAX_DEPTH = 6
"""Length of a light path, in surfaces."""
SMOOTH_ALPHA = 0.02
"""Metals' smooth lobe; CLEVR's 0.01 gives fireflies."""
NEAR_SUN = 100.0
"""Metres: as far off as the sun need be; its size goes along."""
EXPOSURE = 0.89
"""All light is multiplied by it. The lights' watts were found with a tracer whose light falls once;
with the bounces that come on top of it here, this makes images of CLEVR's brightness. Found by:
``benchmarks/renderers.py --split train --scenes 40 --size 64 --mitsuba-samples 256``.
"""

MitsubaNode = dict[str, Any]


def render_with_mitsuba(
    scenes: Sequence[Renderable],
    height: int,
    width: int,
    samples_per_pixel: int = SAMPLES_PER_PIXEL,
    device: str = "cpu",
    seed: int = 0,
) -> np.ndarray:
    """Render scenes as ``kyvo.world.render`` does: uint8 (B, height, width, 3), sRGB.

    Two runs differ at the level of noise. ``device`` cpu uses Mitsuba's scalar variant, cuda its
    CUDA one. ``samples_per_pixel`` is rounded up to whole paths through each pixel of the finer
    film.

    Raises:
        InputError: a number is not positive.
        MissingDependencyError: Mitsuba is not installed.
    """
    if min(height, width, samples_per_pixel) < 1:
        raise InputError("render: height, width and samples_per_pixel: expected 1 or more.")
    mitsuba = _mitsuba(device)
    film = _film_size(height, width)
    paths = math.ceil(samples_per_pixel * height * width / math.prod(film))
    images = np.empty((len(scenes), height, width, 3), np.uint8)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _write_meshes(folder)
        for index, scene in enumerate(scenes):
            content = scene.describe()
            nodes = _scene_nodes(content.viewpoints, content.primitives, folder, mitsuba)
            nodes["sensor"] = _camera(content.viewpoints.camera, film, paths, mitsuba)
            linear_HW3 = np.array(mitsuba.render(mitsuba.load_dict(nodes), seed=seed))
            images[index] = _squeeze(EXPOSURE * linear_HW3[..., :3], height, width)
    return images


def _mitsuba(device: str) -> Any:
    try:
        import mitsuba
    except ImportError:
        raise MissingDependencyError("mitsuba", "this renderer", "mitsuba") from None
    variant = "cuda_ad_rgb" if str(device).startswith("cuda") else "scalar_rgb"
    mitsuba.set_variant(variant)
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    return mitsuba


def _write_meshes(folder: Path) -> None:
    write_ply(ground_mesh(), folder / "ground.ply")
    for shape in SHAPES:
        write_ply(primitive_mesh(shape), folder / f"{shape}.ply")


def _scene_nodes(
    viewpoints: Viewpoints, primitives: Sequence[Primitive], folder: Path, mitsuba: Any
) -> MitsubaNode:
    nodes: MitsubaNode = {
        "type": "scene",
        # Only this integrator lets light through surfaces without a material: the lights.
        "integrator": {"type": "volpath", "max_depth": MAX_DEPTH},
        "ground": {
            "type": "ply",
            "filename": str(folder / "ground.ply"),
            "bsdf": {"type": "twosided", "bsdf": _diffuse((GROUND_ALBEDO,) * 3)},
        },
    }
    for light, position in zip(LIGHTS, viewpoints.lights, strict=True):
        nodes[light.name] = _light(light, position, light.edge, mitsuba)
    nearer = NEAR_SUN / SUN_DISTANCE
    nodes["sun"] = _light(
        SUN, [nearer * x for x in SUN.position], nearer * SUN.edge, mitsuba, nearer**2
    )
    for index, primitive in enumerate(primitives):
        nodes[f"primitive_{index}"] = _primitive(primitive, folder, mitsuba)
    return nodes


def _camera(
    position: Sequence[float], film: tuple[int, int], paths: int, mitsuba: Any
) -> MitsubaNode:
    height, width = film
    return {
        "type": "perspective",
        "fov_axis": "x",
        "fov": math.degrees(2 * math.atan(HALF_WIDTH)),
        "to_world": _look_at(position, mitsuba),
        # This sampler's noise is that of four times as many independent samples.
        "sampler": {"type": "multijitter", "sample_count": paths},
        "film": {
            "type": "hdrfilm",
            "height": height,
            "width": width,
            "rfilter": {"type": "box"},
            "pixel_format": "rgb",
        },
    }


def _light(
    light: Light, position: Sequence[float], edge: float, mitsuba: Any, share: float = 1.0
) -> MitsubaNode:
    """A square that shines at the origin and that light goes through."""
    radiance = share * light.watts / (math.pi * edge**2)
    return {
        "type": "rectangle",
        "to_world": _look_at(position, mitsuba) @ mitsuba.ScalarTransform4f().scale(edge / 2),
        "bsdf": {"type": "null"},
        "emitter": {
            "type": "area",
            "radiance": {"type": "rgb", "value": [radiance * color for color in light.color]},
        },
    }


def _primitive(primitive: Primitive, folder: Path, mitsuba: Any) -> MitsubaNode:
    """A unit shape, stretched, turned and moved."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(primitive.axes).T * np.array(primitive.half)
    matrix[:3, 3] = primitive.center
    bsdf = _metal(primitive) if primitive.metal else _rubber(primitive)
    return {
        "type": "ply",
        "filename": str(folder / f"{primitive.shape}.ply"),
        "to_world": mitsuba.ScalarTransform4f(matrix),
        "bsdf": {"type": "twosided", "bsdf": bsdf},
    }


def _rubber(primitive: Primitive) -> MitsubaNode:
    """Diffuse with a weak specular coat."""
    return {
        "type": "principled",
        "base_color": {"type": "rgb", "value": list(primitive.albedo)},
        "roughness": 0.6,
        "specular": 0.2,
    }


def _metal(primitive: Primitive) -> MitsubaNode:
    """A rough and a smooth GGX lobe, tinted."""

    def lobe(alpha: float) -> MitsubaNode:
        tint = {"type": "rgb", "value": list(primitive.albedo)}
        lobe = {"type": "roughconductor", "distribution": "ggx", "material": "none"}
        return {**lobe, "alpha": alpha, "specular_reflectance": tint}

    return {"type": "blendbsdf", "weight": 0.6, "rough": lobe(0.2), "smooth": lobe(SMOOTH_ALPHA)}


def _diffuse(albedo: Sequence[float]) -> MitsubaNode:
    return {"type": "diffuse", "reflectance": {"type": "rgb", "value": list(albedo)}}


def _look_at(position: Sequence[float], mitsuba: Any) -> Any:
    """The transform of something at ``position`` that looks at the origin without roll."""
    _, up, _ = view_axes(np.asarray(position, dtype=np.float64))
    return mitsuba.ScalarTransform4f().look_at(
        origin=list(position), target=[0, 0, 0], up=up.tolist()
    )


def _film_size(height: int, width: int) -> tuple[int, int]:
    """A 4:3 image at least three times as fine: Mitsuba's pixels are square.

    Those of a square image are averages of 3 x 4 whole ones.
    """
    unit = max(height, width)
    return 3 * unit, 4 * unit


def _squeeze(linear_HW3: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average into the pixels of the squeezed image; sRGB, uint8.

    Rarely a path is not finite: its pixel of the film is left out.
    """
    is_good_HW1 = np.isfinite(linear_HW3).all(-1, keepdims=True)
    weighted_HW4 = np.concatenate([np.where(is_good_HW1, linear_HW3, 0), is_good_HW1], -1)
    *channels, weight = (
        np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BOX))
        for channel in np.moveaxis(weighted_HW4.astype(np.float32), -1, 0)
    )
    return encode_srgb(np.stack(channels, -1) / np.maximum(weight, 1e-6)[..., None])


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light as sRGB levels, uint8 (IEC 61966-2-1)."""
    light = np.clip(linear, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)
