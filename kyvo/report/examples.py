"""The sections of single scenes: what was recognised, and what was drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

from kyvo.common.files import read_json
from kyvo.metrics import (
    PAPER_TAUS,
    RULES,
    Matches,
    ScenePair,
    image_similarity,
    load_evaluation,
    match_objects,
    score_scenes,
)
from kyvo.metrics.images import images_by_name, read_grey
from kyvo.metrics.scene_files import SCENE_FOLDERS
from kyvo.report.content import Example, Figure, Section
from kyvo.report.inputs import ReportInputs
from kyvo.report.pictures import Renderer, image_uri, render_again
from kyvo.report.top_down import describe, is_drawable, legend, plot_scene

T = TypeVar("T")
_TAU = max(PAPER_TAUS)

_RECOGNITION_TEXT = (
    "The model saw the first picture and wrote down the objects in it. The second is that list, "
    "rendered again by the ray tracer with the camera and the lamps of the true scene. The plot "
    "shows both scenes from above; the list holds no rotation, so cubes are drawn straight.",
    "The scenes are spread evenly over all held-out ones, from the best recognised to the worst. "
    f"Matches are shown for tau {_TAU}.",
)
_RENDERING_TEXT = (
    "The model read a list of objects and wrote the codes of a picture, which the tokenizer's "
    "decoder turned into pixels. The tokenizer alone shows the true picture written as codes and "
    "read back, which is about the best that the model can do.",
    "The pictures are spread evenly over all of them, from the most to the least like the true one "
    "(by SSIM).",
)


def recognition_section(inputs: ReportInputs, renderer: Renderer) -> Section:
    """Input picture, predicted scene rendered again, and both scenes from above."""
    title = "From pictures to scenes"
    if inputs.predictions is None or inputs.scenes_folder is None:
        return Section(title, notes=("Needs --predictions and --scenes-folder: not given.",))
    evaluation = load_evaluation(inputs.predictions, inputs.scenes_folder)
    scores = score_scenes(evaluation)
    means = [fmean(parts) for parts in zip(*_jaccards(scores.taus), strict=True)]
    ranked = sorted(zip(means, evaluation.pairs, strict=True), key=lambda part: -part[0])
    chosen = spread(ranked, inputs.num_examples)
    pairs = [pair for _, pair in chosen]
    rendered = render_again(
        [pair.predicted or () for pair in pairs],
        [_true_scene(inputs.scenes_folder, pair.key) for pair in pairs],
        renderer,
    )
    images = _images(inputs.images_folder, "true images")
    examples = tuple(
        _recognition_example(pair, mean, images, picture)
        for (mean, pair), picture in zip(chosen, rendered, strict=True)
    )
    notes = () if images else ("Needs --images-folder for the input pictures: not given.",)
    return Section(title, _RECOGNITION_TEXT, notes, legend=legend(), examples=examples)


def rendering_section(inputs: ReportInputs) -> Section:
    """True picture, drawn picture, and the tokenizer's reconstruction."""
    title = "From scenes to pictures"
    if inputs.generated_folder is None or inputs.images_folder is None:
        return Section(title, notes=("Needs --generated-folder and --images-folder: not given.",))
    generated = _images(inputs.generated_folder, "generated images")
    true = _images(inputs.images_folder, "true images")
    ceiling = _images(inputs.reconstructed_folder, "reconstructed images")
    notes = [] if ceiling else ["Needs --reconstructed-folder for the tokenizer alone: not given."]
    shared = [name for name in generated if name in true]
    if len(shared) < len(generated):
        notes.append(f"{len(generated) - len(shared)} drawn pictures have no true picture.")
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


def _recognition_example(
    pair: ScenePair, mean: float, images: Mapping[str, Path], picture: str
) -> Example:
    predicted = pair.predicted or ()
    matches = match_objects(predicted, pair.groundtruth, RULES["clevr"], _TAU)
    name = _name(pair.key)
    seen = [image_uri(images[name])] if name in images else []
    figures = (
        *(Figure("what the model saw", image=image) for image in seen),
        Figure("what it wrote, rendered again", image=picture),
        Figure("both from above", svg=plot_scene(predicted, pair.groundtruth, matches)),
    )
    return Example(f"{name}: Jaccard {mean:.2f}", figures, _remarks(pair, matches))


def _remarks(pair: ScenePair, matches: Matches) -> tuple[str, ...]:
    predicted = pair.predicted or ()
    wrong = [predicted[index] for index in matches.false_positives]
    lists = (
        ("Missed", [pair.groundtruth[index] for index in matches.false_negatives]),
        ("Wrong", [item for item in wrong if is_drawable(item)]),
        ("Unreadable, not drawn", [item for item in predicted if not is_drawable(item)]),
    )
    found = (
        f"{len(matches.pairs)} of {len(pair.groundtruth)} objects found, {len(predicted)} named."
    )
    told = (f"{label}: {'; '.join(map(describe, items))}." for label, items in lists if items)
    return (found, *told)


def _jaccards(taus: Sequence[Any]) -> list[list[float]]:
    return [[scene.jaccard for scene in scores.scenes] for scores in taus]


def _name(key: str) -> str:
    return SCENE_FOLDERS["clevr"].path_of(key).stem


def _true_scene(folder: Path, key: str) -> dict[str, Any]:
    scene: dict[str, Any] = read_json(folder / SCENE_FOLDERS["clevr"].path_of(key), "true scene")
    return scene


def _images(folder: Path | None, purpose: str) -> dict[str, Path]:
    return images_by_name(folder, purpose) if folder else {}


def _ssim(generated: Path, true: Path) -> float:
    return image_similarity(read_grey(generated), read_grey(true)).ssim
