"""A model's own page: its figures, against scenes and answers that are known."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from kyvo.report.showcase import (
    Answer,
    Item,
    missing_part,
    question_part,
    rendering_part,
    scene_jaccard,
)
from kyvo.scenes import Scene, get_schema

SCHEMA = get_schema("clevr")
RECORD = {
    "size": "large",
    "color": "red",
    "material": "rubber",
    "shape": "cube",
    "3d_coords": [1.0, -1.0, 0.7],
}


def scene(*places):
    return SCHEMA.parse_scene([{**RECORD, "3d_coords": [*place, 0.7]} for place in places], "test")


def test_jaccard_is_the_mean_over_the_taus():
    true = scene((0.0, 0.0), (2.0, 2.0))
    assert scene_jaccard(true, true, SCHEMA) == 1
    assert scene_jaccard(Scene(), Scene(), SCHEMA) == 1
    assert scene_jaccard(Scene(), true, SCHEMA) == 0
    assert scene_jaccard(scene((0.0, 0.0)), true, SCHEMA) == pytest.approx(0.5)
    near = scene((0.0, 0.12), (2.0, 2.0))
    shares = [1 if tau > 0.12 else 1 / 3 for tau in SCHEMA.rule.taus]
    assert scene_jaccard(near, true, SCHEMA) == pytest.approx(np.mean(shares))


@pytest.fixture
def item():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    return Item(scene((0.0, 0.0)), Image.fromarray(pixels), {})


def test_an_image_that_was_not_written_counts_as_unlike(item):
    section, headline = rendering_part([item, item], [item.image, None])
    assert headline.value == "0.500"
    assert "no whole one" in section.examples[1].figures[1].caption
    assert section.examples[0].title == "1 objects: SSIM 1.000"


def test_answers_are_told_right_from_wrong(item):
    right = Answer(item, "How many?", "1", "1")
    section, headline = question_part([right, replace(right, answer=""), right])
    assert headline.value == "2 of 3"
    said = [example.remarks[0] for example in section.examples]
    assert said == [
        "The model: 1 (right).",
        "The model: nothing (wrong).",
        "The model: 1 (right).",
    ]


def test_a_task_that_was_not_learned_is_said():
    section, headline = missing_part("Rendering")
    assert headline is None
    assert "not trained" in section.notes[0]
