"""Path-traced pictures with Mitsuba 3: slower than the project's tracer, nearer to Blender's.

The optional package ``mitsuba`` renders the scene that the tracer reads: the same camera, lamps,
ground and solids. What the tracer only fits (light between surfaces) is simulated here.
"""

import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kyvo.errors import InputError, MissingDependencyError
from kyvo.world.camera import view_axes
from kyvo.world.constants import (
    BACKDROP_AXIS,
    BACKDROP_GROWTH,
    BACKDROP_HEIGHT,
    BACKDROP_OFFSET,
    BACKDROP_WALL,
    GROUND_ALBEDO,
    HALF_WIDTH,
    LAMPS,
    SUN,
    SUN_DISTANCE,
    Lamp,
)
from kyvo.world.stage import SceneReader, Solid, read_clevr_scene

SAMPLES_PER_PIXEL = 64
MAX_DEPTH = 6
"""Length of a light path, in surfaces."""
SHARP_ALPHA = 0.04
"""Metals' sharp lobe: smaller ones give fireflies."""
NEAR_SUN = 100.0
"""Metres: as far off as the sun need be; its size goes along."""
GROUND_REACH = (-60.0, BACKDROP_OFFSET + BACKDROP_WALL - 0.35)
"""Where the ground starts and, near its wall, ends along BACKDROP_AXIS (metres)."""

MitsubaNode = dict[str, Any]


def render_with_mitsuba(
    scenes: Sequence[dict[str, Any]],
    height: int,
    width: int,
    samples_per_pixel: int = SAMPLES_PER_PIXEL,
    device: str = "cpu",
    seed: int = 0,
    read: SceneReader = read_clevr_scene,
) -> np.ndarray:
    """Render scenes as ``kyvo.world.render`` does: uint8 (B, height, width, 3), sRGB.

    Two runs differ at the level of noise. ``device`` cpu uses Mitsuba's scalar variant, cuda its
    CUDA one.

    Raises:
        InputError: a scene is not understood, or a number is not positive.
        MissingDependencyError: Mitsuba is not installed.
    """
    if min(height, width, samples_per_pixel) < 1:
        raise InputError("render: height, width and samples_per_pixel: expected 1 or more.")
    mitsuba = _mitsuba(device)
    pictures = np.empty((len(scenes), height, width, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        ground = _write_ground(Path(folder))
        for index, scene in enumerate(scenes):
            name = f"scene {index} ({scene.get('image_filename', 'no image_filename')})"
            content = read(scene, name)
            nodes = _scene_nodes(content.viewpoints, content.solids, ground, mitsuba)
            film = _film_size(height, width)
            nodes["sensor"] = _camera(content.viewpoints[0], film, mitsuba)
            loaded = mitsuba.load_dict(nodes)
            linear_HW3 = np.array(mitsuba.render(loaded, spp=samples_per_pixel, seed=seed))
            pictures[index] = _squeeze(linear_HW3[..., :3], height, width)
    return pictures


def _mitsuba(device: str) -> Any:
    try:
        import mitsuba
    except ImportError:
        raise MissingDependencyError("mitsuba", "this renderer", "mitsuba") from None
    variant = "cuda_ad_rgb" if str(device).startswith("cuda") else "scalar_rgb"
    mitsuba.set_variant(variant)
    mitsuba.set_log_level(mitsuba.LogLevel.Error)
    return mitsuba


def _scene_nodes(
    viewpoints: Sequence[Sequence[float]], solids: Sequence[Solid], ground: Path, mitsuba: Any
) -> MitsubaNode:
    nodes: MitsubaNode = {
        "type": "scene",
        # Volumetric, because it alone lets light through surfaces without a material: the lamps.
        "integrator": {"type": "volpath", "max_depth": MAX_DEPTH},
        "ground": {
            "type": "ply",
            "filename": str(ground),
            "bsdf": {"type": "twosided", "bsdf": _diffuse((GROUND_ALBEDO,) * 3)},
        },
    }
    _, *lamps, sun = viewpoints
    for lamp, position in zip(LAMPS, lamps, strict=True):
        nodes[lamp.name] = _lamp(lamp, position, lamp.edge, mitsuba)
    nearer = NEAR_SUN / SUN_DISTANCE
    nodes["sun"] = _lamp(SUN, [nearer * x for x in sun], nearer * SUN.edge, mitsuba, nearer**2)
    for index, solid in enumerate(solids):
        for part, node in enumerate(_solid(solid, mitsuba)):
            nodes[f"solid_{index}_{part}"] = node
    return nodes


def _camera(position: Sequence[float], film: tuple[int, int], mitsuba: Any) -> MitsubaNode:
    height, width = film
    return {
        "type": "perspective",
        "fov_axis": "x",
        "fov": math.degrees(2 * math.atan(HALF_WIDTH)),
        "to_world": _look_at(position, mitsuba),
        "film": {
            "type": "hdrfilm",
            "height": height,
            "width": width,
            "rfilter": {"type": "box"},
            "pixel_format": "rgb",
        },
    }


def _lamp(
    lamp: Lamp, position: Sequence[float], edge: float, mitsuba: Any, share: float = 1.0
) -> MitsubaNode:
    """A square that shines at the origin and that light goes through."""
    radiance = share * lamp.watts / (math.pi * edge**2)
    return {
        "type": "rectangle",
        "to_world": _look_at(position, mitsuba) @ mitsuba.ScalarTransform4f().scale(edge / 2),
        "bsdf": {"type": "null"},
        "emitter": {
            "type": "area",
            "radiance": {"type": "rgb", "value": [radiance * color for color in lamp.color]},
        },
    }


def _solid(solid: Solid, mitsuba: Any) -> list[MitsubaNode]:
    """A unit shape, stretched, turned and moved; cylinders get their lids."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(solid.axes).T * np.array(solid.half)
    matrix[:3, 3] = solid.center
    place = mitsuba.ScalarTransform4f(matrix)
    transform = mitsuba.ScalarTransform4f
    bsdf = {"type": "twosided", "bsdf": _metal(solid) if solid.metal else _rubber(solid)}
    if solid.shape == "cube":
        return [{"type": "cube", "to_world": place, "bsdf": bsdf}]
    if solid.shape == "sphere":
        if max(solid.half) - min(solid.half) > 1e-6:
            raise InputError("mitsuba: a stretched sphere cannot be rendered. Use the own tracer.")
        return [{"type": "sphere", "to_world": place, "bsdf": bsdf}]
    body = {"type": "cylinder", "p0": [0, 0, -1], "p1": [0, 0, 1], "to_world": place, "bsdf": bsdf}
    lid = place @ transform().translate([0, 0, 1])
    base = place @ transform().translate([0, 0, -1]) @ transform().rotate([1, 0, 0], 180)
    lids = [{"type": "disk", "to_world": where, "bsdf": bsdf} for where in (lid, base)]
    return [body, *lids]


def _rubber(solid: Solid) -> MitsubaNode:
    """Diffuse with a weak sheen."""
    return {
        "type": "principled",
        "base_color": {"type": "rgb", "value": list(solid.albedo)},
        "roughness": 0.6,
        "specular": 0.2,
    }


def _metal(solid: Solid) -> MitsubaNode:
    """A dull and a sharp lobe of GGX, tinted."""

    def lobe(alpha: float) -> MitsubaNode:
        tint = {"type": "rgb", "value": list(solid.albedo)}
        lobe = {"type": "roughconductor", "distribution": "ggx", "material": "none"}
        return {**lobe, "alpha": alpha, "specular_reflectance": tint}

    return {"type": "blendbsdf", "weight": 0.6, "dull": lobe(0.2), "sharp": lobe(SHARP_ALPHA)}


def _diffuse(albedo: Sequence[float]) -> MitsubaNode:
    return {"type": "diffuse", "reflectance": {"type": "rgb", "value": list(albedo)}}


def _look_at(position: Sequence[float], mitsuba: Any) -> Any:
    """The transform of something at ``position`` that looks at the origin without roll."""
    _, up, _ = view_axes(np.asarray(position, dtype=np.float64))
    return mitsuba.ScalarTransform4f().look_at(
        origin=list(position), target=[0, 0, 0], up=up.tolist()
    )


def _write_ground(folder: Path) -> Path:
    """The curved backdrop as a mesh, finer where it rises (``constants``)."""
    start, end = GROUND_REACH
    # Dense towards the wall, where the height grows without bound.
    along_A = end - (end - start) * np.linspace(1, 0, 400) ** 3
    across_B = np.linspace(-80, 80, 9)
    u_A = along_A - BACKDROP_OFFSET
    height_A = BACKDROP_HEIGHT * np.exp(BACKDROP_GROWTH * u_A) / (1 - u_A / BACKDROP_WALL)
    axis_x, axis_y = BACKDROP_AXIS
    x_AB = along_A[:, None] * axis_x - across_B * axis_y
    y_AB = along_A[:, None] * axis_y + across_B * axis_x
    z_AB = np.broadcast_to(height_A[:, None], x_AB.shape)
    vertices = np.stack([x_AB, y_AB, z_AB], -1).reshape(-1, 3)
    corner = np.arange(len(along_A) * len(across_B)).reshape(len(along_A), -1)
    a, b, c, d = corner[:-1, :-1], corner[:-1, 1:], corner[1:, 1:], corner[1:, :-1]
    faces = np.concatenate([np.stack(f, -1).reshape(-1, 3) for f in ((a, b, c), (a, c, d))])
    lines = [
        "ply",
        "format ascii 1.0",
        f"element vertex {len(vertices)}",
        *(f"property float {name}" for name in "xyz"),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
        *(" ".join(f"{value:.7g}" for value in vertex) for vertex in vertices),
        *(f"3 {i} {j} {k}" for i, j, k in faces.tolist()),
    ]
    path = folder / "ground.ply"
    path.write_text("\n".join(lines) + "\n")
    return path


def _film_size(height: int, width: int) -> tuple[int, int]:
    """The smallest 4:3 picture that is at least as fine: Mitsuba's pixels are square."""
    unit = max(-(-height // 3), -(-width // 4))
    return 3 * unit, 4 * unit


def _squeeze(linear_HW3: np.ndarray, height: int, width: int) -> np.ndarray:
    """Average into the pixels of the squeezed picture; sRGB, uint8."""
    channels = [
        np.asarray(Image.fromarray(channel).resize((width, height), Image.Resampling.BOX))
        for channel in np.moveaxis(linear_HW3.astype(np.float32), -1, 0)
    ]
    return encode_srgb(np.stack(channels, -1))


def encode_srgb(linear: np.ndarray) -> np.ndarray:
    """Linear light as sRGB levels, uint8 (IEC 61966-2-1)."""
    light = np.clip(linear, 0, 1)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.round(255 * encoded).astype(np.uint8)
