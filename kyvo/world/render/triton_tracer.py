"""The tracer as one Triton kernel: a program follows all rays of a tile of pixels to their end.

A function here does what its namesake in ``intersection``, ``shading`` or ``tracer`` does, whose
docstrings hold; ``triton_geometry`` is ``geometry``. Where PyTorch gathers the rays that need work,
a block of rays branches: it tests a primitive only if one of its rays enters the bounding sphere,
and follows mirrors only if one has hit metal. A tile is a warp, so neighbours decide together.

A CLEVR image of 256 x 256 pixels with 4 samples takes 262,144 camera rays, 17,000 mirror rays and
1,036,000 shadow rays, and 0.44 GFLOP as PyTorch does it (counted by ``benchmarks/world.py``): at
67 TFLOP/s of float32 an H100 could draw at most 150,000 a second.

Shapes: G scenes, K primitives of the fullest one, L lights (the sun is the last one), A pixels of
the image, Q samples per pixel; C columns of a table. In kernels a vector is a tuple of three
blocks, ``primitive_index`` counts from the scene's first primitive, and a lane is one ray.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kyvo.world.constants import LIGHTS, SUN
from kyvo.world.render import intersection, rays, shading
from kyvo.world.render.rays import Frame
from kyvo.world.render.scene_batch import Environments, Primitives, SceneBatch, Viewers
from kyvo.world.render.triton_geometry import (
    CUBE,
    FAR,
    SPHERE,
    add,
    any_lane,
    axpy,
    backdrop_distance,
    backdrop_normal,
    clamp_max,
    cube_core,
    cube_span,
    cylinder_core,
    cylinder_span,
    dot,
    load_vector,
    multiply,
    normalize,
    ray_at,
    scale,
    select,
    sphere_span,
    subtract,
)

TILE = (4, 8)
"""Height and width of a program's pixels: 32 lanes, one warp."""

NEAR = tl.constexpr(intersection.NEAR)
LIFT = tl.constexpr(intersection.LIFT)
NO_PRIMITIVE = tl.constexpr(rays.NO_PRIMITIVE)
NUM_LIGHTS = tl.constexpr(len(LIGHTS) + 1)

ONE_OVER_PI = tl.constexpr(1 / math.pi)
SPECULAR_ALPHA = tl.constexpr(shading.SPECULAR_ALPHA)
SPECULAR_F0 = tl.constexpr(shading.SPECULAR_F0)
ROUGH_ALPHA = tl.constexpr(shading.ROUGH_ALPHA)
ROUGH_WEIGHT = tl.constexpr(shading.ROUGH_WEIGHT)
SMOOTH_ALPHA = tl.constexpr(shading.SMOOTH_ALPHA)
SMOOTH_WEIGHT = tl.constexpr(shading.SMOOTH_WEIGHT)
LOBE_CLAMP = tl.constexpr(shading.LOBE_CLAMP)
GROUND_BOUNCE = tl.constexpr(shading.GROUND_BOUNCE)
CONTACT_SHADE = tl.constexpr(shading.CONTACT_SHADE)
PRIMITIVE_BOUNCE = tl.constexpr(shading.PRIMITIVE_BOUNCE)
GROUND_LOSS = tl.constexpr(shading.GROUND_LOSS)
PRIMITIVE_LOSS = tl.constexpr(shading.PRIMITIVE_LOSS)

# Each constant is the column at which its field starts; the last one counts a row's columns.
POSITION, RIGHT, UP, FORWARD, CAMERA = (tl.constexpr(c) for c in (0, 3, 6, 9, 12))
EDGE, POWER, COLOR, LIGHT = (tl.constexpr(c) for c in (12, 13, 14, 17))
EVEN, ODD, SKY, STRIPE, HORIZON, AMBIENT, ENVIRONMENT = (
    tl.constexpr(c) for c in (0, 3, 6, 9, 10, 11, 12)
)
CENTER, TO_UNIT, SQUARED_RADIUS, AREA, ALBEDO, METAL, SHAPE, PRIMITIVE = (
    tl.constexpr(c) for c in (0, 3, 12, 13, 14, 17, 18, 19)
)


def trace_batch(
    batch: SceneBatch,
    frame: Frame,
    max_bounces: int,
    terminal_radiance: float,
    radiance_clamp: float,
    tile: tuple[int, int] = TILE,
) -> Tensor:
    """Return the linear radiance (3, G, A) of the images of a batch, on its device.

    Args:
        batch: the scenes; the kernel needs no memory per ray, so they may be many.
        frame: pixels, samples and noise.
        max_bounces: mirror reflections that are traced in a row.
        terminal_radiance: radiance that metals mirror after the last one.
        radiance_clamp: radiance at which a sample is cut.
        tile: height and width of a program's pixels, powers of two.
    """
    num_scenes = batch.cameras.positions.shape[1]
    height, width = frame.shape
    radiance_3GA = frame.x_QA.new_empty(3, num_scenes, frame.num_pixels)
    num_tiles = triton.cdiv(height, tile[0]) * triton.cdiv(width, tile[1])
    arguments = (
        radiance_3GA,
        _viewer_columns(batch.cameras).t().contiguous(),
        _light_rows(batch.lights),
        _environment_rows(batch.environments),
        _primitive_rows(batch.primitives),
        batch.primitives.squared_radius_KG.isfinite().sum(0, dtype=torch.int32),
        frame.x_QA,
        frame.y_QA,
        frame.offsets_2LQA,
        num_scenes,
        height,
        width,
        frame.num_samples,
        batch.primitives.squared_radius_KG.shape[0],
    )
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(radiance_3GA):
        _render_tile[(num_scenes * num_tiles,)](
            *arguments,
            max_bounces=max_bounces,
            terminal_radiance=terminal_radiance,
            radiance_clamp=radiance_clamp,
            tile_height=tile[0],
            tile_width=tile[1],
            num_warps=max(1, tile[0] * tile[1] // 32),
        )
    return radiance_3GA


def _viewer_columns(viewers: Viewers) -> Tensor:
    return torch.cat([viewers.positions, viewers.right, viewers.up, viewers.forward])


def _light_rows(lights: Viewers) -> Tensor:
    """Return the table (G, L, C) of lights."""
    columns_12LG = _viewer_columns(lights)
    # A light gives a surface that faces it at distance d an irradiance of watts / (pi d^2).
    facts_5L = columns_12LG.new_tensor(
        [(light.edge, light.watts / math.pi, *light.color) for light in (*LIGHTS, SUN)]
    ).t()
    facts_5LG = facts_5L[..., None].expand(-1, -1, columns_12LG.shape[2])
    return torch.cat([columns_12LG, facts_5LG]).permute(2, 1, 0).contiguous()


def _environment_rows(environments: Environments) -> Tensor:
    """Return the table (G, C) of what is around."""
    numbers_3G = torch.stack(
        [environments.stripe_G, environments.horizon_G, environments.ambient_G]
    )
    colors_9G = torch.cat([environments.even_3G, environments.odd_3G, environments.sky_3G])
    return torch.cat([colors_9G, numbers_3G]).t().contiguous()


def _primitive_rows(primitives: Primitives) -> Tensor:
    """Return the table (N, C) of primitives.

    TO_UNIT is the matrix that turns the world into the axes of the unit shape: the primitive's own
    axes over its half extents.
    """
    center_3N, half_3N, axes_9N = primitives.placement_FN.split((3, 3, 9))
    to_unit_33N = axes_9N.unflatten(0, (3, 3)) / half_3N[:, None]
    numbers_2N = (
        torch.stack([primitives.squared_radius_KG, primitives.area_KG]).transpose(1, 2).flatten(1)
    )
    codes_2N = torch.stack([primitives.metal_M[:-1], primitives.shape_N]).to(center_3N)
    columns = (center_3N, to_unit_33N.flatten(0, 1), numbers_2N, primitives.albedo_3N, codes_2N)
    return torch.cat(columns).t().contiguous()


@triton.jit(do_not_specialize=["num_scenes", "height", "width", "num_samples", "num_primitives"])
def _render_tile(
    out,
    cameras,
    lights,
    environments,
    primitives,
    counts,
    x_plane,
    y_plane,
    offsets,
    num_scenes,
    height,
    width,
    num_samples,
    num_primitives,
    max_bounces: tl.constexpr,
    terminal_radiance: tl.constexpr,
    radiance_clamp: tl.constexpr,
    tile_height: tl.constexpr,
    tile_width: tl.constexpr,
):
    """The radiance of one tile of one scene: the mean over its samples."""
    tiles_across = tl.cdiv(width, tile_width)
    num_tiles = tiles_across * tl.cdiv(height, tile_height)
    # Addresses may pass 2^31 where images are huge, or tiny and very many.
    g, tile = (tl.program_id(0) // num_tiles).to(tl.int64), tl.program_id(0) % num_tiles
    num_pixels = (height * width).to(tl.int64)
    lane = tl.arange(0, tile_height * tile_width)
    row = tile // tiles_across * tile_height + lane // tile_width
    column = tile % tiles_across * tile_width + lane % tile_width
    inside = (row < height) & (column < width)
    pixel = tl.where(inside, row * width + column, 0)

    camera = cameras + g * CAMERA
    scene = (
        lights + g * (NUM_LIGHTS * LIGHT),
        environments + g * ENVIRONMENT,
        primitives + g * num_primitives * PRIMITIVE,
        tl.load(counts + g),
    )
    zero = tl.zeros((tile_height * tile_width,), tl.float32)
    total = (zero, zero, zero)
    for sample in range(num_samples):
        place = sample * num_pixels + pixel
        origin, direction = _camera_ray(camera, tl.load(x_plane + place), tl.load(y_plane + place))
        noise = (offsets + place, num_samples * num_pixels)
        seen = _follow(scene, noise, origin, direction, inside, max_bounces, terminal_radiance)
        total = add(total, clamp_max(seen, radiance_clamp))
    for channel in tl.static_range(3):
        place = (channel * num_scenes + g) * num_pixels + pixel
        tl.store(out + place, total[channel] / num_samples, mask=inside)


@triton.jit
def _camera_ray(camera, x, y):
    ahead = axpy(x, load_vector(camera + RIGHT), load_vector(camera + FORWARD))
    direction = normalize(axpy(y, load_vector(camera + UP), ahead))
    return ray_at(load_vector(camera + POSITION), tl.zeros_like(x), direction), direction


@triton.jit
def _follow(
    scene,
    noise,
    origin,
    direction,
    active,
    max_bounces: tl.constexpr,
    terminal_radiance: tl.constexpr,
):
    """The radiance that camera rays see over so many bounces: ``_trace`` as a loop."""
    zero, one = tl.zeros_like(direction[0]), tl.full(direction[0].shape, 1.0, tl.float32)
    source = tl.full(zero.shape, NO_PRIMITIVE, tl.int32)
    radiance, gain = (zero, zero, zero), (one, one, one)
    for _ in range(max_bounces + 1):
        if any_lane(active):
            seen, point, normal, albedo, is_metal, primitive_index = _trace(
                scene, noise, origin, direction, source, active
            )
            radiance = select(active, add(radiance, multiply(gain, seen)), radiance)
            active = active & is_metal
            gain = select(active, multiply(gain, albedo), (zero, zero, zero))
            origin, source = ray_at(point, LIFT, normal), primitive_index
            direction = axpy(-2 * dot(direction, normal), normal, direction)
    return axpy(terminal_radiance, gain, radiance)


@triton.jit
def _trace(scene, noise, origin, direction, source, active):
    """What rays see without mirrors, and where they end; ``is_metal`` is false in the sky."""
    lights, environment, primitives, count = scene
    distance, point, normal, albedo, is_metal, primitive_index = _find_surface(
        environment, primitives, count, origin, direction, source, active
    )
    hit = active & (distance < FAR)
    tinted, white = _direct_light(
        lights, primitives, count, noise, point, normal, direction, is_metal, primitive_index, hit
    )
    bounced = _bounced_light(environment, primitives, count, point, normal, primitive_index)
    tinted = select(is_metal, tinted, add(tinted, bounced))
    seen = add(multiply(albedo, tinted), white)
    seen = select(hit, seen, load_vector(environment + SKY))
    return seen, point, normal, albedo, is_metal & hit, primitive_index


@triton.jit
def _find_surface(environment, primitives, count, origin, direction, source, active):
    """The ground's primitive index is NO_PRIMITIVE."""
    to_object, primitive_index = _nearest_primitive(
        primitives, count, origin, direction, source, active
    )
    to_ground = _ground_distance(environment, origin, direction)
    distance = tl.minimum(to_object, to_ground)
    point = ray_at(origin, distance, direction)
    on_object = to_object < to_ground
    primitive_index = tl.where(on_object, primitive_index, NO_PRIMITIVE)
    normal = backdrop_normal(point)
    albedo = _ground_albedo(environment, point)
    is_metal = tl.zeros_like(on_object)
    if any_lane(on_object):
        primitive = primitives + tl.where(on_object, primitive_index, 0) * PRIMITIVE
        normal = select(on_object, _object_normal(primitive, point), normal)
        albedo = select(on_object, load_vector(primitive + ALBEDO), albedo)
        is_metal = on_object & (tl.load(primitive + METAL) > 0)
    return distance, point, normal, albedo, is_metal, primitive_index


@triton.jit
def _nearest_primitive(primitives, count, origin, direction, source, active):
    distance = tl.full(direction[0].shape, FAR, tl.float32)
    primitive_index = tl.full(distance.shape, NO_PRIMITIVE, tl.int32)
    for k in range(count):
        primitive = primitives + k * PRIMITIVE
        near = active & (source != k) & _comes_near(primitive, origin, direction)
        if any_lane(near):
            entry, beyond = _span(primitive, origin, direction)
            hit = near & (entry < beyond) & (entry > NEAR) & (entry < distance)
            distance = tl.where(hit, entry, distance)
            primitive_index = tl.where(hit, k, primitive_index)
    return distance, primitive_index


@triton.jit
def _is_visible(primitives, count, origin, direction, distance, primitive_index, visible):
    """Of the rays that are ``visible``, those that reach their light."""
    for k in range(count):
        primitive = primitives + k * PRIMITIVE
        near = visible & (primitive_index != k) & _comes_near(primitive, origin, direction)
        if any_lane(near):
            entry, beyond = _span(primitive, origin, direction)
            ahead = (entry < beyond) & (beyond > NEAR)
            visible = visible & ~(near & ahead & (entry < distance))
    return visible


@triton.jit
def _comes_near(primitive, origin, direction):
    """Whether rays enter the bounding sphere of one primitive."""
    to_center = subtract(load_vector(primitive + CENTER), origin)
    outside = dot(to_center, to_center) - tl.load(primitive + SQUARED_RADIUS)
    along = tl.maximum(dot(to_center, direction), 0.0)
    return along * along > outside


@triton.jit
def _span(primitive, origin, direction):
    """Entry into and exit from one primitive; missed: exit < entry."""
    shape = tl.load(primitive + SHAPE)
    origin = _to_unit(primitive, subtract(origin, load_vector(primitive + CENTER)))
    direction = _to_unit(primitive, direction)
    if shape == CUBE:
        entry, beyond = cube_span(origin, direction)
    elif shape == SPHERE:
        entry, beyond = sphere_span(origin, direction)
    else:
        entry, beyond = cylinder_span(origin, direction)
    return entry, beyond


@triton.jit
def _object_normal(primitive, point):
    """``primitive`` is a block of addresses: each lane has hit its own."""
    local = _to_unit(primitive, subtract(point, load_vector(primitive + CENTER)))
    shape = tl.load(primitive + SHAPE)
    core = select(shape == CUBE, cube_core(local), cylinder_core(local))
    slope = subtract(local, select(shape == SPHERE, scale(0.0, core), core))
    normal = scale(slope[0], load_vector(primitive + TO_UNIT))
    normal = axpy(slope[1], load_vector(primitive + TO_UNIT + 3), normal)
    return normalize(axpy(slope[2], load_vector(primitive + TO_UNIT + 6), normal))


@triton.jit
def _to_unit(primitive, vector):
    """Vectors of the world along the primitive's own axes, in half extents."""
    return (
        dot(load_vector(primitive + TO_UNIT), vector),
        dot(load_vector(primitive + TO_UNIT + 3), vector),
        dot(load_vector(primitive + TO_UNIT + 6), vector),
    )


@triton.jit
def _ground_distance(environment, origin, direction):
    distance = backdrop_distance(origin, direction)
    beyond = origin[2] + distance * direction[2] > tl.load(environment + HORIZON)
    return tl.where(beyond, FAR, distance)


@triton.jit
def _ground_albedo(environment, point):
    stripe = tl.floor(point[0] / tl.load(environment + STRIPE))
    is_even = stripe == 2 * tl.floor(0.5 * stripe)
    return select(is_even, load_vector(environment + EVEN), load_vector(environment + ODD))


@triton.jit
def _direct_light(
    lights, primitives, count, noise, point, normal, direction, is_metal, primitive_index, hit
):
    """Radiance over albedo, and the white radiance of the specular term."""
    lifted = ray_at(point, LIFT, normal)
    nv = -dot(normal, direction)
    zero = tl.zeros_like(nv)
    tinted, white = (zero, zero, zero), (zero, zero, zero)
    for index in range(NUM_LIGHTS):
        light = lights + index * LIGHT
        to_light, distance, nl, arriving = _sample_light(light, noise, index, point, normal)
        visible = hit & (arriving > 0)
        if any_lane(visible):
            visible = _is_visible(
                primitives, count, lifted, to_light, distance, primitive_index, visible
            )
            arriving = tl.where(visible, arriving, 0.0)
            lv = -dot(to_light, direction)
            color = load_vector(light + COLOR)
            tinted = axpy(arriving * _tinted_part(is_metal, nl, nv, lv), color, tinted)
            specular = tl.where(is_metal, 0.0, _dielectric_specular(nl, nv, lv))
            white = axpy(arriving * specular, color, white)
    return tinted, white


@triton.jit
def _sample_light(light, noise, index, point, normal):
    """The light of one point (u, v) of one light, shadows not counted."""
    offsets, stride = noise
    edge = tl.load(light + EDGE)
    u = tl.load(offsets + index * stride) * edge
    v = tl.load(offsets + (NUM_LIGHTS + index) * stride) * edge
    to_light = axpy(v, load_vector(light + UP), scale(u, load_vector(light + RIGHT)))
    to_light = subtract(add(to_light, load_vector(light + POSITION)), point)
    squared = dot(to_light, to_light)
    distance = tl.sqrt(squared)
    to_light = scale(1 / distance, to_light)
    leaving = tl.maximum(-dot(to_light, load_vector(light + FORWARD)), 0.0)
    nl = tl.maximum(dot(to_light, normal), 0.0)
    return to_light, distance, nl, tl.load(light + POWER) * leaving * nl / squared


@triton.jit
def _bounced_light(environment, primitives, count, point, normal, primitive_index):
    """Radiance over albedo; metals get none of it."""
    on_ground = primitive_index == NO_PRIMITIVE
    height = tl.minimum(tl.maximum(point[2] / 0.7, 0.0), 1.0)
    downward = tl.where(on_ground, 0.0, 0.5 * (1 - normal[2]))
    contact = 1 - (1 - height) * CONTACT_SHADE
    around = downward * GROUND_BOUNCE * contact + tl.load(environment + AMBIENT)
    occlusion, tint = _neighbours(primitives, count, point, normal)
    rest = around - occlusion * tl.where(on_ground, GROUND_LOSS, PRIMITIVE_LOSS)
    return add(scale(PRIMITIVE_BOUNCE, tint), (rest, rest, rest))


@triton.jit
def _neighbours(primitives, count, point, normal):
    occlusion = tl.zeros_like(point[0])
    tint = (occlusion, occlusion, occlusion)
    for k in range(count):
        primitive = primitives + k * PRIMITIVE
        to_center = subtract(load_vector(primitive + CENTER), point)
        squared = dot(to_center, to_center)
        rise = tl.maximum(dot(to_center, normal), 0.0)
        share = rise * tl.load(primitive + AREA) / (tl.sqrt(squared) * squared)
        share = tl.minimum(share, 1.0)
        occlusion += share
        tint = axpy(share, load_vector(primitive + ALBEDO), tint)
    return tl.minimum(occlusion, 1.0), tint


@triton.jit
def _tinted_part(is_metal, nl, nv, lv):
    """Reflectance over albedo: even, or metal's lobes."""
    part = tl.full(nl.shape, ONE_OVER_PI, tl.float32)
    if any_lane(is_metal):
        part = tl.where(is_metal, _metal_lobes(nl, nv, lv), part)
    return part


@triton.jit
def _dielectric_specular(nl, nv, lv):
    squared = tl.maximum(1 + lv, 0.0) / 2
    grazing = 1 - tl.minimum(tl.sqrt(squared), 1.0)
    square = grazing * grazing
    fresnel = square * square * grazing * (1 - SPECULAR_F0) + SPECULAR_F0
    spread = _ggx_spread(nl, nv, lv, SPECULAR_ALPHA)
    return spread * fresnel * 0.25 / tl.maximum(tl.maximum(nl, nv), 0.1)


@triton.jit
def _metal_lobes(nl, nv, lv):
    nv = tl.maximum(nv, 0.05)
    rough = _ggx(nl, nv, lv, ROUGH_ALPHA) * ROUGH_WEIGHT
    return rough + _ggx(nl, nv, lv, SMOOTH_ALPHA) * SMOOTH_WEIGHT


@triton.jit
def _ggx(nl, nv, lv, alpha: tl.constexpr):
    square: tl.constexpr = alpha * alpha
    shadowing = nl * tl.sqrt(nv * nv * (1 - square) + square)
    masking = nv * tl.sqrt(nl * nl * (1 - square) + square)
    geometry = 0.5 / tl.maximum(shadowing + masking, 1e-4)
    return tl.minimum(_ggx_spread(nl, nv, lv, alpha) * geometry, LOBE_CLAMP)


@triton.jit
def _ggx_spread(nl, nv, lv, alpha: tl.constexpr):
    square: tl.constexpr = alpha * alpha
    nh_squared = (nl + nv) * (nl + nv) / tl.maximum(2 + 2 * lv, 1e-6)
    falloff = tl.minimum(nh_squared, 1.0) * (square - 1) + 1
    return tl.fdiv(square * ONE_OVER_PI, falloff * falloff)
