"""The tracer as one Triton kernel: a program follows all rays of a tile of pixels to their end.

A function here does what its namesake in ``casting``, ``shading`` or ``tracer`` does, whose
docstrings hold; ``triton_geometry`` is ``geometry``. Where PyTorch gathers the rays that need work,
a block of rays branches: it tests a solid only if one of its rays enters the bounding sphere, and
follows mirrors only if one has met metal. A tile is a warp, so neighbours decide together.

A CLEVR picture of 256 x 256 pixels with 4 samples takes 262,144 camera rays, 17,000 mirror rays and
1,036,000 shadow rays, and 0.44 GFLOP as PyTorch does it (counted by ``benchmarks/world.py``): at
67 TFLOP/s of float32 an H100 could draw at most 150,000 a second.

Shapes: G scenes, K slots of the fullest one, L lamps (the sun is the last one), A pixels of the
picture, Q samples per pixel; C columns of a table. In kernels a vector is a tuple of three blocks,
``slot`` counts from the scene's first solid, and a lane is one ray.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from kyvo.world.constants import LAMPS, SUN
from kyvo.world.render import intersection as casting
from kyvo.world.render import rays, shading
from kyvo.world.render.rays import Frame
from kyvo.world.render.scene_batch import Solids, Stage, Surroundings, Viewers
from kyvo.world.render.triton_geometry import (
    CUBE,
    FAR,
    SPHERE,
    add,
    at_most,
    backdrop_distance,
    backdrop_normal,
    cube_core,
    cube_span,
    cylinder_core,
    cylinder_span,
    dot,
    go,
    load_vector,
    multiply,
    normalize,
    scale,
    select,
    some,
    sphere_span,
    subtract,
)

TILE = (4, 8)
"""Height and width of a program's pixels: 32 lanes, one warp."""

NEAR = tl.constexpr(casting.NEAR)
LIFT = tl.constexpr(casting.LIFT)
NO_OBJECT = tl.constexpr(rays.NO_OBJECT)
NUM_LAMPS = tl.constexpr(len(LAMPS) + 1)

ONE_OVER_PI = tl.constexpr(1 / math.pi)
SHEEN_ALPHA = tl.constexpr(shading.SHEEN_ALPHA)
SHEEN_FRESNEL = tl.constexpr(shading.SHEEN_FRESNEL)
DULL_ALPHA = tl.constexpr(shading.DULL_ALPHA)
DULL_WEIGHT = tl.constexpr(shading.DULL_WEIGHT)
SHARP_ALPHA = tl.constexpr(shading.SHARP_ALPHA)
SHARP_WEIGHT = tl.constexpr(shading.SHARP_WEIGHT)
BRIGHTEST_LOBE = tl.constexpr(shading.BRIGHTEST_LOBE)
GROUND_BOUNCE = tl.constexpr(shading.GROUND_BOUNCE)
CONTACT_SHADE = tl.constexpr(shading.CONTACT_SHADE)
SOLID_BOUNCE = tl.constexpr(shading.SOLID_BOUNCE)
GROUND_LOSS = tl.constexpr(shading.GROUND_LOSS)
SOLID_LOSS = tl.constexpr(shading.SOLID_LOSS)

# Columns of the tables: where a field starts, and last how many columns a row has.
POSITION, RIGHT, UP, FORWARD, CAMERA = (tl.constexpr(c) for c in (0, 3, 6, 9, 12))
EDGE, POWER, COLOR, LAMP = (tl.constexpr(c) for c in (12, 13, 14, 17))
EVEN, ODD, SKY, STRIPE, HORIZON, AMBIENT, SETTING = (
    tl.constexpr(c) for c in (0, 3, 6, 9, 10, 11, 12)
)
CENTER, TO_UNIT, REACH, AREA, ALBEDO, METAL, SHAPE, SOLID = (
    tl.constexpr(c) for c in (0, 3, 12, 13, 14, 17, 18, 19)
)


def trace_stage(
    stage: Stage,
    frame: Frame,
    mirrors: int,
    mirror_tint: float,
    brightest: float,
    tile: tuple[int, int] = TILE,
) -> Tensor:
    """Return the linear radiance (3, G, A) of the pictures of a stage, on its device.

    Args:
        stage: the scenes; the kernel needs no memory per ray, so they may be many.
        frame: pixels, samples and noise.
        mirrors: metals are traced this many times in a row.
        mirror_tint: what deeper ones show, as a share of their albedo.
        brightest: radiance at which a sample is cut.
        tile: height and width of a program's pixels, powers of two.
    """
    num_scenes = stage.cameras.positions.shape[1]
    height, width = frame.shape
    radiance_3GA = frame.x_QA.new_empty(3, num_scenes, frame.num_pixels)
    num_tiles = triton.cdiv(height, tile[0]) * triton.cdiv(width, tile[1])
    arguments = (
        radiance_3GA,
        _viewer_columns(stage.cameras).t().contiguous(),
        _lamp_rows(stage.lamps),
        _setting_rows(stage.surroundings),
        _solid_rows(stage.solids),
        stage.solids.reach_KG.isfinite().sum(0, dtype=torch.int32),
        frame.x_QA,
        frame.y_QA,
        frame.offsets_2LQA,
        num_scenes,
        height,
        width,
        frame.num_samples,
        stage.solids.reach_KG.shape[0],
    )
    # Triton launches on the current device, which need not be the tensors'.
    with torch.cuda.device_of(radiance_3GA):
        _render_tile[(num_scenes * num_tiles,)](
            *arguments,
            mirrors=mirrors,
            mirror_tint=mirror_tint,
            brightest=brightest,
            tile_height=tile[0],
            tile_width=tile[1],
            num_warps=max(1, tile[0] * tile[1] // 32),
        )
    return radiance_3GA


def _viewer_columns(viewers: Viewers) -> Tensor:
    return torch.cat([viewers.positions, viewers.right, viewers.up, viewers.forward])


def _lamp_rows(lamps: Viewers) -> Tensor:
    """Return the table (G, L, C) of lamps."""
    columns_12LG = _viewer_columns(lamps)
    # A lamp gives a surface that faces it at distance d an irradiance of watts / (pi d^2).
    facts_5L = columns_12LG.new_tensor(
        [(lamp.edge, lamp.watts / math.pi, *lamp.color) for lamp in (*LAMPS, SUN)]
    ).t()
    facts_5LG = facts_5L[..., None].expand(-1, -1, columns_12LG.shape[2])
    return torch.cat([columns_12LG, facts_5LG]).permute(2, 1, 0).contiguous()


def _setting_rows(surroundings: Surroundings) -> Tensor:
    """Return the table (G, C) of what is around."""
    numbers_3G = torch.stack(
        [surroundings.stripe_G, surroundings.horizon_G, surroundings.ambient_G]
    )
    colors_9G = torch.cat([surroundings.even_3G, surroundings.odd_3G, surroundings.sky_3G])
    return torch.cat([colors_9G, numbers_3G]).t().contiguous()


def _solid_rows(solids: Solids) -> Tensor:
    """Return the table (N, C) of solids.

    TO_UNIT is the matrix that turns the world into the axes of the unit shape: the solid's own
    axes over its half extents.
    """
    center_3N, half_3N, axes_9N = solids.placement_FN.split((3, 3, 9))
    to_unit_33N = axes_9N.unflatten(0, (3, 3)) / half_3N[:, None]
    numbers_2N = torch.stack([solids.reach_KG, solids.area_KG]).transpose(1, 2).flatten(1)
    codes_2N = torch.stack([solids.metal_M[:-1], solids.shape_N]).to(center_3N)
    columns = (center_3N, to_unit_33N.flatten(0, 1), numbers_2N, solids.albedo_3N, codes_2N)
    return torch.cat(columns).t().contiguous()


@triton.jit(do_not_specialize=["num_scenes", "height", "width", "num_samples", "num_slots"])
def _render_tile(
    out,
    cameras,
    lamps,
    settings,
    solids,
    counts,
    x_plane,
    y_plane,
    offsets,
    num_scenes,
    height,
    width,
    num_samples,
    num_slots,
    mirrors: tl.constexpr,
    mirror_tint: tl.constexpr,
    brightest: tl.constexpr,
    tile_height: tl.constexpr,
    tile_width: tl.constexpr,
):
    """The radiance of one tile of one scene: the mean over its samples."""
    tiles_across = tl.cdiv(width, tile_width)
    num_tiles = tiles_across * tl.cdiv(height, tile_height)
    # Addresses may pass 2^31 where pictures are huge, or tiny and very many.
    g, tile = (tl.program_id(0) // num_tiles).to(tl.int64), tl.program_id(0) % num_tiles
    num_pixels = (height * width).to(tl.int64)
    lane = tl.arange(0, tile_height * tile_width)
    row = tile // tiles_across * tile_height + lane // tile_width
    column = tile % tiles_across * tile_width + lane % tile_width
    inside = (row < height) & (column < width)
    pixel = tl.where(inside, row * width + column, 0)

    camera = cameras + g * CAMERA
    scene = (
        lamps + g * (NUM_LAMPS * LAMP),
        settings + g * SETTING,
        solids + g * num_slots * SOLID,
        tl.load(counts + g),
    )
    zero = tl.zeros((tile_height * tile_width,), tl.float32)
    total = (zero, zero, zero)
    for sample in range(num_samples):
        place = sample * num_pixels + pixel
        origin, direction = _camera_ray(camera, tl.load(x_plane + place), tl.load(y_plane + place))
        noise = (offsets + place, num_samples * num_pixels)
        seen = _follow(scene, noise, origin, direction, inside, mirrors, mirror_tint)
        total = add(total, at_most(seen, brightest))
    for channel in tl.static_range(3):
        place = (channel * num_scenes + g) * num_pixels + pixel
        tl.store(out + place, total[channel] / num_samples, mask=inside)


@triton.jit
def _camera_ray(camera, x, y):
    ahead = go(load_vector(camera + FORWARD), x, load_vector(camera + RIGHT))
    direction = normalize(go(ahead, y, load_vector(camera + UP)))
    return go(load_vector(camera + POSITION), tl.zeros_like(x), direction), direction


@triton.jit
def _follow(scene, noise, origin, direction, looking, mirrors: tl.constexpr, tint: tl.constexpr):
    """The radiance that camera rays see through so many mirrors: ``_trace`` as a loop."""
    zero, one = tl.zeros_like(direction[0]), tl.full(direction[0].shape, 1.0, tl.float32)
    left = tl.full(zero.shape, NO_OBJECT, tl.int32)
    radiance, gain = (zero, zero, zero), (one, one, one)
    for _ in range(mirrors + 1):
        if some(looking):
            seen, point, normal, albedo, is_metal, slot = _trace(
                scene, noise, origin, direction, left, looking
            )
            radiance = select(looking, add(radiance, multiply(gain, seen)), radiance)
            looking = looking & is_metal
            gain = select(looking, multiply(gain, albedo), (zero, zero, zero))
            origin, left = go(point, LIFT, normal), slot
            direction = go(direction, -2 * dot(direction, normal), normal)
    return go(radiance, tint, gain)


@triton.jit
def _trace(scene, noise, origin, direction, left, looking):
    """What rays see without mirrors, and where they end; ``is_metal`` is false in the sky."""
    lamps, setting, solids, count = scene
    distance, point, normal, albedo, is_metal, slot = _find_surface(
        setting, solids, count, origin, direction, left, looking
    )
    hit = looking & (distance < FAR)
    tinted, white = _direct_light(
        lamps, solids, count, noise, point, normal, direction, is_metal, slot, hit
    )
    bounced = _bounced_light(setting, solids, count, point, normal, slot)
    tinted = select(is_metal, tinted, add(tinted, bounced))
    seen = add(multiply(albedo, tinted), white)
    seen = select(hit, seen, load_vector(setting + SKY))
    return seen, point, normal, albedo, is_metal & hit, slot


@triton.jit
def _find_surface(setting, solids, count, origin, direction, left, looking):
    """The ground's slot is NO_OBJECT."""
    to_object, slot = _nearest_object(solids, count, origin, direction, left, looking)
    to_ground = _ground_distance(setting, origin, direction)
    distance = tl.minimum(to_object, to_ground)
    point = go(origin, distance, direction)
    on_object = to_object < to_ground
    slot = tl.where(on_object, slot, NO_OBJECT)
    normal = backdrop_normal(point)
    albedo = _ground_albedo(setting, point)
    is_metal = tl.zeros_like(on_object)
    if some(on_object):
        solid = solids + tl.where(on_object, slot, 0) * SOLID
        normal = select(on_object, _object_normal(solid, point), normal)
        albedo = select(on_object, load_vector(solid + ALBEDO), albedo)
        is_metal = on_object & (tl.load(solid + METAL) > 0)
    return distance, point, normal, albedo, is_metal, slot


@triton.jit
def _nearest_object(solids, count, origin, direction, left, looking):
    distance = tl.full(direction[0].shape, FAR, tl.float32)
    slot = tl.full(distance.shape, NO_OBJECT, tl.int32)
    for k in range(count):
        solid = solids + k * SOLID
        near = looking & (left != k) & _comes_near(solid, origin, direction)
        if some(near):
            entry, beyond = _span(solid, origin, direction)
            hit = near & (entry < beyond) & (entry > NEAR) & (entry < distance)
            distance = tl.where(hit, entry, distance)
            slot = tl.where(hit, k, slot)
    return distance, slot


@triton.jit
def _is_lit(solids, count, origin, direction, distance, slot, lit):
    """Of the rays that are ``lit``, those that reach their lamp."""
    for k in range(count):
        solid = solids + k * SOLID
        near = lit & (slot != k) & _comes_near(solid, origin, direction)
        if some(near):
            entry, beyond = _span(solid, origin, direction)
            ahead = (entry < beyond) & (beyond > NEAR)
            lit = lit & ~(near & ahead & (entry < distance))
    return lit


@triton.jit
def _comes_near(solid, origin, direction):
    """Whether rays enter the bounding sphere of one solid."""
    to_center = subtract(load_vector(solid + CENTER), origin)
    outside = dot(to_center, to_center) - tl.load(solid + REACH)
    along = tl.maximum(dot(to_center, direction), 0.0)
    return along * along > outside


@triton.jit
def _span(solid, origin, direction):
    """Entry into and exit from one solid; missed: exit < entry."""
    shape = tl.load(solid + SHAPE)
    origin = _to_unit(solid, subtract(origin, load_vector(solid + CENTER)))
    direction = _to_unit(solid, direction)
    if shape == CUBE:
        entry, beyond = cube_span(origin, direction)
    elif shape == SPHERE:
        entry, beyond = sphere_span(origin, direction)
    else:
        entry, beyond = cylinder_span(origin, direction)
    return entry, beyond


@triton.jit
def _object_normal(solid, point):
    """``solid`` is a block of addresses: each lane has met its own."""
    local = _to_unit(solid, subtract(point, load_vector(solid + CENTER)))
    shape = tl.load(solid + SHAPE)
    core = select(shape == CUBE, cube_core(local), cylinder_core(local))
    slope = subtract(local, select(shape == SPHERE, scale(0.0, core), core))
    normal = scale(slope[0], load_vector(solid + TO_UNIT))
    normal = go(normal, slope[1], load_vector(solid + TO_UNIT + 3))
    return normalize(go(normal, slope[2], load_vector(solid + TO_UNIT + 6)))


@triton.jit
def _to_unit(solid, vector):
    """Vectors of the world along the solid's own axes, in half extents."""
    return (
        dot(load_vector(solid + TO_UNIT), vector),
        dot(load_vector(solid + TO_UNIT + 3), vector),
        dot(load_vector(solid + TO_UNIT + 6), vector),
    )


@triton.jit
def _ground_distance(setting, origin, direction):
    distance = backdrop_distance(origin, direction)
    beyond = origin[2] + distance * direction[2] > tl.load(setting + HORIZON)
    return tl.where(beyond, FAR, distance)


@triton.jit
def _ground_albedo(setting, point):
    stripe = tl.floor(point[0] / tl.load(setting + STRIPE))
    is_even = stripe == 2 * tl.floor(0.5 * stripe)
    return select(is_even, load_vector(setting + EVEN), load_vector(setting + ODD))


@triton.jit
def _direct_light(lamps, solids, count, noise, point, normal, direction, is_metal, slot, hit):
    """Radiance over albedo, and the white radiance of the sheen."""
    lifted = go(point, LIFT, normal)
    nv = -dot(normal, direction)
    zero = tl.zeros_like(nv)
    tinted, white = (zero, zero, zero), (zero, zero, zero)
    for index in range(NUM_LAMPS):
        lamp = lamps + index * LAMP
        to_lamp, distance, nl, arriving = _lamp_light(lamp, noise, index, point, normal)
        lit = hit & (arriving > 0)
        if some(lit):
            lit = _is_lit(solids, count, lifted, to_lamp, distance, slot, lit)
            arriving = tl.where(lit, arriving, 0.0)
            lv = -dot(to_lamp, direction)
            color = load_vector(lamp + COLOR)
            tinted = go(tinted, arriving * _tinted_part(is_metal, nl, nv, lv), color)
            sheen = tl.where(is_metal, 0.0, _sheen(nl, nv, lv))
            white = go(white, arriving * sheen, color)
    return tinted, white


@triton.jit
def _lamp_light(lamp, noise, index, point, normal):
    """The light of one point of one lamp, shadows not counted."""
    offsets, stride = noise
    edge = tl.load(lamp + EDGE)
    aside = tl.load(offsets + index * stride) * edge
    above = tl.load(offsets + (NUM_LAMPS + index) * stride) * edge
    to_lamp = go(scale(aside, load_vector(lamp + RIGHT)), above, load_vector(lamp + UP))
    to_lamp = subtract(add(to_lamp, load_vector(lamp + POSITION)), point)
    squared = dot(to_lamp, to_lamp)
    distance = tl.sqrt(squared)
    to_lamp = scale(1 / distance, to_lamp)
    leaving = tl.maximum(-dot(to_lamp, load_vector(lamp + FORWARD)), 0.0)
    nl = tl.maximum(dot(to_lamp, normal), 0.0)
    return to_lamp, distance, nl, tl.load(lamp + POWER) * leaving * nl / squared


@triton.jit
def _bounced_light(setting, solids, count, point, normal, slot):
    """Radiance over albedo; metals get none of it."""
    on_ground = slot == NO_OBJECT
    height = tl.minimum(tl.maximum(point[2] / 0.7, 0.0), 1.0)
    downward = tl.where(on_ground, 0.0, 0.5 * (1 - normal[2]))
    contact = 1 - (1 - height) * CONTACT_SHADE
    around = downward * GROUND_BOUNCE * contact + tl.load(setting + AMBIENT)
    cover, tint = _neighbours(solids, count, point, normal)
    rest = around - cover * tl.where(on_ground, GROUND_LOSS, SOLID_LOSS)
    return add(scale(SOLID_BOUNCE, tint), (rest, rest, rest))


@triton.jit
def _neighbours(solids, count, point, normal):
    cover = tl.zeros_like(point[0])
    tint = (cover, cover, cover)
    for k in range(count):
        solid = solids + k * SOLID
        to_center = subtract(load_vector(solid + CENTER), point)
        squared = dot(to_center, to_center)
        rise = tl.maximum(dot(to_center, normal), 0.0)
        share = rise * tl.load(solid + AREA) / (tl.sqrt(squared) * squared)
        share = tl.minimum(share, 1.0)
        cover += share
        tint = go(tint, share, load_vector(solid + ALBEDO))
    return tl.minimum(cover, 1.0), tint


@triton.jit
def _tinted_part(is_metal, nl, nv, lv):
    """Reflectance over albedo: even, or metal's lobes."""
    part = tl.full(nl.shape, ONE_OVER_PI, tl.float32)
    if some(is_metal):
        part = tl.where(is_metal, _metal_lobes(nl, nv, lv), part)
    return part


@triton.jit
def _sheen(nl, nv, lv):
    squared = tl.maximum(1 + lv, 0.0) / 2
    grazing = 1 - tl.minimum(tl.sqrt(squared), 1.0)
    square = grazing * grazing
    fresnel = square * square * grazing * (1 - SHEEN_FRESNEL) + SHEEN_FRESNEL
    spread = _ggx_spread(nl, nv, lv, SHEEN_ALPHA)
    return spread * fresnel * 0.25 / tl.maximum(tl.maximum(nl, nv), 0.1)


@triton.jit
def _metal_lobes(nl, nv, lv):
    nv = tl.maximum(nv, 0.05)
    dull = _ggx(nl, nv, lv, DULL_ALPHA) * DULL_WEIGHT
    return dull + _ggx(nl, nv, lv, SHARP_ALPHA) * SHARP_WEIGHT


@triton.jit
def _ggx(nl, nv, lv, alpha: tl.constexpr):
    square: tl.constexpr = alpha * alpha
    shadowing = nl * tl.sqrt(nv * nv * (1 - square) + square)
    masking = nv * tl.sqrt(nl * nl * (1 - square) + square)
    geometry = 0.5 / tl.maximum(shadowing + masking, 1e-4)
    return tl.minimum(_ggx_spread(nl, nv, lv, alpha) * geometry, BRIGHTEST_LOBE)


@triton.jit
def _ggx_spread(nl, nv, lv, alpha: tl.constexpr):
    square: tl.constexpr = alpha * alpha
    nh_squared = (nl + nv) * (nl + nv) / tl.maximum(2 + 2 * lv, 1e-6)
    falloff = tl.minimum(nh_squared, 1.0) * (square - 1) + 1
    return tl.fdiv(square * ONE_OVER_PI, falloff * falloff)
