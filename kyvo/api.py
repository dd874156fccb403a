"""The Python door: open a model, then recognize, render, edit and answer.

    import kyvo

    model = kyvo.load("checkpoints/clevr/unified")
    scenes = model.recognize([image])
    images = model.render(scenes)

Everything comes in lists of equal length and goes out in their order. Images are PIL's, of any
size; scenes are ``kyvo.scenes.Scene``, whose objects ``model.schema`` makes and reads. A model may
write what is no whole image or object: none of that comes out, and ``model.report`` counts it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from kyvo.common.devices import resolve_device, resolve_precision
from kyvo.common.errors import InputError, TaskError
from kyvo.common.image_files import image_array
from kyvo.common.weight_files import compact
from kyvo.decoding import (
    Engine,
    GenerationSettings,
    Numbers,
    Output,
    OutputReader,
    number_values,
)
from kyvo.decoding.grammar import output_automaton
from kyvo.images.codec import CodecPrecision, ImageCodec
from kyvo.models import (
    MODEL,
    KyvoModel,
    find_weights,
    load_released,
    released_state_dict,
    resolve_dtype,
    write_folder,
)
from kyvo.models.description import (
    IMAGE_TOKENIZER,
    ModelDescription,
    description_files,
    open_codec,
    open_image_tokenizer,
    read_description,
)
from kyvo.models.image_input import ImageInputOptions
from kyvo.scenes import ParseReport, Scene, SceneCodec, Schema
from kyvo.tokens.sequences import SequenceBuilder, Task, get_task
from kyvo.tokens.vocabulary import BRACKETS, Modality

_CODEBOOKS = ("vqgan_codebook.weight", "quantize.embedding.weight")
"""How their names end, in the model and in the image tokenizer."""
Contents = Mapping[Modality, Sequence[np.ndarray]]
"""Codes or pixels of images, or ids of scenes or texts, of every sample."""


@dataclass(frozen=True)
class Edited:
    """An image and its scene after an instruction.

    Attributes:
        image: None if the model did not write a whole one.
        scene: the objects of which every field could be read.
    """

    image: Image.Image | None
    scene: Scene


def load(
    path: Path | str,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: CodecPrecision = "auto",
    batch_size: int = 32,
    compiled: bool = False,
    numbers: Numbers = "expected",
) -> "Kyvo":
    """Open the model of a run's folder (its newest checkpoint), of a checkpoint, or ``mini``.

    Args:
        path: a folder, or ``mini``: the model that comes with the package (kyvo/assets/mini).
        precision: of the weights and of the image tokenizer; auto: bf16 where the device
            multiplies such numbers itself.
        batch_size: samples that are decoded together.
        compiled: compile decoding; pays for thousands of samples.
        numbers: of scenes: the means over the grid's values around the chosen ones, which are
            finer than the grid (expected), or the chosen ones (best).

    Raises:
        InputError: there is no whole checkpoint, or it does not say what it is.
    """
    weights = find_weights(Path(path))
    description = read_description(weights.parent)
    if description is None:
        raise InputError(
            f"checkpoint: {weights}: no kyvo.json beside it, which says what the weights are. "
            "Train with this project, or generate from a config with scripts/generate_3d.py."
        )
    place = resolve_device(device)
    chosen = resolve_precision(precision, place, "bf16", "fp32")
    model = description.build_model()
    load_released(model, weights)
    model.to(place, resolve_dtype(chosen)).eval()
    model.tok_embeddings.materialize_table()
    return Kyvo(description, model, chosen, batch_size, compiled, numbers)


class Kyvo:
    """A model with its tokenizers, ready to be asked.

    Attributes:
        description: what the model is: its size, vocabulary, schema and tasks.
        model: on its device, in the precision of ``image_codec`` too.
        batch_size: samples that are decoded together.
        report: of the last call: how many scenes and objects the model wrote, how many of the
            objects were whole, and by reason what could not be read.
    """

    def __init__(
        self,
        description: ModelDescription,
        model: KyvoModel,
        precision: CodecPrecision,
        batch_size: int,
        compiled: bool,
        numbers: Numbers,
    ) -> None:
        self.description, self.model, self.batch_size = description, model, batch_size
        self.device = model.output.weight.device
        self._precision = precision
        self._compiled = compiled
        self._numbers = number_values(numbers, description.vocabulary)
        self.report = ParseReport()
        self._engines: dict[str, Engine] = {}

    @property
    def schema(self) -> Schema:
        """Fields and words of an object."""
        return self.codec.schema

    @property
    def image_size(self) -> int:
        """Side of the images that it reads and writes, in pixels."""
        pixels = self._pixels
        return pixels.image_size if pixels is not None else self.image_codec.config.resolution

    @cached_property
    def codec(self) -> SceneCodec:
        """Writer and reader of scenes."""
        return open_codec(self.description)

    @cached_property
    def image_codec(self) -> ImageCodec:
        """The image tokenizer."""
        model = open_image_tokenizer(self.description)
        return ImageCodec(model, self.device, self.batch_size, self._precision)

    def recognize(self, images: Sequence[Image.Image]) -> list[Scene]:
        """The scene in each image, which ``render`` takes as it is.

        An object that could be read only in part is left out and counted in ``report``: most
        often the last one, where the model wrote more objects than have room.
        """
        task = self._task({"image"}, {"three_d"})
        outputs = self._generate(task, {"image": self._image_contents(images)})
        return [self._scene(output) for output in outputs]

    def render(self, scenes: Sequence[Scene]) -> list[Image.Image | None]:
        """An image of each scene; None where the model did not write a whole one.

        Objects are written in the order given: best that of the training data.

        Raises:
            InputError: an object does not fit the schema.
        """
        task = self._task({"three_d"}, {"image"})
        return self._images(self._generate(task, {"three_d": self._scenes(scenes)}))

    def edit(
        self, images: Sequence[Image.Image], scenes: Sequence[Scene], instructions: Sequence[str]
    ) -> list[Edited]:
        """Each image and its scene after its instruction, such as "Remove the red cube."."""
        task = self._task({"image", "three_d", "text"}, {"image", "three_d"})
        outputs = self._generate(task, self._contents(images, scenes, instructions))
        edited = zip(self._images(outputs), outputs, strict=True)
        return [Edited(image, self._scene(output)) for image, output in edited]

    def answer(
        self, images: Sequence[Image.Image], scenes: Sequence[Scene], questions: Sequence[str]
    ) -> list[str]:
        """The answer to each question about an image and its scene, such as "yes" or "3"."""
        task = self._task({"image", "three_d", "text"}, {"text"})
        outputs = self._generate(task, self._contents(images, scenes, questions))
        return [_plain_text(output.answer or "") for output in outputs]

    def save(self, folder: Path | str, compacted: bool = False) -> None:
        """Write the model and all that belongs to it as one folder, which ``load`` opens.

        ``compacted``: matrices of the model and of its image tokenizer as int8 with a scale for
        each row, a quarter of float32; a codebook, whose exact vectors say whose codes they are,
        stays as it is.

        Raises:
            InputError: the folder exists already, or cannot be written.
        """
        weights = {MODEL: released_state_dict(self.model)}
        files = {**weights, **description_files(self.description)}
        if compacted:
            for name in {MODEL, IMAGE_TOKENIZER} & files.keys():
                files[name] = compact(files[name], whole=_CODEBOOKS)
        write_folder(Path(folder), files)

    def _task(self, inputs: set[Modality], outputs: set[Modality]) -> Task:
        """The task that the model was trained on and that reads and writes these modalities."""
        for task in map(get_task, self.description.tasks):
            read = {segment.modality for segment in task.inputs}
            written = {segment.modality for segment in task.outputs}
            if (read, written) == (inputs, outputs):
                return task
        raise TaskError(
            f"this model was trained on {', '.join(self.description.tasks)}: it cannot go from "
            f"{' + '.join(sorted(inputs))} to {' + '.join(sorted(outputs))}."
        )

    def _contents(
        self, images: Sequence[Image.Image], scenes: Sequence[Scene], texts: Sequence[str]
    ) -> Contents:
        if not len(images) == len(scenes) == len(texts):
            raise InputError(
                f"{len(images)} images, {len(scenes)} scenes and {len(texts)} texts: expected "
                "lists of equal length."
            )
        return {
            "image": self._image_contents(images),
            "three_d": self._scenes(scenes),
            "text": self._texts(texts),
        }

    @property
    def _pixels(self) -> ImageInputOptions | None:
        """What the model makes of an image's pixels; None: it reads codes."""
        part = self.model.image_input
        return part.options if part is not None and part.options.kind == "pixels" else None

    def _image_contents(self, images: Sequence[Image.Image]) -> Sequence[np.ndarray]:
        """What the model reads of each image: its pixels, or its codes."""
        arrays = [
            image_array(image, self.image_size, f"image {i}") for i, image in enumerate(images)
        ]
        if self._pixels is not None or not arrays:
            return arrays
        return list(self.image_codec.encode(np.stack(arrays)).reshape(len(images), -1))

    def _scenes(self, scenes: Sequence[Scene]) -> Sequence[np.ndarray]:
        return [
            np.array(self.codec.encode(scene, f"scene {i}"), dtype=np.int64)
            for i, scene in enumerate(scenes)
        ]

    def _texts(self, texts: Sequence[str]) -> Sequence[np.ndarray]:
        # A blank comes first, as in the training data.
        start, end = (self.codec.vocabulary.marker_id(marker) for marker in BRACKETS["text"])
        encode = self.codec.tokenizer.encode
        return [np.array([start, *encode(f" {text}"), end], dtype=np.int64) for text in texts]

    def _generate(self, task: Task, contents: Contents) -> list[Output]:
        description, vocabulary = self.description, self.codec.vocabulary
        places = self._pixels.num_tokens if self._pixels is not None else None
        builder = SequenceBuilder(vocabulary, task, description.centre_first, pixel_tokens=places)
        count = len(contents[task.inputs[0].modality])
        prompts = [
            builder.prompt({part: contents[part.modality][i] for part in task.inputs})
            for i in range(count)
        ]
        images = contents["image"] if builder.reads_pixels else None
        found = dict(self._engine(task).generate(prompts, images=images))
        codes, order = description.codes_per_image, description.centre_first
        reader = OutputReader(task, self.codec, codes, order)
        outputs = [reader.read(found[i].ids, found[i].values) for i in range(count)]
        self.report = ParseReport()
        for output in outputs:
            self.report.add(output.report)
        return outputs

    def _engine(self, task: Task) -> Engine:
        """The engine of a task, built at its first use."""
        if task.name not in self._engines:
            length = self.model.max_seq_len
            codes = self.description.codes_per_image
            settings = GenerationSettings(
                eos=self.codec.vocabulary.eos,
                max_new_tokens=length,
                automaton=output_automaton(task, self.codec, codes),
                compiled=self._compiled,
                numbers=self._numbers,
            )
            # One cache for all: a call ends before the next one begins.
            cache = next((engine.cache for engine in self._engines.values()), None)
            self._engines[task.name] = Engine(self.model, settings, self.batch_size, length, cache)
        return self._engines[task.name]

    def _scene(self, output: Output) -> Scene:
        return self.schema.complete(output.scene or Scene())

    def _images(self, outputs: Sequence[Output]) -> list[Image.Image | None]:
        whole = [output.codes for output in outputs if output.codes is not None]
        if not whole:
            return [None] * len(outputs)
        side = self.image_codec.config.codes_per_side
        arrays = iter(self.image_codec.decode(np.stack(whole).reshape(-1, side, side)))
        return [
            Image.fromarray(next(arrays)) if output.codes is not None else None
            for output in outputs
        ]


def _plain_text(answer: str) -> str:
    """An answer without its markers and the end of the sequence."""
    start, end = BRACKETS["text"]
    return answer.partition(start)[2].partition(end)[0].strip()
