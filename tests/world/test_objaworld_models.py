"""What the objects are built of, measured by points spread over their parts."""

import numpy as np
import pytest
from objaworld_primitives import inside, surface_points

from kyvo.scenes import SCHEMAS
from kyvo.world.objaworld import ENVIRONMENTS, MODELS
from kyvo.world.objaworld.models import ASSETS, center_height, find_asset, footprint_radius
from kyvo.world.render.description import Primitive

SHAPE, PLACE = SCHEMAS["objaworld"].fields


def primitives_of(asset: str, yaw: float = 0.0) -> list[Primitive]:
    kind, number = ASSETS[asset]
    return MODELS[kind].primitives(number, 0.0, 0.0, yaw, object_index=0)


@pytest.mark.parametrize("asset", ASSETS)
def test_an_object_fills_the_box_of_its_size_and_stands_on_the_ground(asset: str) -> None:
    kind, number = ASSETS[asset]
    length, width, height = MODELS[kind].variants[number].size
    points = np.concatenate([surface_points(primitive) for primitive in primitives_of(asset)])
    low, high = points.min(0), points.max(0)
    assert low[2] == pytest.approx(0, abs=0.03)
    assert high[2] == pytest.approx(height, abs=0.03)
    assert high[1] - low[1] == pytest.approx(width, abs=0.08)
    assert high[0] - low[0] == pytest.approx(length, abs=0.08)
    assert center_height(asset) == height / 2


@pytest.mark.parametrize("asset", ASSETS)
def test_the_footprint_holds_the_object_at_any_yaw_without_waste(asset: str) -> None:
    for yaw in (0.0, 0.7, -2.1):
        points = np.concatenate(
            [surface_points(primitive) for primitive in primitives_of(asset, yaw)]
        )
        reach = np.hypot(*points[:, :2].T).max()
        assert 0.75 * footprint_radius(asset) < reach <= footprint_radius(asset) + 1e-9


@pytest.mark.parametrize("kind", MODELS)
def test_no_part_floats(kind: str) -> None:
    for number in range(len(MODELS[kind].variants)):
        primitives = MODELS[kind].primitives(number, 0.0, 0.0, 0.0, object_index=0)
        points = [surface_points(primitive, 400) for primitive in primitives]
        joined, waiting = {0}, [0]
        while waiting:
            one = waiting.pop()
            for other in set(range(len(primitives))) - joined:
                touching = (
                    inside(primitives[one], points[other], 1.1).any()
                    or inside(primitives[other], points[one], 1.1).any()
                )
                if touching:
                    joined.add(other)
                    waiting.append(other)
        assert len(joined) == len(primitives), (
            f"{kind} {number}: only {sorted(joined)} hang together"
        )


def test_kinds_are_words_of_the_schema_and_heights_lie_on_its_grid() -> None:
    assert set(MODELS) <= set(SHAPE.words)
    assert {kind for place in ENVIRONMENTS.values() for kind in place.kinds} == set(MODELS)
    for asset in ASSETS:
        assert PLACE.axes[2].snap(center_height(asset)) == center_height(asset)


def test_names_lead_to_assets_and_bare_kinds_to_the_variant_of_that_height() -> None:
    assert len(ASSETS) == sum(len(model.variants) for model in MODELS.values())
    assert ASSETS["bench-05"] == ("bench", 5)
    assert find_asset("bench-05", 0.0) == "bench-05"
    for asset, (kind, _) in ASSETS.items():
        found = find_asset(kind, center_height(asset) + 0.01)
        assert found is not None
        assert center_height(found) == center_height(asset)
    assert find_asset("bench-77", 0.4) is None
    assert find_asset("spaceship", 0.4) is None


def test_variants_of_a_kind_differ() -> None:
    for model in MODELS.values():
        looks = {(v.size, tuple(sorted(v.paints.items()))) for v in model.variants}
        assert len(looks) == len(model.variants) >= 4
