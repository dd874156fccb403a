"""Training samples straight from the world: drawn, rendered and tokenised as training goes.

Nothing is stored and nothing is repeated. Worker processes draw scenes, put them into words and
tokens, and make batches in which images are missing; the training's device renders the images,
encodes them, and puts their codes where they belong. Sample i of a split is a function of seed and
i alone, so that any part of a stream can be had from its place.

Until an image's codes are known, its tokens are the vocabulary's size plus their number among all
codes of the batch: each is the address of its own code.

Shapes: B samples, G images of a batch, c codes of an image, H and W pixels.
"""

import os
import random
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kyvo.common import workers
from kyvo.common.errors import InputError
from kyvo.data.batches import Batch, BatchSettings, collate, length_buckets
from kyvo.data.transfer import map_tensors, moved, packed
from kyvo.images.checkpoint import RUN_WEIGHTS, load_vqgan
from kyvo.images.codebook import codebook_hash
from kyvo.images.codec import ImageCodec
from kyvo.prepare.tokenization import ObjectOrder, in_order
from kyvo.scenes import Scene, SceneCodec, get_schema
from kyvo.tokens.sequences import CentreFirst, Sample, Segment, SequenceBuilder, Task, get_task
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import Vocabulary
from kyvo.world import tasks as world_tasks
from kyvo.world.clevr.scene import ClevrScene
from kyvo.world.questions import ask
from kyvo.world.render.scene_batch import SceneBatch, build_scene_batch
from kyvo.world.render.tracer import render_batch

Split = Literal["train", "val"]
"""Worlds on disk keep ``test``: a stream cannot draw it."""
DRAWN_TOGETHER = 2048
"""Samples that a worker draws and sorts by length at a time: fewer cost more each, and pad more."""
FIRST_NOISE, NUM_NOISES = 1 << 16, 256
"""Seeds of the renderer's noise, one a batch. With a single one a model learns the noise itself,
and reads images that have another one badly. Seeds below are for images that are tested on."""
_NICENESS = 10
"""Of workers: where cores are short, the training's own process comes first."""
_ENCODED_AT_ONCE = 128
_NUM_PROBED = 256


@dataclass(frozen=True)
class StreamedSample:
    """A sample whose images are still scenes.

    Attributes:
        sample: its tokens; those of images are addresses, counted from its own first code.
        read: the scene whose pixels the model reads; None: it reads none.
        coded: the scenes whose codes its tokens are, in the order of the addresses.
    """

    sample: Sample
    read: world_tasks.Scene | None
    coded: tuple[world_tasks.Scene, ...]


@dataclass(frozen=True)
class StreamBatch(Batch):
    """A batch whose images are still scenes.

    Attributes:
        scenes: of all images, first those whose pixels are read.
        pixel_index_B: which image's pixels each sample reads; 0 where it reads none.
        num_read: how many images are read as pixels; the others are coded.
        noise: seed of the renderer's noise in all images of the batch.
    """

    scenes: SceneBatch = field(kw_only=True)
    pixel_index_B: Tensor = field(kw_only=True)
    num_read: int = field(kw_only=True)
    noise: int = field(kw_only=True)


@dataclass(frozen=True)
class SampleMaker:
    """Makes samples of a stream, on the CPU; a worker process has a copy.

    Attributes:
        builders: of the tasks.
        shares: how often each task is drawn; they sum to 1.
        codec: writer of scenes.
        order: of a scene's objects.
        codes_per_image: codes of an image; 0: no task has any.
        split: whose scenes are drawn.
        seed: of everything.
        options: of the scenes.
        questions_per_scene: questions that a sample asks about its scene, one after the other.
    """

    builders: tuple[SequenceBuilder, ...]
    shares: tuple[float, ...]
    codec: SceneCodec
    order: ObjectOrder
    codes_per_image: int
    split: Split
    seed: int
    options: Any
    questions_per_scene: int = 1

    def make(self, indices: Sequence[int]) -> list[StreamedSample]:
        """The samples of these numbers."""
        drawn = [self._draw_task(index) for index in indices]
        found: dict[int, StreamedSample] = {}
        for builder in self.builders:
            chosen = [i for i, task in zip(indices, drawn, strict=True) if task is builder]
            if chosen:
                world = world_tasks.get_task(_world_task(builder.task))
                items = world.sample_many(chosen, self.split, self.seed, self.options)
                for index, item in zip(chosen, items, strict=True):
                    found[index] = self._sample(builder, item, index)
        return [found[index] for index in indices]

    def key(self, index: int) -> str:
        """The name of a sample."""
        return f"{self.split}/{index}"

    def _draw_task(self, index: int) -> SequenceBuilder:
        chance = random.Random(f"{self.seed}/{self.split}/{index}/task")
        return chance.choices(self.builders, self.shares)[0]

    def _sample(
        self, builder: SequenceBuilder, item: world_tasks.Item, index: int
    ) -> StreamedSample:
        contents: dict[Segment, np.ndarray] = {}
        remainders: dict[Segment, np.ndarray] = {}
        coded: list[world_tasks.Scene] = []
        read = None
        for segment in builder.task.segments:
            if segment.modality == "text":
                contents[segment] = self._text(item.texts, segment)
            elif segment.modality == "three_d":
                contents[segment], remainders[segment] = self._scene(item, segment)
            elif builder.reads_pixels and segment in builder.task.inputs:
                read = _scene_of(item, segment)
            else:
                contents[segment] = self._addresses(len(coded))
                coded.append(_scene_of(item, segment))
        turns = self._next_questions(builder, item, index)
        return StreamedSample(builder.build(contents, remainders, turns), read, tuple(coded))

    def _next_questions(
        self, builder: SequenceBuilder, item: world_tasks.Item, index: int
    ) -> list[dict[Segment, np.ndarray]]:
        """Further questions about an item's scene and their answers; none of another task."""
        if "questions" not in item.texts:
            return []
        scene, texts = item.scenes[""], [s for s in builder.task.segments if s.modality == "text"]
        assert isinstance(scene, ClevrScene)
        turns = []
        for turn in range(1, self.questions_per_scene):
            random_ = random.Random(f"{self.seed}/{self.split}/{index}/question/{turn}")
            values = {"questions": ask(scene, random_).to_json()}
            turns.append({segment: self._text(values, segment) for segment in texts})
        return turns

    def _text(self, texts: Mapping[str, Any], segment: Segment) -> np.ndarray:
        start, end = self.codec.vocabulary.brackets("text")
        (kind,) = texts
        text = texts[kind][_TEXTS[segment.side, kind]]
        # A blank comes first, as in the files.
        return np.array([start, *self.codec.tokenizer.encode(f" {text}"), end], dtype=np.int64)

    def _scene(self, item: world_tasks.Item, segment: Segment) -> tuple[np.ndarray, np.ndarray]:
        values = _scene_of(item, segment).to_json()
        # The codec checks what it writes.
        scene = Scene(tuple(map(self.codec.schema.read, values["objects"])))
        scene = in_order(scene, self.order, values.get("directions"), "scene")
        ids, remainders = self.codec.encode_with_remainders(scene)
        return np.array(ids, dtype=np.int64), np.array(remainders, dtype=np.float32)

    def _addresses(self, image: int) -> np.ndarray:
        """Codes that become the addresses of the sample's image number ``image``."""
        vocabulary, count = self.codec.vocabulary, self.codes_per_image
        return np.arange(count) + (vocabulary.size - vocabulary.image.start + image * count)


class WorldStream:
    """A ``BatchSource`` over a ``SampleMaker``; see ``world_stream``."""

    def __init__(
        self, maker: SampleMaker, num_samples: int, vqgan: Path | None, frame: "Frame"
    ) -> None:
        self.maker, self.builders = maker, maker.builders
        self.excluded: list[str] = []
        self._num_samples, self._vqgan, self._frame = num_samples, vqgan, frame

    def __len__(self) -> int:
        return self._num_samples

    @property
    def codes_per_image(self) -> int:
        """Image codes of every image; 0 where no task has one."""
        return self.maker.codes_per_image

    def files(self) -> dict[str, Path]:
        """The weights of the VQGAN, where codes are made."""
        return {"vqgan": self._vqgan / RUN_WEIGHTS} if self._vqgan is not None else {}

    def codebooks(self) -> dict[str, str | None]:
        """SHA-256 of the VQGAN's codebook."""
        if not self.codes_per_image or self._vqgan is None:
            return {}
        codebook = load_vqgan(self._vqgan).codebook.numpy(force=True)
        return {f"vqgan {self._vqgan}": codebook_hash(codebook)}

    @property
    def length_range(self) -> tuple[int, int]:
        """Tokens of the shortest and the longest of the first samples."""
        return len(self._probe[0][1].tokens), len(self._probe[-1][1].tokens)

    def longest(self, count: int) -> list[tuple[str, Sample]]:
        """Of the first samples, those with most tokens, the longest last."""
        return self._probe[-count:]

    @cached_property
    def _probe(self) -> list[tuple[str, Sample]]:
        """Some samples, by their length."""
        indices = range(min(_NUM_PROBED, len(self)))
        made = zip(indices, self.maker.make(indices), strict=True)
        samples = [(self.maker.key(index), streamed.sample) for index, streamed in made]
        return sorted(samples, key=lambda pair: len(pair[1].tokens))

    def batches(self, epoch: int, first: int, settings: BatchSettings) -> Iterable[Batch]:
        """The batches of ``epoch`` from number ``first`` on, on the host, without images."""
        pools = _Pools(self.maker, len(self), epoch, settings)
        loaded = workers.load(
            pools,
            _start_worker,
            batch_size=None,
            sampler=range(first // pools.num_batches, len(pools)),
            num_workers=settings.num_workers,
            generator=torch.Generator(),
        )
        batches = (batch for pool in loaded for batch in pool)
        for batch in islice(batches, first % pools.num_batches, None):
            yield packed(batch, settings.pin_memory)

    @torch.no_grad()
    def place(self, batch: Batch, device: torch.device) -> Batch:
        """The batch on ``device``, with its images rendered and encoded there."""
        assert isinstance(batch, StreamBatch)
        batch = moved(batch, device)
        images_GHWC = self._frame.render(batch.scenes, batch.noise)
        read_GHWC, coded_GHWC = images_GHWC.tensor_split((batch.num_read,))
        if len(read_GHWC):
            batch = replace(batch, pixels_BHWC=read_GHWC[batch.pixel_index_B])
        if not len(coded_GHWC):
            return batch
        codes_Ghw = self._image_codec(device).encode_on_device(coded_GHWC)
        vocabulary = self.maker.codec.vocabulary
        ids = codes_Ghw.flatten() + vocabulary.image.start

        def filled(tokens: Tensor) -> Tensor:
            address = (tokens - vocabulary.size).clamp_min(0)
            return torch.where(tokens < vocabulary.size, tokens, ids[address])

        tokens_BL, labels_N = filled(batch.tokens_BL), filled(batch.labels_N)
        return replace(batch, tokens_BL=tokens_BL, labels_N=labels_N)

    def _image_codec(self, device: torch.device) -> ImageCodec:
        if "_codec" not in self.__dict__:
            assert self._vqgan is not None, "world_stream asks for it"
            model = load_vqgan(self._vqgan)
            compiled = device.type == "cuda"
            self._codec = ImageCodec(model, device, _ENCODED_AT_ONCE, "auto", compiled)
        return self._codec


@dataclass(frozen=True)
class Frame:
    """How images are rendered: side in pixels, and rays through each."""

    image_size: int
    samples_per_pixel: int

    def render(self, scenes: SceneBatch, noise: int) -> Tensor:
        """Images (G, H, W, 3), uint8, on the scenes' device."""
        side = self.image_size
        return render_batch(scenes, side, side, self.samples_per_pixel, noise)


def _start_worker() -> None:
    os.nice(_NICENESS)


class _Pools(Dataset[list[StreamBatch]]):
    """Item p is the epoch's batches from number ``p * num_batches`` on, as arrays."""

    def __init__(
        self, maker: SampleMaker, num_samples: int, epoch: int, settings: BatchSettings
    ) -> None:
        self._maker, self._settings, self._epoch = maker, settings, epoch
        self._samples = range(epoch * num_samples, (epoch + 1) * num_samples)
        self.num_batches = max(1, DRAWN_TOGETHER // settings.batch_size)
        self._at_once = self.num_batches * settings.batch_size

    def __len__(self) -> int:
        return -(-len(self._samples) // self._at_once)

    def __getitem__(self, pool: int) -> list[StreamBatch]:
        indices = self._samples[pool * self._at_once : (pool + 1) * self._at_once]
        streamed = self._maker.make(indices)
        lengths = np.array([len(item.sample.tokens) for item in streamed])
        seed = self._settings.seed
        seed = None if seed is None else seed + pool
        plan = length_buckets(lengths, self._settings.batch_size, seed, self._epoch)
        keys = [self._maker.key(index) for index in indices]
        batches = (self._batch([(keys[i], streamed[i]) for i in rows]) for rows in plan)
        # Arrays, unlike tensors, need no file of shared memory each to leave a worker.
        return [map_tensors(batch, Tensor.numpy) for batch in batches]

    def _batch(self, streamed: Sequence[tuple[str, StreamedSample]]) -> StreamBatch:
        settings, base = self._settings, self._maker.codec.vocabulary.size
        read = [item.read for _, item in streamed if item.read is not None]
        coded = [scene for _, item in streamed for scene in item.coded]
        samples, first = [], 0
        for key, item in streamed:
            samples.append((key, _shifted(item.sample, base, first)))
            first += len(item.coded) * self._maker.codes_per_image
        batch = collate(samples, settings.weighting, settings.multiple)
        reads = torch.tensor([item.read is not None for _, item in streamed])
        scenes = build_scene_batch([*read, *coded], torch.device("cpu"))
        return StreamBatch(
            **vars(batch),
            scenes=scenes,
            pixel_index_B=(reads.cumsum(0) - 1).clamp_min(0),
            num_read=len(read),
            noise=FIRST_NOISE + zlib.crc32(streamed[0][0].encode()) % NUM_NOISES,
        )


def _shifted(sample: Sample, base: int, first: int) -> Sample:
    """The sample with its addresses counted from the batch's first code."""
    tokens = sample.tokens + first * (sample.tokens >= base)
    labels = sample.labels + first * (sample.labels >= base)
    return replace(sample, tokens=tokens, labels=labels)


_TEXTS = {
    ("source", "instructions"): "instruction",
    ("source", "questions"): "question",
    ("target", "questions"): "answer",
}
"""The entry of an item's texts that a segment holds."""


def _world_task(task: Task) -> str:
    """The task of the world that has the items of a task of the model."""
    if any(segment.modality == "text" for segment in task.outputs):
        return "questions"
    if any(segment.modality == "text" for segment in task.inputs):
        return "instructions"
    return "scenes"


def _scene_of(item: world_tasks.Item, segment: Segment) -> world_tasks.Scene:
    scenes = item.scenes
    return scenes[segment.side] if segment.side in scenes else scenes[""]


def world_stream(
    *,
    vocabulary: Vocabulary,
    scene_schema: str,
    tasks: Mapping[str, float],
    num_samples: int,
    split: Split = "train",
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    image_size: int = 128,
    samples_per_pixel: int = 2,
    vqgan: str | None = None,
    object_order: ObjectOrder = "near-to-far",
    centre_first: CentreFirst = "generated",
    tokenizer: str | None = None,
    questions_per_scene: int = 1,
    pixel_tokens: int | None = None,
) -> WorldStream:
    """A stream of CLEVR-like scenes, edits and questions, tokenised for ``tasks``.

    Args:
        vocabulary: the recipe's vocabulary.
        scene_schema: name or file of the schema.
        tasks: task strings such as ``I-3``, and how often each is drawn relative to the others.
        num_samples: samples of an epoch; the next epoch draws others.
        split: ``train``, or ``val`` for held-out samples.
        seed: of everything that is drawn.
        options: of ``kyvo.world.clevr.SceneOptions`` that differ from CLEVR's.
        image_size: side of the images (pixels).
        samples_per_pixel: rays through each.
        vqgan: run folder of the VQGAN that makes the codes; None: no task has any.
        object_order: of a scene's objects.
        centre_first: which images are written centre-first.
        tokenizer: file of the text tokenizer; None: the vocabulary's own.
        questions_per_scene: questions of a sample about one scene, one after the other: more
            answers for less work.
        pixel_tokens: places of an input image, for a model that reads pixels; the recipe gives
            them.

    Raises:
        InputError: an unknown task, split or option, shares that are not positive, a VQGAN that is
            missing or does not fit.
    """
    if not isinstance(tasks, Mapping) or not tasks or min(tasks.values()) <= 0:
        raise InputError(
            f"dataset: tasks {tasks!r}: expected task: share with shares above 0, such as I-3: 1."
        )
    if split not in ("train", "val") or min(num_samples, questions_per_scene) < 1:
        raise InputError(
            f"dataset: split {split!r}, num_samples {num_samples}, questions_per_scene "
            f"{questions_per_scene}: expected train or val, and numbers of 1 or more."
        )
    builders = tuple(
        SequenceBuilder(vocabulary, get_task(name), centre_first, pixel_tokens=pixel_tokens)
        for name in tasks
    )
    codec = SceneCodec(
        get_schema(scene_schema),
        vocabulary,
        load_text_tokenizer(Path(tokenizer) if tokenizer else None, vocabulary),
    )
    total = sum(tasks.values())
    maker = SampleMaker(
        builders,
        tuple(share / total for share in tasks.values()),
        codec,
        object_order,
        _codes_per_image(builders, vqgan, image_size),
        split,
        seed,
        world_tasks.scene_options("scenes", **(options or {})),
        questions_per_scene,
    )
    folder = Path(vqgan) if vqgan else None
    return WorldStream(maker, num_samples, folder, Frame(image_size, samples_per_pixel))


def _codes_per_image(
    builders: Iterable[SequenceBuilder], vqgan: str | None, image_size: int
) -> int:
    """Codes of an image, after a look at the VQGAN; 0: no task has any.

    Raises:
        InputError: there is no VQGAN but a task has codes, or it is of another size.
    """
    coded = [b for b in builders if any(part.modality == "image" for part in b.tokenized)]
    if not coded:
        return 0
    if vqgan is None:
        raise InputError(
            f"dataset: task {coded[0].task.name} has codes of images: give vqgan, the run folder "
            "of the VQGAN that makes them."
        )
    config, vocabulary = load_vqgan(vqgan).config, coded[0].vocabulary
    if config.resolution != image_size or config.n_embed != vocabulary.num_image_codes:
        raise InputError(
            f"dataset: vqgan {vqgan}: it has {config.n_embed} codes for images of "
            f"{config.resolution} pixels, expected {vocabulary.num_image_codes} (vocabulary "
            f"'{vocabulary.name}') and image_size {image_size}."
        )
    return config.codes_per_side**2
