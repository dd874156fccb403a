"""How much light a surface sends to its viewer.

Rubber is diffuse with a weak sheen. Metal is two coloured GGX lobes, a dull and a sharp one, where
it shows lamps, and a mirror where it shows the rest. Light between objects and ground is a fit to
path-traced pictures, not a simulation.

Shapes: L lamps, R rays in S rows of N, H metal surfaces; a leading 3 holds x, y, z or red, green,
blue. Products of unit vectors are named after them: nl (normal, to lamp), nv (normal, to viewer),
lv.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kyvo.world.constants import LAMPS, SUN
from kyvo.world.render.geometry import dot
from kyvo.world.render.rays import Rays
from kyvo.world.render.scene_batch import Solids, Viewers

SHEEN_ALPHA = 0.35
SHEEN_FRESNEL = 0.012
DULL_ALPHA, DULL_WEIGHT = 0.2, 0.4
SHARP_ALPHA, SHARP_WEIGHT = 0.025, 0.6
BRIGHTEST_LOBE = 200.0

GROUND_BOUNCE = 0.20
"""Radiance over albedo that the pale ground sends straight up."""
CONTACT_SHADE = 0.35
"""How much of it is missing where an object sits on the ground, fading out at height 0.7."""
SOLID_BOUNCE = 0.213
"""Radiance over both albedos that a solid sends to a surface, if it fills that surface's view."""
GROUND_LOSS, SOLID_LOSS = 0.048, 0.153
"""Radiance over albedo that such a solid keeps from ground and from another solid."""


@dataclass(frozen=True)
class Surface:
    """What rays have met: points (lifted: just above the surface), unit vectors, material.

    ``ambient_R`` is the radiance over albedo of light from all around, see ``Setting``.
    """

    point_3R: Tensor
    lifted_3R: Tensor
    normal_3R: Tensor
    to_viewer_3R: Tensor
    albedo_3R: Tensor
    metal_R: Tensor
    ground_R: Tensor
    slot_R: Tensor
    ambient_R: Tensor


@dataclass(frozen=True)
class LampLight:
    """One point of each lamp as seen from each surface point.

    Attributes:
        direction_3LR: unit vectors to the lamp.
        distance_LR: metres.
        nl_LR: cosine between normal and direction, not below 0.
        arriving_LR: white irradiance on the surface (W / m^2), shadows not counted.
    """

    direction_3LR: Tensor
    distance_LR: Tensor
    nl_LR: Tensor
    arriving_LR: Tensor


@dataclass(frozen=True)
class _LampTable:
    """The constants of all lamps, the sun last."""

    edge_L1: Tensor
    power_L1: Tensor
    color_L31: Tensor


def lamp_light(viewers: Viewers, rays: Rays, surface: Surface) -> LampLight:
    """Return the light of the points of square lamps that ``rays.offsets_2LR`` choose."""
    lamps = rays.spread_viewers(viewers)
    table = _lamp_table(surface.point_3R.device)
    aside_LSN, above_LSN = rays.rows(rays.offsets_2LR * table.edge_L1)
    to_lamp = aside_LSN * lamps.right
    to_lamp += above_LSN * lamps.up
    to_lamp += lamps.positions
    to_lamp -= rays.rows(surface.point_3R)[:, None]
    squared_LSN = dot(to_lamp, to_lamp)
    distance_LSN = squared_LSN.sqrt()
    to_lamp /= distance_LSN
    leaving_LR = -dot(to_lamp, lamps.forward).clamp_max(0).flatten(1)
    direction_3LR = to_lamp.flatten(2)
    nl_LR = dot(direction_3LR, surface.normal_3R[:, None]).clamp_min(0)
    arriving_LR = table.power_L1 * leaving_LR * nl_LR / squared_LSN.flatten(1)
    return LampLight(direction_3LR, distance_LSN.flatten(1), nl_LR, arriving_LR)


def direct_light(surface: Surface, light: LampLight, lit_LR: Tensor) -> Tensor:
    """Return the radiance (3, R) that surfaces reflect straight from the lamps that are lit."""
    table = _lamp_table(lit_LR.device)
    nv_R = dot(surface.normal_3R, surface.to_viewer_3R)
    lv_LR = dot(light.direction_3LR, surface.to_viewer_3R[:, None])
    arriving_LR = light.arriving_LR * lit_LR
    white_LR = arriving_LR * ~surface.metal_R
    sheen_LR = white_LR * _sheen(light.nl_LR, nv_R, lv_LR)
    tinted_LR = white_LR * (1 / math.pi)
    metal_H = surface.metal_R.nonzero()[:, 0]
    lobes_LH = _metal_lobes(light.nl_LR[:, metal_H], nv_R[metal_H], lv_LR[:, metal_H])
    tinted_LR[:, metal_H] = arriving_LR[:, metal_H] * lobes_LH
    return surface.albedo_3R * _color_sum(table, tinted_LR) + _color_sum(table, sheen_LR)


def bounced_light(solids: Solids, rays: Rays, surface: Surface) -> Tensor:
    """Return the radiance (3, R) of light from ground, solids and all around: an empirical fit."""
    height_R = (surface.point_3R[2] / 0.7).clamp(0, 1)
    downward_R = 0.5 * (1 - surface.normal_3R[2]) * ~surface.ground_R
    contact_R = 1 - CONTACT_SHADE * (1 - height_R)
    around_R = GROUND_BOUNCE * downward_R * contact_R + surface.ambient_R
    cover_R, tint_3R = _neighbours(solids, rays, surface)
    lost_R = cover_R * torch.where(surface.ground_R, GROUND_LOSS, SOLID_LOSS)
    bounce_3R = SOLID_BOUNCE * tint_3R + (around_R - lost_R)
    return surface.albedo_3R * bounce_3R * ~surface.metal_R


def _neighbours(solids: Solids, rays: Rays, surface: Surface) -> tuple[Tensor, Tensor]:
    """Return how much of its light each surface gets from solids (R), and the same tinted (3, R).

    A solid counts as a ball of its surface area, seen whole. A convex solid never sees itself:
    its centre lies below its own surface.
    """
    points, normals = rays.rows(surface.point_3R), rays.rows(surface.normal_3R)
    num_slots, num_scenes = solids.area_KG.shape
    albedo_3GK = solids.albedo_3N.view(3, num_scenes, num_slots)
    cover = torch.zeros_like(points[0])
    tint = torch.zeros_like(points)
    for k in range(num_slots):
        to_center = rays.spread(solids.center_3KG[:, k]) - points
        squared = dot(to_center, to_center)
        rise = dot(to_center, normals).clamp_min_(0)
        share = rise.mul_(rays.spread(solids.area_KG[k])).div_(squared.sqrt().mul_(squared))
        share.clamp_max_(1)
        cover += share
        tint += share * rays.spread(albedo_3GK[:, :, k])
    return cover.flatten().clamp_max(1), tint.flatten(1)


def _sheen(nl_LR: Tensor, nv_R: Tensor, lv_LR: Tensor) -> Tensor:
    """Return the white reflectance of a rough clear coat, Schlick's Fresnel term included."""
    squared_R = (1 + lv_LR).clamp_min(0) / 2
    grazing = 1 - squared_R.sqrt().clamp_max(1)
    square = grazing * grazing
    fresnel = SHEEN_FRESNEL + (1 - SHEEN_FRESNEL) * (square * square * grazing)
    spread = _ggx_spread(nl_LR, nv_R, lv_LR, SHEEN_ALPHA)
    return spread * fresnel * 0.25 / torch.maximum(nl_LR, nv_R).clamp_min(0.1)


def _metal_lobes(nl_LH: Tensor, nv_H: Tensor, lv_LH: Tensor) -> Tensor:
    """Return the reflectance of metal, to be tinted."""
    nv_H = nv_H.clamp_min(0.05)
    dull = _ggx(nl_LH, nv_H, lv_LH, DULL_ALPHA) * DULL_WEIGHT
    return dull + _ggx(nl_LH, nv_H, lv_LH, SHARP_ALPHA) * SHARP_WEIGHT


def _ggx(nl: Tensor, nv: Tensor, lv: Tensor, alpha: float) -> Tensor:
    """Return GGX reflectance with the height-correlated Smith term (Heitz 2014), cut at a limit."""
    square = alpha * alpha
    shadowing = nl * (nv * nv * (1 - square) + square).sqrt()
    masking = nv * (nl * nl * (1 - square) + square).sqrt()
    geometry = 0.5 / (shadowing + masking).clamp_min(1e-4)
    return (_ggx_spread(nl, nv, lv, alpha) * geometry).clamp_max(BRIGHTEST_LOBE)


def _ggx_spread(nl: Tensor, nv: Tensor, lv: Tensor, alpha: float) -> Tensor:
    """Return GGX's density of microfacets along the half vector of lamp and viewer."""
    square = alpha * alpha
    nh_squared = (nl + nv) * (nl + nv) / (2 + 2 * lv).clamp_min(1e-6)
    falloff = nh_squared.clamp_max(1) * (square - 1) + 1
    return square / math.pi / (falloff * falloff)


def _color_sum(table: _LampTable, amount_LR: Tensor) -> Tensor:
    """Return the sum over lamps of colour times amount: (3, R), always in the same order."""
    terms = [
        color_31 * amount_R for color_31, amount_R in zip(table.color_L31, amount_LR, strict=True)
    ]
    return sum(terms[1:], terms[0])


@cache
def _lamp_table(device: torch.device) -> _LampTable:
    lamps = (*LAMPS, SUN)
    columns = [
        torch.tensor(values, device=device)[:, None]
        for values in (
            [lamp.edge for lamp in lamps],
            [lamp.watts / math.pi for lamp in lamps],
            [lamp.color for lamp in lamps],
        )
    ]
    edge_L1, power_L1, color_L13 = columns
    return _LampTable(edge_L1, power_L1, color_L13.transpose(1, 2))
