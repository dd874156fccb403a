"""Tasks as ordered lists of segments; tokens and labels of a sample. Nothing else knows the layout.

    BOS <inputs in the task's order> [OUTPUT-START] <outputs in the task's order> EOS

A training sample may ask more than once: what is asked next, and what it gives, take EOS's place.

A task is written ``inputs-outputs`` with I (image), 3 (scene), T (text), Q (question) and
A (answer), for example ``I+3+T-I+3``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from kyvo.common.errors import InputError
from kyvo.images.order import centre_first
from kyvo.tokens.vocabulary import OUTPUT_START, Modality, Vocabulary

Side = Literal["source", "target"]
# Which images are written centre-first: those that the model generates; all but a task's raster
# source (the reference's reorder_image_tokens: true); or none.
CentreFirst = Literal["generated", "all", "none"]
IGNORED_LABEL = -100

_LETTERS: dict[str, Modality] = {
    "I": "image",
    "3": "three_d",
    "T": "text",
    "Q": "text",
    "A": "text",
}


@dataclass(frozen=True)
class Segment:
    """One image, scene or text of a sequence, and the file side that it comes from."""

    modality: Modality
    side: Side

    @property
    def source_name(self) -> str:
        """The data set's name for it, such as ``image_source``."""
        return f"{self.modality}_{self.side}"


@dataclass(frozen=True)
class Task:
    """What a sequence reads and writes.

    Attributes:
        name: the task string.
        inputs, outputs: segments in order.
        raster_source: the source image stays in raster order whatever is centre-first.
        skipped_labels: labels after OUTPUT-START that carry no loss either.
    """

    name: str
    inputs: tuple[Segment, ...]
    outputs: tuple[Segment, ...]
    raster_source: bool = False
    skipped_labels: int = 0

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Inputs, then outputs."""
        return self.inputs + self.outputs

    def is_centre_first(self, segment: Segment, which: CentreFirst) -> bool:
        """Whether ``segment`` is an image written centre-first."""
        if segment.modality != "image" or which == "none":
            return False
        if which == "generated":
            return segment in self.outputs
        return not (self.raster_source and segment.side == "source")


def _task(name: str, *, own: bool = False, raster_source: bool = False, skip: int = 0) -> Task:
    """Read ``inputs-outputs``; with ``own`` the outputs are the sample's own (source) files."""
    inputs, outputs = name.split("-")[:2]
    side: Side = "source" if own else "target"
    return Task(
        name,
        tuple(Segment(_LETTERS[letter], "source") for letter in inputs.split("+")),
        tuple(Segment(_LETTERS[letter], side) for letter in outputs.split("+")),
        raster_source,
        skip,
    )


TASKS = {
    task.name: task
    for task in (
        _task("3-I", own=True),
        _task("I-3", own=True),
        # An ablation: the loss starts at the fourth code, after IMAGE-START and three codes.
        _task("3-I-first3output", own=True, skip=4),
        _task("I+3+T-I+3", raster_source=True),
        _task("3+I+T-3+I", raster_source=True),
        _task("I+3+Q-A"),
        _task("3+I+Q-A"),
        _task("I+Q-A"),
        _task("3+T-3"),
        _task("I+3+T-3"),
        _task("I+T-I+3"),
        _task("I+T-3"),
        _task("I+T-I"),
        _task("I+T-T"),
        _task("I+3+T-T"),
    )
}


def get_task(name: str) -> Task:
    """The task called ``name``; InputError lists the tasks if there is none."""
    if name not in TASKS:
        raise InputError(f"no task '{name}'; known: {', '.join(TASKS)}")
    return TASKS[name]


@dataclass(frozen=True)
class Sample:
    """One sequence.

    Attributes:
        tokens: ids, int64 (length,).
        labels: the same, -100 where ignored; not shifted: label t is token t. Only where a next
            turn begins it is EOS: the answer before ends there.
        prompt_length: the prompt ends with OUTPUT-START.
        window_start: where first-token weighting begins; None without an output image.
        remainders: true number minus the grid's number of each token, float32 (length,); None:
            not known.
        pixels: the input image, uint8 (H, W, 3), where the model reads pixels.
        num_turns: how often it asks; each counts as a sample.
    """

    tokens: np.ndarray
    labels: np.ndarray
    prompt_length: int
    window_start: int | None
    remainders: np.ndarray | None = None
    pixels: np.ndarray | None = None
    num_turns: int = 1


@dataclass(frozen=True)
class SequenceBuilder:
    """Builds the samples of one task.

    Attributes:
        centre_first: which images are written centre-first.
        no_loss_on_input: ignore labels up to and including OUTPUT-START.
        pixel_tokens: tokens that keep the places of an input image for its pixels; None: an input
            image is written as its codes.
    """

    vocabulary: Vocabulary
    task: Task
    centre_first: CentreFirst = "generated"
    no_loss_on_input: bool = True
    pixel_tokens: int | None = None

    def __post_init__(self) -> None:
        modalities = [segment.modality for segment in self.task.inputs]
        if self.pixel_tokens is not None and "image" in modalities[1:]:
            raise InputError(
                f"task {self.task.name}: a model that reads pixels needs the image first. Choose a "
                "task such as I-3 or I+3+T-I+3, or image_input: codes."
            )

    @property
    def reads_pixels(self) -> bool:
        """Whether the samples have an input image whose pixels the model reads."""
        return self.pixel_tokens is not None and self.task.inputs[0].modality == "image"

    @property
    def tokenized(self) -> tuple[Segment, ...]:
        """The segments that have tokens of their own: all but an image that is read as pixels."""
        return self.task.segments[1:] if self.reads_pixels else self.task.segments

    def build(
        self,
        contents: Mapping[Segment, np.ndarray],
        remainders: Mapping[Segment, np.ndarray] | None = None,
        next_turns: Sequence[Mapping[Segment, np.ndarray]] = (),
    ) -> Sample:
        """The sample whose segments hold ``contents``: codes of images, ids of scenes and texts.

        An input image whose pixels the model reads needs no content. ``remainders``: true numbers
        minus the grid's, by token, of scenes. ``next_turns``: what is asked after that, and the
        outputs; inputs that stay the same are left out.
        """
        prompt = self.prompt(contents)
        output = [*(self._ids(s, contents[s]) for s in self.task.outputs), self._eos]
        tokens = np.concatenate([prompt, *output])
        prompt_length = len(prompt)
        labels = tokens.copy()
        if self.no_loss_on_input:
            labels[: prompt_length + self.task.skipped_labels] = IGNORED_LABEL
        start = self._window_start(output, prompt_length)
        rests = self._output_remainders(output, prompt_length, remainders)
        sample = Sample(tokens, labels, prompt_length, start, rests)
        return self._with_turns(sample, next_turns) if next_turns else sample

    def _with_turns(self, sample: Sample, turns: Sequence[Mapping[Segment, np.ndarray]]) -> Sample:
        """The sample with further turns."""
        tokens, labels = [sample.tokens[:-1]], [sample.labels]
        for turn in turns:
            asked = [self._ids(s, turn[s]) for s in self.task.inputs if s in turn]
            given = [*(self._ids(s, turn[s]) for s in self.task.outputs), self._eos]
            prompt_length = sum(map(len, asked)) + len(self._out)
            tokens += [*asked, self._out, *given[:-1]]
            # The label of the first token is the EOS of the turn before.
            labels += [np.full(prompt_length - 1, IGNORED_LABEL), *given]
        tokens_L = np.concatenate([*tokens, self._eos])
        rests = sample.remainders
        if rests is not None:
            rests = np.pad(rests, (0, len(tokens_L) - len(rests)))
        return replace(
            sample,
            tokens=tokens_L,
            labels=np.concatenate(labels),
            remainders=rests,
            num_turns=1 + len(turns),
        )

    def prompt(self, contents: Mapping[Segment, np.ndarray]) -> np.ndarray:
        """Ids up to and including OUTPUT-START, of the inputs alone."""
        inputs = [self._input_ids(segment, contents) for segment in self.task.inputs]
        return np.concatenate([self._bos, *inputs, self._out])

    def length(self, segment_lengths: Mapping[Segment, np.ndarray]) -> np.ndarray:
        """Sequence lengths from the stored lengths of the segments, elementwise."""
        end = 1
        return self.prompt_length(segment_lengths) + _sum(segment_lengths, self.task.outputs) + end

    def prompt_length(self, segment_lengths: Mapping[Segment, np.ndarray]) -> np.ndarray:
        """Lengths up to and including OUTPUT-START, elementwise; one for all if all are alike."""
        brackets = 2  # BOS and OUTPUT-START
        if self.reads_pixels:
            of_pixels = np.asarray(self.pixel_tokens)
            segment_lengths = {**segment_lengths, self.task.inputs[0]: of_pixels}
        return _sum(segment_lengths, self.task.inputs) + brackets

    def _output_remainders(
        self,
        output: list[np.ndarray],
        prompt_length: int,
        remainders: Mapping[Segment, np.ndarray] | None,
    ) -> np.ndarray | None:
        """Remainders of every token; those of the prompt are 0, for it has no labels."""
        if remainders is None:
            return None
        parts = [np.zeros(prompt_length, dtype=np.float32)]
        for segment, ids in zip([*self.task.outputs, None], output, strict=True):
            none = np.zeros(len(ids), dtype=np.float32)
            parts.append(remainders.get(segment, none) if segment is not None else none)
        return np.concatenate(parts)

    def _window_start(self, output: list[np.ndarray], prompt_length: int) -> int | None:
        """The second label with loss, or IMAGE-START itself where a scene comes first.

        That difference is the reference's.
        """
        modalities = [segment.modality for segment in self.task.outputs]
        if "image" not in modalities:
            return None
        before = sum(map(len, output[: modalities.index("image")]))
        return prompt_length + (before or self.task.skipped_labels + 1)

    def _input_ids(self, segment: Segment, contents: Mapping[Segment, np.ndarray]) -> np.ndarray:
        if segment.modality == "image" and self.pixel_tokens is not None:
            start, end = self._image_brackets
            places = np.full(self.pixel_tokens, self.vocabulary.image.start)
            return np.concatenate([start, places, end])
        return self._ids(segment, contents[segment])

    def _ids(self, segment: Segment, content: np.ndarray) -> np.ndarray:
        if segment.modality != "image":
            return content
        if self.task.is_centre_first(segment, self.centre_first):
            content = content[centre_first(len(content))]
        start, end = self._image_brackets
        return np.concatenate([start, content + self.vocabulary.image.start, end])

    @cached_property
    def _bos(self) -> np.ndarray:
        return np.array([self.vocabulary.bos])

    @cached_property
    def _eos(self) -> np.ndarray:
        return np.array([self.vocabulary.eos])

    @cached_property
    def _out(self) -> np.ndarray:
        return np.array([self.vocabulary.marker_id(OUTPUT_START)])

    @cached_property
    def _image_brackets(self) -> tuple[np.ndarray, np.ndarray]:
        start, end = self.vocabulary.brackets("image")
        return np.array([start]), np.array([end])


def _sum(segment_lengths: Mapping[Segment, np.ndarray], segments: Sequence[Segment]) -> np.ndarray:
    """Summed lengths of segments; images get their two markers, the others have theirs stored."""
    around = {"image": 2, "three_d": 0, "text": 0}
    parts = [segment_lengths[s] + around[s.modality] for s in segments]
    return np.asarray(sum(parts))
