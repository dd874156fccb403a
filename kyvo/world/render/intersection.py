"""What rays hit: the nearest surface, and the primitives between a point and the lights.

A ray is tested against a primitive only if it enters the primitive's bounding sphere, so the exact
tests run on short lists of (primitive, ray) pairs.

Shapes: G scenes, K primitives per scene, L lights, R rays in S rows of N, P (primitive, ray)
pairs, H hits; a leading 3 holds x, y, z or red, green, blue.
"""

import torch
from torch import Tensor

from kyvo.world.constants import SHAPES
from kyvo.world.render.geometry import (
    CORE_POINTS,
    FAR,
    SPANS,
    backdrop_distance,
    backdrop_normal,
    dot,
    normalize,
)
from kyvo.world.render.rays import NO_PRIMITIVE, Rays
from kyvo.world.render.scene_batch import Environments, Primitives, SceneBatch
from kyvo.world.render.shading import LightSamples, Surface

NEAR = 1e-3
"""Metres; a hit closer than this is the surface that the ray has just left."""
LIFT = 2e-3
"""Metres by which shadow and mirror rays start above their surface."""


def nearest_primitive(primitives: Primitives, rays: Rays) -> tuple[Tensor, Tensor]:
    """Return the distance (R) and the index (R) of the first primitive on each ray.

    A ray that hits none gets FAR and NO_PRIMITIVE.
    """
    directions_31R = rays.directions_3R[:, None]
    _, k_P, ray_P = _near_pairs(primitives, rays, rays.origins_3R, directions_31R)
    num_primitives = primitives.center_3KG.shape[1]
    primitive_P = rays.scenes_R[ray_P] * num_primitives + k_P
    entry_P, exit_P = _pair_spans(
        primitives, primitive_P, rays.origins_3R[:, ray_P], rays.directions_3R[:, ray_P]
    )
    hit_P = (entry_P < exit_P) & (entry_P > NEAR) & (primitive_P != rays.source_R[ray_P])
    distance_KR = entry_P.new_full((num_primitives, len(rays.scenes_R)), FAR)
    distance_KR[k_P, ray_P] = torch.where(hit_P, entry_P, FAR)
    distance_R, k_R = distance_KR.min(0)
    primitive_R = rays.scenes_R * num_primitives + k_R
    return distance_R, torch.where(distance_R < FAR, primitive_R, NO_PRIMITIVE)


def find_surface(batch: SceneBatch, rays: Rays) -> tuple[Tensor, Surface]:
    """Return how far each ray goes (R; FAR: it leaves the world) and the surface it hits."""
    primitives = batch.primitives
    to_object_R, primitive_R = nearest_primitive(primitives, rays)
    to_ground_R = _ground_distance(batch.environments, rays)
    distance_R = torch.minimum(to_object_R, to_ground_R)
    point_3R = rays.origins_3R + distance_R * rays.directions_3R
    primitive_R = torch.where(to_object_R < to_ground_R, primitive_R, primitives.ground)
    ground_R = primitive_R == primitives.ground
    normal_3R = backdrop_normal(point_3R)
    hit_H = (~ground_R).nonzero()[:, 0]
    normal_3R[:, hit_H] = _object_normals(primitives, primitive_R[hit_H], point_3R[:, hit_H])
    albedo_3R = _ground_albedo(batch.environments, rays, point_3R)
    albedo_3R[:, hit_H] = primitives.albedo_3N.index_select(1, primitive_R[hit_H])
    surface = Surface(
        point_3R,
        point_3R + LIFT * normal_3R,
        normal_3R,
        -rays.directions_3R,
        albedo_3R,
        primitives.metal_M[primitive_R],
        ground_R,
        primitive_R,
        batch.environments.ambient_G[rays.scenes_R],
    )
    return distance_R, surface


def _ground_distance(environments: Environments, rays: Rays) -> Tensor:
    """Return the distances (R) to the ground, FAR where a ray hits none below the horizon."""
    distance_R = backdrop_distance(rays.origins_3R, rays.directions_3R)
    height_R = rays.origins_3R[2] + distance_R * rays.directions_3R[2]
    beyond_SN = rays.rows(height_R) > rays.spread(environments.horizon_G)
    return torch.where(beyond_SN.flatten(), FAR, distance_R)


def _ground_albedo(environments: Environments, rays: Rays, points_3R: Tensor) -> Tensor:
    """Return the albedo (3, R) of the ground's stripes."""
    stripe_SN = rays.rows(points_3R[0]) / rays.spread(environments.stripe_G)
    even_SN = stripe_SN.floor().remainder(2) == 0
    albedo_3SN = torch.where(
        even_SN, rays.spread(environments.even_3G), rays.spread(environments.odd_3G)
    )
    return albedo_3SN.flatten(1)


def visible_lights(
    primitives: Primitives, rays: Rays, surface: Surface, samples: LightSamples
) -> Tensor:
    """Return which lights (L, R) reach the surfaces that ``rays`` have hit: the shadow test.

    A light does not if it is behind the surface or another primitive is in between; a surface's
    own primitive is convex and never shades it.
    """
    visible_LR = samples.arriving_LR > 0
    light_P, k_P, ray_P = _near_pairs(
        primitives, rays, surface.lifted_3R, samples.direction_3LR, visible_LR
    )
    primitive_P = rays.scenes_R[ray_P] * primitives.center_3KG.shape[1] + k_P
    lane_P = light_P * len(rays.scenes_R) + ray_P
    entry_P, exit_P = _pair_spans(
        primitives,
        primitive_P,
        surface.lifted_3R.index_select(1, ray_P),
        samples.direction_3LR.flatten(1).index_select(1, lane_P),
    )
    before_light_P = entry_P < samples.distance_LR.flatten()[lane_P]
    ahead_P = (entry_P < exit_P) & (exit_P > NEAR)
    blocked_P = ahead_P & before_light_P & (primitive_P != surface.primitive_R[ray_P])
    visible_LR.view(-1)[lane_P[blocked_P]] = False
    return visible_LR


def _near_pairs(
    primitives: Primitives,
    rays: Rays,
    origins_3R: Tensor,
    directions_3LR: Tensor,
    wanted_LR: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return light (P), primitive k (P) and ray (P) where a line enters a bounding sphere.

    The lines start at ``origins_3R`` in the scenes of ``rays``, one along each of the directions.
    """
    to_center_3KSN = rays.spread(primitives.center_3KG) - rays.rows(origins_3R)[:, None]
    outside_KSN = dot(to_center_3KSN, to_center_3KSN) - rays.spread(primitives.squared_radius_KG)
    directions_3L1SN = rays.rows(directions_3LR)[:, :, None]
    along_LKSN = dot(to_center_3KSN[:, None], directions_3L1SN).clamp_min_(0)
    near_LKR = (along_LKSN.square_() > outside_KSN).flatten(2)
    if wanted_LR is not None:
        near_LKR &= wanted_LR[:, None]
    light_P, k_P, ray_P = near_LKR.nonzero(as_tuple=True)
    return light_P, k_P, ray_P


def _pair_spans(
    primitives: Primitives, primitive_P: Tensor, origins_3P: Tensor, directions_3P: Tensor
) -> tuple[Tensor, Tensor]:
    """Return entry and exit distances (P), see ``SPANS``; missed: NaN, or exit < entry."""
    center_3P, half_3P, axes_9P = primitives.placement_FN.index_select(1, primitive_P).split(
        (3, 3, 9)
    )
    origins_3P = _to_own_axes(origins_3P - center_3P, axes_9P) / half_3P
    directions_3P = _to_own_axes(directions_3P, axes_9P) / half_3P
    shape_P = primitives.shape_N[primitive_P]
    entry_P, exit_P = half_3P.new_empty(2, len(primitive_P))
    for code, name in enumerate(SHAPES):
        chosen = (shape_P == code).nonzero()[:, 0]
        entry_P[chosen], exit_P[chosen] = SPANS[name](
            origins_3P.index_select(1, chosen), directions_3P.index_select(1, chosen)
        )
    return entry_P, exit_P


def _object_normals(primitives: Primitives, primitive_H: Tensor, points_3H: Tensor) -> Tensor:
    """Return the unit normals (3, H) of primitives with rounded edges."""
    center_3H, half_3H, axes_9H = primitives.placement_FN.index_select(1, primitive_H).split(
        (3, 3, 9)
    )
    local_3H = _to_own_axes(points_3H - center_3H, axes_9H) / half_3H
    shape_H = primitives.shape_N[primitive_H]
    core_3H = torch.empty_like(local_3H)
    for code, name in enumerate(SHAPES):
        core_3H = torch.where(shape_H == code, CORE_POINTS[name](local_3H), core_3H)
    slope_3H = (local_3H - core_3H) / (half_3H / half_3H.amax(0))
    return _to_world_axes(normalize(slope_3H), axes_9H)


def _to_own_axes(vectors_3P: Tensor, axes_9P: Tensor) -> Tensor:
    """Return vectors (3, P) of the world as seen along a primitive's own axes."""
    return torch.stack([dot(axis_3P, vectors_3P) for axis_3P in axes_9P.split(3)])


def _to_world_axes(vectors_3P: Tensor, axes_9P: Tensor) -> Tensor:
    """Return vectors (3, P) along a primitive's own axes as the world sees them."""
    along_x, along_y, along_z = axes_9P.split(3)
    return vectors_3P[0] * along_x + vectors_3P[1] * along_y + vectors_3P[2] * along_z
