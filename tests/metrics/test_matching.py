import dataclasses
import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyvo.metrics import match_objects
from kyvo.metrics.jaccard import SceneScore
from kyvo.scenes import SCHEMAS, Scene

CLEVR, OBJAWORLD, OBJECTRON = SCHEMAS["clevr"], SCHEMAS["objaworld"], SCHEMAS["objectron"]
relaxed = settings(deadline=None)


def clevr_object(color, x, y, **changes):
    item = {"size": "large", "color": color, "material": "metal", "shape": "cube"}
    return {**item, "3d_coords": [x, y, 0.7], **changes}


def box(category, center, dimensions=(0.2, 0.3, 0.4)):
    return {"category": category, "center_cam": list(center), "dimensions": list(dimensions)}


def match(predicted, groundtruth, schema=CLEVR, tau=0.25):
    """The matches of JSON objects."""
    scenes = (Scene(tuple(map(schema.read, objects))) for objects in (predicted, groundtruth))
    return match_objects(*scenes, schema.rule, tau)


def with_dimension_tau(limit):
    return dataclasses.replace(OBJECTRON, matching=OBJECTRON.rule.with_dimension_tau(limit))


def jaccard(predicted, groundtruth, schema=CLEVR, tau=0.25):
    matches = match(predicted, groundtruth, schema, tau)
    counts = (len(matches.pairs), len(matches.false_positives), len(matches.false_negatives))
    return SceneScore("scene", *counts).jaccard


coordinates = st.floats(-3, 3, allow_nan=False)
objects = st.builds(
    clevr_object,
    st.sampled_from(["red", "blue", "gray"]),
    st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0]),
    st.sampled_from([0.0, 0.1, 0.2]),
)
scenes = st.lists(objects, max_size=7)


def naive_clevr_counts(predicted, groundtruth, tau):
    """The metric as the format page has it, with a table of flags."""
    taken = [False] * len(groundtruth)
    correct = 0
    for p in predicted:
        for j, g in enumerate(groundtruth):
            same = all(p[f] == g[f] for f in ("size", "color", "material", "shape"))
            (px, py, _), (gx, gy, _) = p["3d_coords"], g["3d_coords"]
            if same and not taken[j] and (px - gx) ** 2 + (py - gy) ** 2 < tau**2 - 1e-12:
                taken[j] = True
                correct += 1
                break
    return correct, len(predicted) - correct, len(groundtruth) - correct


@relaxed
@given(scenes, scenes, st.sampled_from([0.05, 0.15, 0.25]))
def test_agrees_with_a_naive_implementation(predicted, groundtruth, tau):
    matches = match(predicted, groundtruth, CLEVR, tau)
    counts = (len(matches.pairs), len(matches.false_positives), len(matches.false_negatives))
    assert counts == naive_clevr_counts(predicted, groundtruth, tau)


@relaxed
@given(scenes, scenes)
def test_every_object_is_used_exactly_once(predicted, groundtruth):
    matches = match(predicted, groundtruth)
    used = sorted([p for p, _ in matches.pairs] + list(matches.false_positives))
    covered = sorted([g for _, g in matches.pairs] + list(matches.false_negatives))
    assert used == list(range(len(predicted)))
    assert covered == list(range(len(groundtruth)))
    assert 0 <= jaccard(predicted, groundtruth) <= 1


@relaxed
@given(scenes)
def test_identity_scores_one(scene):
    assert jaccard(scene, scene) == 1


@relaxed
@given(st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=4), st.data())
def test_order_of_distinct_groundtruth_objects_is_irrelevant(points, data):
    colors = ["red", "blue", "gray", "green"]
    groundtruth = [clevr_object(c, x, y) for c, (x, y) in zip(colors, points, strict=False)]
    predicted = data.draw(st.lists(objects, max_size=5)) + groundtruth[:1]
    scores = {jaccard(predicted, order) for order in itertools.permutations(groundtruth)}
    assert len(scores) == 1


@relaxed
@given(scenes, scenes, coordinates)
def test_a_wrong_prediction_never_raises_the_score(predicted, groundtruth, x):
    wrong = clevr_object("green", x, 0.0)
    assert jaccard([*predicted, wrong], groundtruth) <= jaccard(predicted, groundtruth)


def test_distance_is_strictly_below_tau_and_flat():
    groundtruth = [clevr_object("red", 0.0, 0.0)]
    assert jaccard([clevr_object("red", 0.25, 0.0)], groundtruth) == 0
    assert jaccard([clevr_object("red", 0.2499, 0.0)], groundtruth) == 1
    floating = clevr_object("red", 0.0, 0.0, **{"3d_coords": [0.0, 0.0, 9.0]})
    assert jaccard([floating], groundtruth) == 1


def test_clevr_takes_the_first_qualifying_object_not_the_nearest():
    groundtruth = [clevr_object("red", 0.2, 0.0), clevr_object("red", 0.0, 0.0)]
    matches = match([clevr_object("red", 0.0, 0.0)], groundtruth)
    assert matches.pairs == ((0, 0),)


@pytest.mark.parametrize(
    "damage",
    [
        {"size": None},
        {"color": 3},
        {"material": ["metal"]},
        {"shape": "Cube"},
        {"3d_coords": None},
        {"3d_coords": []},
        {"3d_coords": "0 0 0"},
        {"3d_coords": ["NaN", 0.0, 0.7]},
        {"3d_coords": [math.nan, 0.0, 0.7]},
        {"3d_coords": [math.inf, 0.0, 0.7]},
        {"3d_coords": [False, 0.0, 0.7]},
    ],
)
def test_a_damaged_prediction_is_a_false_positive(damage):
    groundtruth = [clevr_object("red", 0.0, 0.0)]
    matches = match([{**groundtruth[0], **damage}], groundtruth)
    assert matches == type(matches)((), (0,), (0,))


def test_empty_scenes():
    item = clevr_object("red", 0.0, 0.0)
    assert jaccard([], []) == 1
    assert jaccard([item], []) == 0
    assert jaccard([], [item]) == 0


def test_objaworld_bounds_height_and_wraps_the_yaw():
    def thing(z, yaw):
        return {"shape": "bench", "3d_coords": [1.0, 2.0, z, yaw]}

    truth = [thing(0.5, math.pi - 0.05)]
    scores = [
        jaccard([thing(z, yaw)], truth, OBJAWORLD)
        for z, yaw in [
            (0.549, math.pi - 0.05),
            (0.551, math.pi - 0.05),
            (0.5, math.pi - 0.05 + 0.149),
            (0.5, math.pi - 0.05 - 0.151),
            (0.5, -math.pi + 0.05),
            (0.5, -0.05),
        ]
    ]
    assert scores == [1, 0, 1, 0, 1, 0]


def test_objectron_takes_the_nearest_of_its_category_within_both_bounds():
    groundtruth = [
        box("cereal box", (0.2, 0, 1)),
        box("cereal box", (0, 0, 1)),
        box("cup", (0, 0, 1)),
    ]
    assert match([box("cereal box", (0.02, 0, 1))], groundtruth, OBJECTRON).pairs == ((0, 1),)
    grown = [box("cup", (0, 0, 1), (0.25, 0.375, 0.4))]
    assert jaccard(grown, groundtruth[2:], OBJECTRON) == 1
    assert jaccard(grown, groundtruth[2:], with_dimension_tau(0.04)) == 0
    assert jaccard([box("cup", (0, 0, 1.3))], groundtruth[2:], OBJECTRON) == 0
