"""How much light a surface sends to its viewer.

Rubber is diffuse with a weak dielectric specular term. Metal is two coloured GGX lobes, a rough and
a smooth one, where it shows lights, and a mirror where it shows the rest. Light between objects and
ground is a fit to path-traced images, not a simulation.

Shapes: L lights, R rays in S rows of N, H metal surfaces; a leading 3 holds x, y, z or red, green,
blue. Products of unit vectors are named after them: nl (normal, to light), nv (normal, to viewer),
lv.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kyvo.world.constants import LIGHTS, SUN
from kyvo.world.render.geometry import dot
from kyvo.world.render.rays import Rays
from kyvo.world.render.scene_batch import Primitives, Viewers

SPECULAR_ALPHA, SPECULAR_F0 = 0.35, 0.012
"""Roughness of rubber's specular term, and its reflectance along the normal."""
ROUGH_ALPHA, ROUGH_WEIGHT = 0.2, 0.4
SMOOTH_ALPHA, SMOOTH_WEIGHT = 0.025, 0.6
LOBE_CLAMP = 200.0
"""Reflectance at which a lobe is cut."""

GROUND_BOUNCE = 0.20
"""Radiance over albedo that the pale ground sends straight up."""
CONTACT_SHADE = 0.35
"""How much of it is missing where an object sits on the ground, fading out at height 0.7."""
PRIMITIVE_BOUNCE = 0.213
"""Radiance over both albedos that a primitive sends to a surface whose view it fills."""
GROUND_LOSS, PRIMITIVE_LOSS = 0.048, 0.153
"""Radiance over albedo that such a primitive keeps from ground and from another primitive."""


@dataclass(frozen=True)
class Surface:
    """What rays have hit: points (lifted: just above the surface), unit vectors, material.

    ``ambient_R`` is the radiance over albedo of light from all around, see ``Environment``.
    """

    point_3R: Tensor
    lifted_3R: Tensor
    normal_3R: Tensor
    to_viewer_3R: Tensor
    albedo_3R: Tensor
    metal_R: Tensor
    ground_R: Tensor
    primitive_R: Tensor
    ambient_R: Tensor


@dataclass(frozen=True)
class LightSamples:
    """One point of each light as seen from each surface point.

    Attributes:
        direction_3LR: unit vectors to the light.
        distance_LR: metres.
        nl_LR: cosine between normal and direction, not below 0.
        arriving_LR: white irradiance on the surface (W / m^2), shadows not counted.
    """

    direction_3LR: Tensor
    distance_LR: Tensor
    nl_LR: Tensor
    arriving_LR: Tensor


@dataclass(frozen=True)
class _LightTable:
    """The constants of all lights, the sun last."""

    edge_L1: Tensor
    power_L1: Tensor
    color_L31: Tensor


def sample_lights(viewers: Viewers, rays: Rays, surface: Surface) -> LightSamples:
    """Return the light of the points (u, v) of square lights that ``rays.offsets_2LR`` choose."""
    lights = rays.spread_viewers(viewers)
    table = _light_table(surface.point_3R.device)
    u_LSN, v_LSN = rays.rows(rays.offsets_2LR * table.edge_L1)
    to_light = u_LSN * lights.right
    to_light += v_LSN * lights.up
    to_light += lights.positions
    to_light -= rays.rows(surface.point_3R)[:, None]
    squared_LSN = dot(to_light, to_light)
    distance_LSN = squared_LSN.sqrt()
    to_light /= distance_LSN
    leaving_LR = -dot(to_light, lights.forward).clamp_max(0).flatten(1)
    direction_3LR = to_light.flatten(2)
    nl_LR = dot(direction_3LR, surface.normal_3R[:, None]).clamp_min(0)
    arriving_LR = table.power_L1 * leaving_LR * nl_LR / squared_LSN.flatten(1)
    return LightSamples(direction_3LR, distance_LSN.flatten(1), nl_LR, arriving_LR)


def direct_light(surface: Surface, samples: LightSamples, visible_LR: Tensor) -> Tensor:
    """Return the radiance (3, R) that surfaces reflect straight from the visible lights."""
    table = _light_table(visible_LR.device)
    nv_R = dot(surface.normal_3R, surface.to_viewer_3R)
    lv_LR = dot(samples.direction_3LR, surface.to_viewer_3R[:, None])
    arriving_LR = samples.arriving_LR * visible_LR
    white_LR = arriving_LR * ~surface.metal_R
    specular_LR = white_LR * _dielectric_specular(samples.nl_LR, nv_R, lv_LR)
    tinted_LR = white_LR * (1 / math.pi)
    metal_H = surface.metal_R.nonzero()[:, 0]
    lobes_LH = _metal_lobes(samples.nl_LR[:, metal_H], nv_R[metal_H], lv_LR[:, metal_H])
    tinted_LR[:, metal_H] = arriving_LR[:, metal_H] * lobes_LH
    return surface.albedo_3R * _color_sum(table, tinted_LR) + _color_sum(table, specular_LR)


def bounced_light(primitives: Primitives, rays: Rays, surface: Surface) -> Tensor:
    """Return the radiance (3, R) of light from ground, primitives and all around: a fit."""
    height_R = (surface.point_3R[2] / 0.7).clamp(0, 1)
    downward_R = 0.5 * (1 - surface.normal_3R[2]) * ~surface.ground_R
    contact_R = 1 - CONTACT_SHADE * (1 - height_R)
    around_R = GROUND_BOUNCE * downward_R * contact_R + surface.ambient_R
    occlusion_R, tint_3R = _neighbours(primitives, rays, surface)
    lost_R = occlusion_R * torch.where(surface.ground_R, GROUND_LOSS, PRIMITIVE_LOSS)
    bounce_3R = PRIMITIVE_BOUNCE * tint_3R + (around_R - lost_R)
    return surface.albedo_3R * bounce_3R * ~surface.metal_R


def _neighbours(primitives: Primitives, rays: Rays, surface: Surface) -> tuple[Tensor, Tensor]:
    """Return the occlusion of each surface by primitives (R), and the same tinted (3, R).

    A primitive counts as a ball of its surface area, seen whole. A convex primitive never sees
    itself: its centre is below its own surface.
    """
    points, normals = rays.rows(surface.point_3R), rays.rows(surface.normal_3R)
    num_primitives, num_scenes = primitives.area_KG.shape
    albedo_3GK = primitives.albedo_3N.view(3, num_scenes, num_primitives)
    occlusion = torch.zeros_like(points[0])
    tint = torch.zeros_like(points)
    for k in range(num_primitives):
        to_center = rays.spread(primitives.center_3KG[:, k]) - points
        squared = dot(to_center, to_center)
        rise = dot(to_center, normals).clamp_min_(0)
        share = rise.mul_(rays.spread(primitives.area_KG[k])).div_(squared.sqrt().mul_(squared))
        share.clamp_max_(1)
        occlusion += share
        tint += share * rays.spread(albedo_3GK[:, :, k])
    return occlusion.flatten().clamp_max(1), tint.flatten(1)


def _dielectric_specular(nl_LR: Tensor, nv_R: Tensor, lv_LR: Tensor) -> Tensor:
    """Return the white reflectance of a rough clear coat, Schlick's Fresnel term included."""
    squared_R = (1 + lv_LR).clamp_min(0) / 2
    grazing = 1 - squared_R.sqrt().clamp_max(1)
    square = grazing * grazing
    fresnel = SPECULAR_F0 + (1 - SPECULAR_F0) * (square * square * grazing)
    spread = _ggx_spread(nl_LR, nv_R, lv_LR, SPECULAR_ALPHA)
    return spread * fresnel * 0.25 / torch.maximum(nl_LR, nv_R).clamp_min(0.1)


def _metal_lobes(nl_LH: Tensor, nv_H: Tensor, lv_LH: Tensor) -> Tensor:
    """Return the reflectance of metal, to be tinted."""
    nv_H = nv_H.clamp_min(0.05)
    rough = _ggx(nl_LH, nv_H, lv_LH, ROUGH_ALPHA) * ROUGH_WEIGHT
    return rough + _ggx(nl_LH, nv_H, lv_LH, SMOOTH_ALPHA) * SMOOTH_WEIGHT


def _ggx(nl: Tensor, nv: Tensor, lv: Tensor, alpha: float) -> Tensor:
    """Return GGX reflectance with the height-correlated Smith term (Heitz 2014), cut at a limit."""
    square = alpha * alpha
    shadowing = nl * (nv * nv * (1 - square) + square).sqrt()
    masking = nv * (nl * nl * (1 - square) + square).sqrt()
    geometry = 0.5 / (shadowing + masking).clamp_min(1e-4)
    return (_ggx_spread(nl, nv, lv, alpha) * geometry).clamp_max(LOBE_CLAMP)


def _ggx_spread(nl: Tensor, nv: Tensor, lv: Tensor, alpha: float) -> Tensor:
    """Return GGX's density of microfacets along the half vector of light and viewer."""
    square = alpha * alpha
    nh_squared = (nl + nv) * (nl + nv) / (2 + 2 * lv).clamp_min(1e-6)
    falloff = nh_squared.clamp_max(1) * (square - 1) + 1
    return square / math.pi / (falloff * falloff)


def _color_sum(table: _LightTable, amount_LR: Tensor) -> Tensor:
    """Return the sum over lights of colour times amount: (3, R), always in the same order."""
    terms = [
        color_31 * amount_R for color_31, amount_R in zip(table.color_L31, amount_LR, strict=True)
    ]
    return sum(terms[1:], terms[0])


@cache
def _light_table(device: torch.device) -> _LightTable:
    lights = (*LIGHTS, SUN)
    columns = [
        torch.tensor(values, device=device)[:, None]
        for values in (
            [light.edge for light in lights],
            [light.watts / math.pi for light in lights],
            [light.color for light in lights],
        )
    ]
    edge_L1, power_L1, color_L13 = columns
    return _LightTable(edge_L1, power_L1, color_L13.transpose(1, 2))
