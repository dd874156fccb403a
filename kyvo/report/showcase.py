"""A model's own page: what it does with a few new items, one section for each of its tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from PIL import Image

from kyvo.metrics import ImagePair, match_objects
from kyvo.metrics.images import ssim
from kyvo.report.content import Example, Figure, Headline, Section
from kyvo.report.images import Renderer, array_uri, render_again
from kyvo.report.top_down import Map
from kyvo.scenes import Scene, Schema

_NOT_LEARNED = "This model was not trained on this task."


@dataclass(frozen=True)
class Item:
    """A scene and its image.

    Attributes:
        scene: its objects.
        image: of the true world.
        values: the scene's file, with its camera and its lights.
    """

    scene: Scene
    image: Image.Image
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Edit:
    """An instruction, what it starts from and leads to, and what the model made of it.

    Attributes:
        instruction: in words.
        source, target: before and after, in truth.
        image: the model's; None: it wrote no whole one.
        scene: the model's.
    """

    instruction: str
    source: Item
    target: Item
    image: Image.Image | None
    scene: Scene


@dataclass(frozen=True)
class Answer:
    """A question about an item, its true answer, and the model's."""

    item: Item
    question: str
    truth: str
    answer: str

    @property
    def is_right(self) -> bool:
        """Whether both answers are the same."""
        return self.answer == self.truth


def scene_jaccard(predicted: Scene, true: Scene, schema: Schema) -> float:
    """Mean Jaccard index over the schema's taus; 1 if both are empty."""
    found = [match_objects(predicted, true, schema.rule, tau) for tau in schema.rule.taus]
    return fmean(
        len(m.pairs) / max(1, len(m.pairs) + len(m.false_positives) + len(m.false_negatives))
        if predicted.objects or true.objects
        else 1.0
        for m in found
    )


def recognition_part(
    items: Sequence[Item], found: Sequence[Scene], schema: Schema, renderer: Renderer
) -> tuple[Section, Headline]:
    """The image, the model's scene rendered again, and both scenes from above."""
    top_down = Map(schema)
    images = render_again(found, [item.values for item in items], renderer, top_down)
    values = [scene_jaccard(s, item.scene, schema) for s, item in zip(found, items, strict=True)]
    examples = []
    for item, scene, image, value in zip(items, found, images, values, strict=True):
        matches = match_objects(scene, item.scene, schema.rule, max(schema.rule.taus))
        figures = (
            _captioned("what the model saw", item.image),
            Figure("what it wrote, rendered", image=image),
            Figure("both from above", svg=top_down.plot(scene, item.scene, matches)),
        )
        count = f"{len(matches.pairs)} of {len(item.scene.objects)} objects found"
        examples.append(Example(f"{count}: Jaccard {value:.2f}", figures))
    text = "The model saw the image and wrote down the objects in it, with their places."
    section = Section(
        "Recognition: from an image to its scene",
        (text,),
        legend=top_down.legend(),
        examples=tuple(examples),
    )
    return section, Headline(f"{fmean(values):.2f}", "recognition", "mean Jaccard index")


def rendering_part(
    items: Sequence[Item], drawn: Sequence[Image.Image | None]
) -> tuple[Section, Headline]:
    """The true image and the model's."""
    values, examples = [], []
    for item, image in zip(items, drawn, strict=True):
        value = ssim(ImagePair(np.asarray(image), np.asarray(item.image))) if image else 0.0
        figures = (_captioned("the ray tracer", item.image), _captioned("the model", image))
        values.append(value)
        examples.append(Example(f"{len(item.scene.objects)} objects: SSIM {value:.3f}", figures))
    text = "The model read the list of objects and wrote an image of them, code by code."
    section = Section("Rendering: from a scene to its image", (text,), examples=tuple(examples))
    return section, Headline(f"{fmean(values):.3f}", "rendering", "mean SSIM")


def editing_part(
    edits: Sequence[Edit], schema: Schema, renderer: Renderer
) -> tuple[Section, Headline]:
    """Source, words, the model's image, its scene rendered, and the true result."""
    scenes, targets = [edit.scene for edit in edits], [edit.target for edit in edits]
    images = render_again(scenes, [item.values for item in targets], renderer, Map(schema))
    values = [scene_jaccard(edit.scene, edit.target.scene, schema) for edit in edits]
    examples = []
    for edit, image, value in zip(edits, images, values, strict=True):
        figures = (
            _captioned("before", edit.source.image),
            _captioned("the model's image", edit.image),
            Figure("the model's scene, rendered", image=image),
            _captioned("after, in truth", edit.target.image),
        )
        examples.append(Example(edit.instruction, figures, (f"Jaccard of the scene {value:.2f}.",)))
    text = "The model read image, scene and instruction, and wrote the new image and scene."
    section = Section("Instructions: an edit in words", (text,), examples=tuple(examples))
    return section, Headline(f"{fmean(values):.2f}", "instructions", "mean Jaccard index")


def question_part(answers: Sequence[Answer]) -> tuple[Section, Headline]:
    """The image, the question, both answers."""
    examples = tuple(
        Example(
            one.question,
            (_captioned("", one.item.image),),
            (
                f"The model: {one.answer or 'nothing'} ({'right' if one.is_right else 'wrong'}).",
                f"In truth: {one.truth}.",
            ),
        )
        for one in answers
    )
    right = sum(one.is_right for one in answers)
    text = "The model read image, scene and question, and wrote the answer."
    section = Section("Questions about a scene", (text,), examples=examples)
    return section, Headline(f"{right} of {len(answers)}", "questions", "answered rightly")


def missing_part(title: str) -> tuple[Section, None]:
    """In place of a task that the model was not trained on."""
    return Section(title, notes=(_NOT_LEARNED,)), None


def _captioned(caption: str, image: Image.Image | None) -> Figure:
    if image is None:
        return Figure(f"{caption}: no whole one", image="data:,")
    return Figure(caption, image=array_uri(np.asarray(image)))
