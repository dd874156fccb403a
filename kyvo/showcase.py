"""Asks a model for every task that it has learned, about scenes that are drawn now."""

from collections.abc import Callable, Iterator
from typing import Any

from PIL import Image

from kyvo.api import Kyvo
from kyvo.common.errors import TaskError
from kyvo.prepare.tokenization import ObjectOrder, in_order
from kyvo.report.content import Headline, Section
from kyvo.report.showcase import (
    Answer,
    Edit,
    Item,
    editing_part,
    missing_part,
    question_part,
    recognition_part,
    rendering_part,
)
from kyvo.world import tasks as world_tasks
from kyvo.world.clevr.rendering import render_json
from kyvo.world.render.tracer import render

_RAYS = 2
Part = tuple[Section, Headline | None]


class Showcase:
    """A model, and new items for it."""

    def __init__(self, model: Kyvo, count: int, seed: int, order: ObjectOrder) -> None:
        self.model, self._count, self._seed, self._order = model, count, seed, order

    def parts(self) -> Iterator[Part]:
        """A section for each task."""
        tasks: dict[str, Callable[[], Part]] = {
            "Recognition": self.recognition,
            "Rendering": self.rendering,
            "Instructions": self.editing,
            "Questions": self.questions,
        }
        for title, make in tasks.items():
            print(title, flush=True)
            try:
                yield make()
            except TaskError:
                yield missing_part(title)

    def recognition(self) -> Part:
        """Scenes from images."""
        items = [self._item(drawn.scenes[""]) for drawn in self._draw("scenes")]
        found = self.model.recognize([item.image for item in items])
        return recognition_part(items, found, self.model.schema, render_json)

    def rendering(self) -> Part:
        """Images from scenes."""
        items = [self._item(drawn.scenes[""]) for drawn in self._draw("scenes")]
        return rendering_part(items, self.model.render([item.scene for item in items]))

    def editing(self) -> Part:
        """Images and scenes after an instruction."""
        drawn = self._draw("instructions")
        sources = [self._item(one.scenes["source"]) for one in drawn]
        targets = [self._item(one.scenes["target"]) for one in drawn]
        words = [one.texts["instructions"]["instruction"] for one in drawn]
        images, scenes = [item.image for item in sources], [item.scene for item in sources]
        edited = self.model.edit(images, scenes, words)
        edits = [
            Edit(text, source, target, made.image, made.scene)
            for text, source, target, made in zip(words, sources, targets, edited, strict=True)
        ]
        return editing_part(edits, self.model.schema, render_json)

    def questions(self) -> Part:
        """Answers to questions about a scene."""
        drawn = self._draw("questions")
        items = [self._item(one.scenes[""]) for one in drawn]
        texts = [one.texts["questions"] for one in drawn]
        asked = [text["question"] for text in texts]
        images, scenes = [item.image for item in items], [item.scene for item in items]
        found = self.model.answer(images, scenes, asked)
        return question_part(
            [
                Answer(item, text["question"], text["answer"], answer)
                for item, text, answer in zip(items, texts, found, strict=True)
            ]
        )

    def _draw(self, task: str) -> list[world_tasks.Item]:
        options = world_tasks.scene_options(task)
        world = world_tasks.get_task(task)
        return world.sample_many(range(self._count), "test", self._seed, options)

    def _item(self, scene: world_tasks.Scene) -> Item:
        values: dict[str, Any] = scene.to_json()
        objects = self.model.schema.parse_scene(values["objects"], "scene")
        ordered = in_order(objects, self._order, values["directions"], "scene")
        side = self.model.image_size
        (pixels,) = render([scene], side, side, _RAYS, seed=self._seed)
        return Item(ordered, Image.fromarray(pixels), values)
