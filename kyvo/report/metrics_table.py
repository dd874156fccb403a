"""The table of metrics: an untrained model beside the trained one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kyvo.common.files import read_json
from kyvo.metrics.fields import expect, take
from kyvo.metrics.registry import METRICS
from kyvo.metrics.scene_files import read_predicted_scenes
from kyvo.report.content import Headline, Section, Table
from kyvo.report.inputs import ReportInputs
from kyvo.report.top_down import Map
from kyvo.scenes import Schema, get_schema

_MEAN = "Jaccard, mean"
_ANSWERS = "Answers right"
_HEADLINES = {
    _MEAN: "of the objects agree, from image to scene (mean Jaccard, 1 is best)",
    METRICS["ssim"].title: "likeness, from scene to image (SSIM, 1 is best)",
    _ANSWERS: "of the questions answered rightly",
}
_UNTRAINED, _TRAINED, _TOKENIZER = "Untrained", "Trained", "Tokenizer"

_IMAGE_TEXT = (
    "SSIM (1 is equal) and L2 (0 is equal) compare a drawn image with the true one; the "
    "tokenizer's own values are those of true images written as codes and read back."
)


@dataclass(frozen=True)
class _Model:
    """The files that hold one model's values; None: not given.

    Attributes:
        jaccard: as ``compute_jaccard_index.py`` writes it.
        similarity: as ``compute_ssim_l2loss.py`` writes it.
        accuracy: as ``compute_text_answer_accuracy.py`` writes it.
        predictions: the predicted scenes.
    """

    jaccard: Path | None = None
    similarity: Path | None = None
    accuracy: Path | None = None
    predictions: Path | None = None


def metrics_section(inputs: ReportInputs) -> Section:
    """Table of all metrics, one column per model, and a note for each that is missing."""
    columns = {name: cells for name, cells in _columns(inputs).items() if cells}
    rows = dict.fromkeys(row for cells in columns.values() for row in cells)
    table = Table(
        ("", *columns),
        tuple((row, *(cells.get(row, "-") for cells in columns.values())) for row in rows),
    )
    faults = (
        (_TRAINED, inputs.parse_report),
        (_UNTRAINED, inputs.untrained_parse_report),
    )
    reported = tuple(_fault_text(name, path) for name, path in faults if path)
    text = _text(get_schema(inputs.schema)) + reported
    return Section("Metrics", text, _notes(inputs), table=table if rows else None)


def _text(schema: Schema) -> tuple[str, ...]:
    """What the metrics are, with the words of the schema's rule."""
    rule, place = schema.rule, schema.position_field
    unit = place.axes[0].unit if place else "its unit"
    further = ", and further numbers within their tolerances" if rule.bounds else ""
    return (
        "Jaccard is the share of objects on which prediction and truth agree: those found, over "
        f"those found, missed and made up. An object is found if {', '.join(rule.words)} are right "
        f"and its place is off by less than tau, in {unit}{further}. Readable are predicted "
        "objects whose every field holds something that makes sense.",
        _IMAGE_TEXT,
    )


def headlines(inputs: ReportInputs) -> tuple[Headline, ...]:
    """The trained model's main values, each with the untrained model's beside it."""
    columns = _columns(inputs)
    trained, untrained = columns[_TRAINED], columns[_UNTRAINED]
    return tuple(
        Headline(trained[row], label, f"untrained: {untrained[row]}" if row in untrained else "")
        for row, label in _HEADLINES.items()
        if row in trained
    )


def _columns(inputs: ReportInputs) -> dict[str, dict[str, str]]:
    models = {
        _UNTRAINED: _Model(
            inputs.untrained_jaccard,
            inputs.untrained_similarity,
            inputs.untrained_accuracy,
            inputs.untrained_predictions,
        ),
        _TRAINED: _Model(inputs.jaccard, inputs.similarity, inputs.accuracy, inputs.predictions),
        _TOKENIZER: _Model(similarity=inputs.reconstruction_similarity),
    }
    schema = get_schema(inputs.schema)
    return {name: _cells(model, schema) for name, model in models.items()}


def _cells(model: _Model, schema: Schema) -> dict[str, str]:
    """Row title -> formatted value, for the files that are given."""
    cells: dict[str, str] = {}
    if model.jaccard:
        cells |= _jaccard_cells(model.jaccard)
    if model.predictions:
        cells |= _whole_cells(model.predictions, schema)
    if model.similarity:
        root, place = read_json(model.similarity, "similarity"), f"similarity: {model.similarity}"
        present = [m for m in METRICS.values() if m.modality == "image" and m.name in root]
        cells |= {m.title: m.form.format(take(root, m.name, float, place)) for m in present}
    if model.accuracy:
        root, place = read_json(model.accuracy, "accuracy"), f"accuracy: {model.accuracy}"
        cells[_ANSWERS] = f"{take(root, 'accuracy', float, place):.1%}"
    return cells


def _jaccard_cells(path: Path) -> dict[str, str]:
    place = f"jaccard: {path}"
    root = read_json(path, "jaccard")
    taus: Mapping[str, Any] = take(root, "taus", dict, place)
    cells = {
        f"Jaccard, tau {float(tau):.2f}": (
            f"{take(scores, 'jaccard', float, f'{place}: taus: {tau}'):.3f}"
        )
        for tau, scores in taus.items()
    }
    return {**cells, _MEAN: f"{take(root, 'jaccard', float, place):.3f}"}


def _whole_cells(path: Path, schema: Schema) -> dict[str, str]:
    scenes = read_predicted_scenes(path, schema).values()
    items = [item for scene in scenes for item in scene.objects]
    whole = sum(map(Map(schema).is_drawable, items))
    return {"Objects readable": f"{whole / len(items):.1%}" if items else "none"}


def _fault_text(name: str, path: Path) -> str:
    """What went wrong in reading a model's predictions."""
    root: Mapping[str, Any] = expect(read_json(path, "parse report"), dict, f"parse report: {path}")
    reasons = expect(root.get("reasons", root), dict, f"parse report: {path}: reasons")
    counts = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
    return f"{name} model, faults found in reading its scenes: {counts or 'none'}."


def _notes(inputs: ReportInputs) -> tuple[str, ...]:
    names = ("jaccard", "untrained_jaccard", "similarity", "untrained_similarity")
    missing = [f"--{name}" for name in names if getattr(inputs, name) is None]
    return (f"Not given: {', '.join(missing)}.",) if missing else ()
