"""Ray intersections against closed forms and against a naive search along each ray."""

import math

import numpy as np
import pytest
import torch

from kyvo.world.constants import SHAPES
from kyvo.world.render.geometry import (
    CORE_POINTS,
    FAR,
    SPANS,
    backdrop_distance,
    backdrop_normal,
    normalize,
)


def inside(shape: str, points: np.ndarray) -> np.ndarray:
    """Whether points (..., 3) are in a unit shape, straight from its definition."""
    x, y, z = np.moveaxis(points, -1, 0)
    rim = (np.hypot(x, y) - 0.95).clip(0)
    return {
        "sphere": x * x + y * y + z * z <= 1,
        "cylinder": np.hypot(rim, (abs(z) - 0.95).clip(0)) <= 0.05,
        "cube": sum((abs(part) - 0.9).clip(0) ** 2 for part in (x, y, z)) <= 0.1**2,
    }[shape]


def inside_sharp(shape: str, points: np.ndarray) -> np.ndarray:
    """The same without round edges."""
    x, y, z = np.moveaxis(points, -1, 0)
    return {
        "sphere": x * x + y * y + z * z <= 1,
        "cylinder": (x * x + y * y <= 1) & (abs(z) <= 1),
        "cube": np.maximum(np.maximum(abs(x), abs(y)), abs(z)) <= 1,
    }[shape]


def columns(*vectors: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(vectors).T.contiguous()


@pytest.mark.parametrize("shape", SHAPES)
def test_span_agrees_with_marching_along_the_ray(shape: str) -> None:
    rng = np.random.default_rng(0)
    origins = rng.normal(size=(200, 3))
    origins *= rng.uniform(2, 6, (200, 1)) / np.linalg.norm(origins, axis=1, keepdims=True)
    directions = rng.uniform(-1.2, 1.2, (200, 3)) - origins
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    steps = np.arange(0, 9, 0.002)
    points = origins[:, None] + steps[:, None] * directions[:, None]
    marched, sharp = inside(shape, points), inside_sharp(shape, points)
    entry, exit_ = SPANS[shape](torch.tensor(origins.T), torch.tensor(directions.T))
    for ray in range(200):
        inner = steps[marched[ray]]
        if len(inner):
            assert entry[ray].item() == pytest.approx(inner[0], abs=0.003)
            assert exit_[ray].item() == pytest.approx(steps[sharp[ray]][-1], abs=0.003)
        else:
            assert not entry[ray] < exit_[ray] - 0.003
    assert 50 < marched.any(1).sum() < 200


def test_spans_of_known_rays() -> None:
    diagonal = 1 / math.sqrt(3)
    down = columns((0.0, 0.0, 5.0)), columns((0.0, 0.0, -1.0))
    corner = columns((3.0, 3.0, 3.0)), columns((-diagonal, -diagonal, -diagonal))
    for shape in SHAPES:
        entry, exit_ = SPANS[shape](*down)
        assert (entry.item(), exit_.item()) == pytest.approx((4, 6))
    far = 3 * math.sqrt(3)
    round_corner = 0.9 * math.sqrt(3) + 0.1
    assert SPANS["cube"](*corner)[0].item() == pytest.approx(far - round_corner, abs=1e-3)
    assert SPANS["sphere"](*corner)[0].item() == pytest.approx(far - 1, rel=1e-6)
    assert SPANS["cylinder"](*corner)[0].item() == pytest.approx(far - math.sqrt(1.5), rel=1e-6)
    rim = columns((3.0, 0.0, 3.0)), columns((-math.sqrt(0.5), 0.0, -math.sqrt(0.5)))
    round_rim = 0.95 * math.sqrt(2) + 0.05
    assert SPANS["cylinder"](*rim)[0].item() == pytest.approx(
        3 * math.sqrt(2) - round_rim, abs=1e-3
    )


def test_a_ray_may_pass_between_a_sharp_edge_and_the_round_one() -> None:
    # Along x + z = 1.96: the cube ends at 1.8 + 0.1 sqrt(2), the cylinder at 1.9 + 0.05 sqrt(2).
    ray = columns((3.0, 0.0, -1.04)), columns((-math.sqrt(0.5), 0.0, math.sqrt(0.5)))
    for shape, hit in (("cube", False), ("cylinder", True)):
        entry, exit_ = SPANS[shape](*ray)
        assert (entry < exit_).item() == hit


def test_normals_point_away_from_the_surface_and_edges_are_round() -> None:
    face = columns((1.0, 0.3, -0.2))
    top = columns((0.3, -0.2, 1.0))
    slanted = columns((0.6, 0.8, 0.1))
    expected = {
        "cube": [(face, (1, 0, 0)), (top, (0, 0, 1))],
        "cylinder": [(slanted, (0.6, 0.8, 0)), (top, (0, 0, 1))],
        "sphere": [(columns((0.48, 0.6, 0.64)), (0.48, 0.6, 0.64))],
    }
    for shape, cases in expected.items():
        for point, normal in cases:
            found = normalize(point - CORE_POINTS[shape](point))[:, 0].tolist()
            assert found == pytest.approx(normal, abs=1e-5)
    edge = columns((1.0, 1.0, 0.0))
    assert normalize(edge - CORE_POINTS["cube"](edge))[:, 0].tolist() == pytest.approx(
        (math.sqrt(0.5), math.sqrt(0.5), 0), abs=1e-5
    )


def backdrop_height(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    u = -0.9032 * x + 0.4292 * y - 14
    return 1.5 * np.exp(0.42 * u) / (1 - u / 4.6)


def test_backdrop_hits_lie_on_its_curve_and_nothing_lies_before_them() -> None:
    rng = np.random.default_rng(1)
    camera = np.array([7.48, -6.51, 5.34])
    targets = np.stack([rng.uniform(-9, 5, 300), rng.uniform(-5, 9, 300), np.zeros(300)], 1)
    directions = targets - camera
    directions[:, 2] += rng.uniform(0, 5, 300)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = np.repeat(camera[:, None], 300, axis=1)
    distance = backdrop_distance(torch.tensor(origins), torch.tensor(directions.T)).numpy()
    hit = distance < 35
    assert hit.sum() > 250
    points = camera + distance[hit, None] * directions[hit]
    heights = backdrop_height(points[:, 0], points[:, 1])
    assert abs(points[:, 2] - heights).max() < 1e-3
    for fraction in (0.25, 0.5, 0.9, 0.99):
        before = camera + fraction * distance[hit, None] * directions[hit]
        assert (before[:, 2] > backdrop_height(before[:, 0], before[:, 1])).all()


def test_backdrop_is_level_near_the_origin_and_missed_by_rays_that_rise_away_from_it() -> None:
    origin = columns((1.0, -1.0, 3.0))
    straight = backdrop_distance(origin, columns((0.0, 0.0, -1.0)))
    assert straight.item() == pytest.approx(3.0, abs=3e-3)
    assert backdrop_distance(origin, columns((0.6, -0.6, 0.529))).item() == pytest.approx(FAR)
    assert backdrop_normal(origin)[:, 0].tolist() == pytest.approx((0, 0, 1), abs=3e-3)


def test_backdrop_normal_is_the_gradient_of_its_height() -> None:
    x, y, step = -10.0, 5.0, 1e-5
    slope_x = (backdrop_height(x + step, y) - backdrop_height(x - step, y)) / (2 * step)
    slope_y = (backdrop_height(x, y + step) - backdrop_height(x, y - step)) / (2 * step)
    normal = np.array([-slope_x, -slope_y, 1.0])
    normal /= np.linalg.norm(normal)
    found = backdrop_normal(torch.tensor([[x], [y], [0.0]], dtype=torch.float64))
    assert found[:, 0].tolist() == pytest.approx(normal.tolist(), abs=1e-6)
    assert slope_x != pytest.approx(0, abs=0.1)
