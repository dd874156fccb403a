import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kyvo.common.errors import InputError
from kyvo.metrics import match_objects
from kyvo.report import ReportInputs
from kyvo.report.examples import recognition_section, rendering_section, spread
from kyvo.report.images import render_again
from kyvo.report.learning import tokenizer_section, training_section
from kyvo.report.plots import Line, curves
from kyvo.report.records import read_log, series
from kyvo.report.top_down import Map
from kyvo.scenes import Drawing, Scene, get_schema
from kyvo.world.constants import CAMERA, COLORS, MATERIALS, SHAPES, SIZES

ROOT = Path(__file__).parents[2]

CUBE = {
    "size": "large",
    "color": "red",
    "material": "metal",
    "shape": "cube",
    "3d_coords": [1.0, -2.0, 0.7],
}
FAULT = "#e5383b"
CLEVR = get_schema("clevr")
MAP = Map(CLEVR)


def scene_of(objects):
    return Scene(tuple(map(CLEVR.read, objects)))


def plot_of(predicted, truth):
    """The plot of JSON objects, and their matches."""
    scenes = scene_of(predicted), scene_of(truth)
    matches = match_objects(*scenes, CLEVR.rule, 0.25)
    return MAP.plot(*scenes, matches), matches


@pytest.mark.parametrize(
    "damage",
    [
        {"size": "huge"},
        {"color": None},
        {"shape": ["cube"]},
        {"3d_coords": [1.0]},
        {"3d_coords": [1e9, 0.0, 0.7]},
        {"3d_coords": ["NaN", 0.0, 0.7]},
    ],
)
def test_nonsense_is_described_not_drawn(damage):
    damaged = CLEVR.read({**CUBE, **damage})
    assert MAP.is_drawable(CLEVR.read(CUBE))
    assert not MAP.is_drawable(damaged)
    assert "position" in MAP.describe(damaged)


def test_objects_in_words():
    assert MAP.describe(CLEVR.read(CUBE)) == "large red metal cube at (1.00, -2.00)"
    shape = CLEVR.read({"shape": "cube"})
    assert MAP.describe(shape) == "(no size) (no color) (no material) cube, position None"


def test_a_plot_marks_everything_missed_or_made_up():
    away = [{**CUBE, "3d_coords": [x, 2.0, 0.7]} for x in (-2.0, 0.0, 2.0)]
    predicted, truth = [CUBE, away[0], {"shape": "cube"}], [CUBE, *away[1:]]
    plot, matches = plot_of(predicted, truth)
    rings = re.findall(rf"fill: none; stroke-dasharray[^>]*stroke: {FAULT}", plot)
    crosses = re.findall(rf'<use [^>]*style="fill: {FAULT}; stroke: {FAULT}', plot)
    assert len(matches.false_negatives) == len(rings) == 2
    assert len(matches.false_positives) == 2
    assert len(crosses) == 1


def test_scenes_are_rendered_in_the_true_world_and_on_the_ground():
    seen = []

    def renderer(scenes, height, width, samples_per_pixel=1):
        seen.extend(scenes)
        return np.zeros((len(scenes), height, width, 3), np.uint8)

    floating = {**CUBE, "3d_coords": [1.0, -2.0, 9.0]}
    world = {"camera": [7.0, -6.0, 5.0]}
    scenes = [scene_of([floating, {}]), Scene()]
    uris = render_again(scenes, [{"world": world}, {}], renderer, MAP)
    assert seen == [{"objects": [CUBE], "world": world}, {"objects": []}]
    assert all(uri.startswith("data:image/png;base64,") for uri in uris)


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=30), st.integers(0, 12))
def test_spread_keeps_the_order_and_the_ends(items, count):
    places = spread(range(len(items)), count)
    assert len(places) == min(count, len(items))
    assert places == sorted(set(places))
    if count > 1 and items:
        assert (places[0], places[-1]) == (0, len(items) - 1)


def test_logs_are_read_by_quantity(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text(
        '{"step": 1, "loss": 2.5}\n{"step": 2, "val_loss": 2}\n{"step": 3, "loss": null}\n'
    )
    rows = read_log(log)
    assert series(rows, "loss") == ([1], [2.5])
    assert series(rows, "val_loss") == ([2], [2])


@pytest.mark.parametrize(
    ("line", "message"), [('{"step": 2', "not valid JSON"), ("[]", "expected an object")]
)
def test_a_broken_line_of_a_log_is_named(tmp_path, line, message):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n' + line + "\n")
    with pytest.raises(InputError, match=rf"metrics\.jsonl: line 2: {message}"):
        read_log(log)


def test_a_log_needs_a_name(tmp_path):
    with pytest.raises(InputError, match="expected NAME=FILE"):
        training_section(ReportInputs(training_logs=["metrics.jsonl"]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": [0, 8]}', "from 0 to 8; expected 0 to 7"),
        ('{"a": [0, -1]}', "from -1 to 0"),
        ('{"a": [0.5]}', "a: expected an integer"),
        ('{"a": 3}', "a: expected a list"),
    ],
)
def test_broken_codes_are_refused(tmp_path, content, message):
    codes = tmp_path / "codes.json"
    codes.write_text(content)
    with pytest.raises(InputError, match=message):
        tokenizer_section(ReportInputs(codes=codes, num_codes=8))


def test_curves_survive_values_that_have_no_logarithm():
    lines = [Line("generator", [1, 2, 3], [-0.5, 0.0, 0.5]), Line("l1", [1, 2, 3], [3, 2, 1])]
    plot = curves(lines, "loss", log_scale=True)
    assert "generator" in plot
    assert "10^" not in plot


def test_drawn_images_without_a_true_one_are_counted(demo, tmp_path):
    for path in sorted(demo.images_folder.glob("*.png"))[:5]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    inputs = ReportInputs(images_folder=tmp_path, generated_folder=demo.generated_folder)
    section = rendering_section(inputs)
    assert "19 drawn images have no true image." in section.notes
    assert len(section.examples) == 5


def test_a_true_object_of_another_world_is_left_out_of_the_plot():
    strange = [CUBE, {**CUBE, "color": "pink"}, {**CUBE, "3d_coords": [1.0]}]
    plot, _ = plot_of([], strange)
    assert plot.count(FAULT) == 1


def test_the_released_world_is_drawn_as_it_looks():
    drawing = CLEVR.drawing
    assert drawing.colors == COLORS
    assert drawing.radii == SIZES
    assert drawing.outlines.keys() == set(SHAPES)
    assert set(drawing.glints) <= set(MATERIALS)
    assert drawing.viewpoint == CAMERA[:2]


def test_a_schema_without_hints_is_drawn_too():
    """Neutral colours, a frame around the grid, and a legend of the signs alone."""
    plain = Map(dataclasses.replace(CLEVR, drawing=Drawing()))
    scene = scene_of([CUBE])
    matches = match_objects(scene, scene, CLEVR.rule, 0.25)
    assert plain.is_drawable(scene.objects[0])
    assert "camera" not in plain.plot(scene, scene, matches)
    assert "camera" in MAP.plot(scene, scene, matches)
    assert len(plain.legend()) == 3
    assert not Map(dataclasses.replace(CLEVR, fields=CLEVR.fields[:2], matching=None)).is_possible


def test_scenes_of_an_untraced_schema_are_not_rendered(demo, tmp_path):
    """An own data set has words that the ray tracer does not know."""
    text = (ROOT / "docs/own-scenes/schema.yaml").read_text()
    (tmp_path / "schema.yaml").write_text(text)
    world = ROOT / "docs/own-scenes/world/train"
    rows = [
        {"key": f"{path.stem}.png", "objects": json.loads(path.read_text())["objects"]}
        for path in sorted((world / "scenes").glob("*.json"))
    ]
    (tmp_path / "p.json").write_text(json.dumps({"scenes": rows}))
    inputs = ReportInputs(
        schema=str(tmp_path / "schema.yaml"),
        predictions=tmp_path / "p.json",
        scenes_folder=world / "scenes",
        images_folder=world / "images",
    )
    section = recognition_section(inputs, renderer=None)
    captions = [[figure.caption for figure in example.figures] for example in section.examples]
    assert captions == [["what the model saw", "both from above"]] * 3
    assert all(example.title.endswith("Jaccard 1.00") for example in section.examples)
