"""Which objects of many scenes show enough of themselves, in few rays.

An object is tested with rays through the pixels of the box around it alone, and with none if it is
surely visible: it is large enough, inside the image, and nothing comes near it. The verdicts are
those of ``tracer.visible_shares``, whose frame and intersections these are.

Shapes: G scenes, K primitives of the fullest scene, U objects that are tested, R rays; a leading 3
holds x, y, z or right, up, forward.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kyvo.world.constants import ASPECT, HALF_WIDTH
from kyvo.world.render.geometry import dot, normalize
from kyvo.world.render.intersection import nearest_primitive
from kyvo.world.render.rays import NO_PRIMITIVE, Frame, Rays
from kyvo.world.render.scene_batch import Primitives, SceneBatch, Viewers
from kyvo.world.render.tracer import VISIBILITY_FRAME

_BOXES = {"cpu": 256, "cuda": 1 << 14}
"""Objects that are tested together: their rays fit the caches, or fill the GPU."""
_MARGIN = 1e-3
"""Share by which bounds are widened, against rounding."""
_STEEPEST = 1.5
"""Angles off the axis end here (radians): far outside the image, and their tangent is finite."""


@dataclass(frozen=True)
class _Boxes:
    """Pixels around objects.

    Attributes:
        scene_U: the object's scene.
        primitives_KU: all primitives of the scene (0..K): the object's own, then those that may
            hide part of it, then the rest.
        num_primitives_U: how many come before the rest.
        rows_2U, columns_2U: first row and column, and the ends, which are not included.
        is_first_U: whether it is the most doubtful object of its scene. These are tested first:
            most scenes that fail do so by them, and need no more rays.
    """

    scene_U: Tensor
    primitives_KU: Tensor
    num_primitives_U: Tensor
    rows_2U: Tensor
    columns_2U: Tensor
    is_first_U: Tensor

    def chosen(self, which: Tensor) -> "_Boxes":
        """Return some of the boxes, with no more primitives than they need."""
        num_primitives_U = self.num_primitives_U[which]
        return _Boxes(
            self.scene_U[which],
            self.primitives_KU[: int(num_primitives_U.max()), which],
            num_primitives_U,
            self.rows_2U[:, which],
            self.columns_2U[:, which],
            self.is_first_U[which],
        )


@torch.no_grad()
def shows_enough(batch: SceneBatch, least_share: float) -> Tensor:
    """Return of each scene (G) whether its image shows at least this share of every object.

    Each primitive is an object of its own; padding, where a scene has fewer than K, does not
    count.
    """
    frame = _frame(batch.primitives.center_3KG.device)
    shares = (torch.arange(frame.num_pixels + 1) / frame.num_pixels).double()
    least = int(torch.searchsorted(shares, least_share))
    seen_3KG = _seen(batch.cameras, batch.primitives.center_3KG)
    boxes = _boxes(batch, seen_3KG, _least_pixels(batch, seen_3KG), least)
    shown_G = torch.ones_like(batch.cameras.positions[0], dtype=torch.bool)
    size = _BOXES.get(shown_G.device.type, _BOXES["cpu"])
    for part in (boxes.is_first_U, ~boxes.is_first_U):
        chosen_U = (part & shown_G[boxes.scene_U]).nonzero()[:, 0]
        # Objects with as many others around them go together.
        chosen_U = chosen_U[boxes.num_primitives_U[chosen_U].argsort()]
        for start in range(0, len(chosen_U), size):
            some = boxes.chosen(chosen_U[start : start + size])
            shown_G[some.scene_U[_count(batch, frame, some) < least]] = False
    return shown_G


@cache
def _frame(device: torch.device) -> Frame:
    return Frame(*VISIBILITY_FRAME, 1, 0, device)


def _boxes(batch: SceneBatch, seen_3KG: Tensor, bound_KG: Tensor, least: int) -> _Boxes:
    """Return the pixels around all objects that are not surely visible.

    Args:
        bound_KG: how many pixels each object surely shows.
        least: how many are enough.
    """
    is_primitive_KG = batch.primitives.squared_radius_KG.isfinite()
    sure_KG = bound_KG >= least
    is_first_KG = torch.zeros_like(sure_KG)
    doubt_KG = torch.where(is_primitive_KG & ~sure_KG, bound_KG, math.inf)
    is_first_KG.scatter_(0, doubt_KG.argmin(0, keepdim=True), True)
    radius_KG = batch.primitives.squared_radius_KG.clamp_min(0).sqrt() * (1 + _MARGIN)
    low_2KG, high_2KG = _image_bounds(seen_3KG, radius_KG)
    k_U, scene_U = (is_primitive_KG & ~sure_KG).nonzero(as_tuple=True)
    low_2U, high_2U = low_2KG[:, k_U, scene_U], high_2KG[:, k_U, scene_U]
    # A primitive that begins behind the end of this one hides nothing of it.
    away_KG = dot(seen_3KG, seen_3KG).sqrt()
    end_U = (away_KG + radius_KG)[k_U, scene_U]
    is_near_KU = is_primitive_KG[:, scene_U] & ((away_KG - radius_KG)[:, scene_U] < end_U)
    is_near_KU &= (
        (low_2KG[..., scene_U] < high_2U[:, None]) & (high_2KG[..., scene_U] > low_2U[:, None])
    ).all(0)
    rank_KU = is_near_KU.long()
    rank_KU[k_U, torch.arange(len(k_U), device=k_U.device)] = 2
    primitives_KU = rank_KU.argsort(0, descending=True)
    ends = seen_3KG.new_tensor(VISIBILITY_FRAME[::-1])[:, None]
    first_2U = low_2U.floor().clamp_min(0).minimum(ends).long()
    last_2U = high_2U.ceil().clamp_min(0).minimum(ends).long().maximum(first_2U)
    columns_2U, rows_2U = torch.stack([first_2U, last_2U], 1)
    num_near_U, is_first_U = (rank_KU > 0).sum(0), is_first_KG[k_U, scene_U]
    return _Boxes(scene_U, primitives_KU, num_near_U, rows_2U, columns_2U, is_first_U)


def _least_pixels(batch: SceneBatch, seen_3KG: Tensor) -> Tensor:
    """Return how many pixels (K, G) each object shows at least.

    In the image the ball inside a primitive covers at least a disc around its centre, and the ball
    around another at most one; the line between the two that touches the other's disc cuts off
    more of the first than is hidden. What is left is convex, so it has more pixels than its part
    half a pixel's diagonal away from its rim has area.
    """
    height, width = VISIBILITY_FRAME
    squared_radius_KG = batch.primitives.squared_radius_KG
    half_KG = batch.primitives.placement_FN[3:6].amin(0).view(-1, len(squared_radius_KG)).t()
    away_KG = dot(seen_3KG, seen_3KG).sqrt().clamp_min(1e-6)
    depth_KG, scale = seen_3KG[2], width / 2 / HALF_WIDTH
    place_2KG = seen_3KG[:2] / depth_KG * scale
    # The law of sines: at most that much is between the centre and the rim, and at least.
    disc_KG = half_KG * (1 - _MARGIN) / depth_KG * scale - math.sqrt(0.5)
    radius_KG = squared_radius_KG.clamp_min(0).sqrt() * (1 + _MARGIN)
    cone_KG = torch.asin((radius_KG / away_KG).clamp_max(1))
    tilt_KG = torch.acos((depth_KG / away_KG).clamp(-1, 1))
    steep_KG = tilt_KG + cone_KG
    rim_KG = (steep_KG.clamp_max(_STEEPEST).tan() - tilt_KG.tan()) * scale + math.sqrt(0.5)
    rim_KG = torch.where(steep_KG < _STEEPEST, rim_KG, math.inf)
    # Beyond the image's rims, which are lines as well, nothing is seen.
    frame_211 = place_2KG.new_tensor([width / 2, height / 2])[:, None, None]
    hidden_KG = torch.zeros_like(disc_KG)
    for line_KG in torch.cat([place_2KG - frame_211, -place_2KG - frame_211]) + math.sqrt(0.5):
        hidden_KG = hidden_KG + _cut(disc_KG, line_KG)
    for shift in range(1, len(squared_radius_KG)):
        order = torch.arange(len(squared_radius_KG), device=squared_radius_KG.device).roll(shift)
        gap_KG = torch.hypot(*(place_2KG - place_2KG[:, order]))
        is_before_KG = (away_KG - radius_KG)[order] < away_KG + radius_KG
        is_before_KG &= squared_radius_KG[order].isfinite()
        line_KG = torch.where(is_before_KG, rim_KG[order] - gap_KG, -math.inf)
        hidden_KG = hidden_KG + _cut(disc_KG, line_KG)
    whole_KG = math.pi * disc_KG.square()
    return torch.where((disc_KG > 0) & (steep_KG < _STEEPEST), whole_KG - hidden_KG, 0)


def _cut(disc_KG: Tensor, line_KG: Tensor) -> Tensor:
    """Return the area (K, G) of a disc before a line, which is so far behind its centre."""
    share_KG = (line_KG / disc_KG.clamp_min(1e-6)).clamp(-1, 1)
    half_KG = share_KG.asin() + share_KG * (1 - share_KG * share_KG).sqrt() + math.pi / 2
    return disc_KG.square() * half_KG


def _seen(cameras: Viewers, points_3KG: Tensor) -> Tensor:
    """Return points along the axes of the cameras: right, up, forward (metres)."""
    offset_3KG = points_3KG - cameras.positions[:, None]
    axes = (cameras.right, cameras.up, cameras.forward)
    return torch.stack([dot(axis_3G[:, None], offset_3KG) for axis_3G in axes])


def _image_bounds(seen_3KG: Tensor, radius_KG: Tensor) -> tuple[Tensor, Tensor]:
    """Return least and greatest column and row (2, K, G) of balls, half a pixel widened."""
    height, width = VISIBILITY_FRAME
    across_2KG = torch.stack([seen_3KG[0], -seen_3KG[1]])
    away_2KG = torch.hypot(across_2KG, seen_3KG[2])
    half_2KG = torch.asin((radius_KG / away_2KG.clamp_min(1e-6)).clamp_max(1))
    middle_2KG = torch.atan2(across_2KG, seen_3KG[2].expand_as(across_2KG))
    scale_211 = seen_3KG.new_tensor([width / 2, height / 2 * ASPECT])[:, None, None] / HALF_WIDTH
    center_211 = seen_3KG.new_tensor([width / 2, height / 2])[:, None, None]
    low, high = (
        (middle_2KG + side * half_2KG).clamp(-_STEEPEST, _STEEPEST).tan() * scale_211 + center_211
        for side in (-1, 1)
    )
    return low - 0.5, high + 0.5


def _count(batch: SceneBatch, frame: Frame, boxes: _Boxes) -> Tensor:
    """Return how many pixels (U) of each box show its object."""
    (top_U, bottom_U), (left_U, right_U) = boxes.rows_2U, boxes.columns_2U
    num_columns_U = right_U - left_U
    num_rays_U = (bottom_U - top_U) * num_columns_U
    box_R = torch.repeat_interleave(num_rays_U)
    # Pixels are numbered across the frame: those of a box come row after row.
    before_U, width = num_rays_U.cumsum(0) - num_rays_U, frame.shape[1]
    facts_3U = torch.stack([before_U, num_columns_U, top_U * width + left_U])
    before_R, columns_R, first_R = facts_3U.index_select(1, box_R)
    place_R = torch.arange(len(box_R), device=box_R.device) - before_R
    row_R = place_R // columns_R
    pixel_R = first_R + row_R * width + place_R - row_R * columns_R
    rays = _rays(batch.cameras, frame, pixel_R, boxes.scene_U, box_R)
    _, primitive_R = nearest_primitive(_nearby_primitives(batch.primitives, boxes), rays)
    shown_R = primitive_R == box_R * len(boxes.primitives_KU)
    return torch.zeros_like(num_rays_U).index_add(0, box_R, shown_R.long())


def _nearby_primitives(primitives: Primitives, boxes: _Boxes) -> Primitives:
    """Return primitives as if each box were a scene of its own, with its object's first."""
    index_KU = boxes.scene_U * len(primitives.squared_radius_KG) + boxes.primitives_KU
    index_N = index_KU.t().flatten()
    k_K1 = torch.arange(len(index_KU), device=index_N.device)[:, None]
    is_near_KU = k_K1 < boxes.num_primitives_U
    squared_radius_KU = primitives.squared_radius_KG[boxes.primitives_KU, boxes.scene_U]
    return Primitives(
        primitives.placement_FN[:, index_N],
        primitives.shape_N[index_N],
        primitives.center_3KG[:, boxes.primitives_KU, boxes.scene_U],
        torch.where(is_near_KU, squared_radius_KU, -math.inf),
        primitives.area_KG[boxes.primitives_KU, boxes.scene_U],
        primitives.albedo_3N[:, index_N],
        torch.cat([primitives.metal_M[index_N], primitives.metal_M[-1:]]),
        primitives.object_index_N[index_N],
    )


def _rays(cameras: Viewers, frame: Frame, pixel_R: Tensor, scene_U: Tensor, box_R: Tensor) -> Rays:
    """Return the rays that ``frame.rays`` sends through these pixels, to the last bit."""
    axes = (cameras.positions, cameras.forward, cameras.right, cameras.up)
    axes_12U = torch.cat([axis[:, scene_U] for axis in axes])
    origin_3R, forward_3R, right_3R, up_3R = axes_12U.index_select(1, box_R).split(3)
    x_R, y_R = (plane_QA[0].index_select(0, pixel_R) for plane_QA in (frame.x_QA, frame.y_QA))
    directions_3R = normalize(forward_3R + x_R * right_3R + y_R * up_3R)
    no_offsets = frame.x_QA.new_empty(2, 0, len(pixel_R))
    return Rays(origin_3R, directions_3R, box_R, no_offsets, torch.full_like(box_R, NO_PRIMITIVE))
