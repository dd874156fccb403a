"""The sections of single scenes: what was recognised, and what was drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from kyvo.common.files import read_json
from kyvo.metrics import ImagePair, Matches, ScenePair, load_evaluation, match_objects, score_scenes
from kyvo.metrics.images import images_by_name, ssim
from kyvo.report.content import Example, Figure, Section
from kyvo.report.images import Renderer, image_uri, render_again
from kyvo.report.inputs import ReportInputs
from kyvo.report.top_down import Map
from kyvo.scenes import Scene, Schema, get_schema

T = TypeVar("T")

_RENDERED_TEXT = (
    "The second is that list, rendered again by the ray tracer with the camera and the lights of "
    "the true scene; the list holds no rotation, so objects are drawn straight. "
)
_RENDERING_TEXT = (
    "The model read a list of objects and wrote the codes of an image, which the tokenizer's "
    "decoder turned into pixels. The tokenizer alone shows the true image written as codes and "
    "read back, which is about the best that the model can do.",
    "The images are spread evenly over all of them, from the most to the least like the true one "
    "(by SSIM).",
)


def recognition_section(inputs: ReportInputs, renderer: Renderer) -> Section:
    """Input image, predicted scene rendered again where it can be, and both scenes from above."""
    title = "From images to scenes"
    if inputs.predictions is None or inputs.scenes_folder is None:
        return Section(title, notes=("Needs --predictions and --scenes-folder: not given.",))
    schema = get_schema(inputs.schema)
    evaluation = load_evaluation(inputs.predictions, inputs.scenes_folder, schema)
    scores = score_scenes(evaluation)
    means = [fmean(parts) for parts in zip(*_jaccards(scores.taus), strict=True)]
    ranked = sorted(zip(means, evaluation.pairs, strict=True), key=lambda part: -part[0])
    chosen = spread(ranked, inputs.num_examples)
    rendered = _rendered([pair for _, pair in chosen], inputs.scenes_folder, schema, renderer)
    images = _images(inputs.images_folder, "true images")
    examples = tuple(
        _recognition_example(pair, mean, images, image, Map(schema))
        for (mean, pair), image in zip(chosen, rendered, strict=True)
    )
    notes = () if images else ("Needs --images-folder for the input images: not given.",)
    text, legend = _recognition_text(schema), Map(schema).legend()
    return Section(title, text, notes, legend=legend, examples=examples)


def rendering_section(inputs: ReportInputs) -> Section:
    """True image, drawn image, and the tokenizer's reconstruction."""
    title = "From scenes to images"
    if inputs.generated_folder is None or inputs.images_folder is None:
        return Section(title, notes=("Needs --generated-folder and --images-folder: not given.",))
    generated = _images(inputs.generated_folder, "generated images")
    true = _images(inputs.images_folder, "true images")
    ceiling = _images(inputs.reconstructed_folder, "reconstructed images")
    notes = [] if ceiling else ["Needs --reconstructed-folder for the tokenizer alone: not given."]
    shared = [name for name in generated if name in true]
    if len(shared) < len(generated):
        notes.append(f"{len(generated) - len(shared)} drawn images have no true image.")
    similarity = {name: _ssim(generated[name], true[name]) for name in shared}
    chosen = spread(sorted(shared, key=lambda name: -similarity[name]), inputs.num_examples)
    columns = (("true", true), ("drawn", generated), ("tokenizer alone", ceiling))
    examples = tuple(
        Example(
            f"{name}: SSIM {similarity[name]:.3f}",
            tuple(Figure(text, image=image_uri(of[name])) for text, of in columns if name in of),
        )
        for name in chosen
    )
    return Section(title, _RENDERING_TEXT, tuple(notes), examples=examples)


def spread(items: Sequence[T], count: int) -> list[T]:
    """``count`` items spread evenly over a sequence, its first and last among them."""
    if len(items) <= count:
        return list(items)
    last = len(items) - 1
    return [items[round(index * last / max(1, count - 1))] for index in range(count)]


def _recognition_text(schema: Schema) -> tuple[str, ...]:
    rendered = _RENDERED_TEXT if schema.drawing.is_traced else ""
    return (
        "The model saw the first image and wrote down the objects in it. "
        f"{rendered}The plot shows both scenes from above.",
        "The scenes are spread evenly over all held-out ones, from the best recognised to the "
        f"worst. Matches are shown for tau {max(schema.rule.taus)}.",
    )


def _rendered(
    pairs: Sequence[ScenePair], folder: Path, schema: Schema, renderer: Renderer
) -> list[str]:
    """The predicted scenes as images; empty where the ray tracer does not know such objects."""
    if not schema.drawing.is_traced:
        return [""] * len(pairs)
    predicted = [pair.predicted or Scene() for pair in pairs]
    environments = [_environment(folder, pair.key, schema) for pair in pairs]
    return render_again(predicted, environments, renderer, Map(schema))


def _recognition_example(
    pair: ScenePair, mean: float, images: Mapping[str, Path], rendered: str, top_down: Map
) -> Example:
    predicted, schema = pair.predicted or Scene(), top_down.schema
    matches = match_objects(predicted, pair.groundtruth, schema.rule, max(schema.rule.taus))
    name = _name(pair.key, schema)
    seen = image_uri(images[name]) if name in images else ""
    figures = [
        Figure("what the model saw", image=seen),
        Figure("what it wrote, rendered again", image=rendered),
    ]
    if top_down.is_possible:
        plot = top_down.plot(predicted, pair.groundtruth, matches)
        figures.append(Figure("both from above", svg=plot))
    shown = tuple(figure for figure in figures if figure.image or figure.svg)
    return Example(f"{name}: Jaccard {mean:.2f}", shown, _remarks(pair, matches, top_down))


def _remarks(pair: ScenePair, matches: Matches, top_down: Map) -> tuple[str, ...]:
    predicted, true = (pair.predicted or Scene()).objects, pair.groundtruth.objects
    wrong = [predicted[index] for index in matches.false_positives]
    lists = (
        ("Missed", [true[index] for index in matches.false_negatives]),
        ("Wrong", [item for item in wrong if top_down.is_drawable(item)]),
        ("Unreadable, not drawn", [item for item in predicted if not top_down.is_drawable(item)]),
    )
    found = f"{len(matches.pairs)} of {len(true)} objects found, {len(predicted)} named."
    described = (
        f"{label}: {'; '.join(map(top_down.describe, items))}." for label, items in lists if items
    )
    return (found, *described)


def _jaccards(taus: Sequence[Any]) -> list[list[float]]:
    return [[scene.jaccard for scene in scores.scenes] for scores in taus]


def _path(key: str, schema: Schema) -> Path:
    """A scene's file inside the folder of true scenes."""
    assert schema.scene_folder is not None, "load_evaluation has read the folder"
    return schema.scene_folder.path_of(key)


def _name(key: str, schema: Schema) -> str:
    return _path(key, schema).stem


def _environment(folder: Path, key: str, schema: Schema) -> dict[str, Any]:
    """Camera and lights of a true scene, where its file says them."""
    scene = read_json(folder / _path(key, schema), "true scene")
    return {name: scene[name] for name in ("world",) if name in scene}


def _images(folder: Path | None, purpose: str) -> dict[str, Path]:
    return images_by_name(folder, purpose) if folder else {}


def _ssim(generated: Path, true: Path) -> float:
    return ssim(ImagePair.read(generated, true))
