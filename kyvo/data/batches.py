"""Batches: samples of like length together, right-padded, with their labelled positions listed.

Shapes: B samples, L positions (each predicts the next token), N labelled positions of the batch.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kyvo.common import workers
from kyvo.data.transfer import map_tensors
from kyvo.tokens.sequences import IGNORED_LABEL, Sample, SequenceBuilder

PAD_ID = 0
# Batches whose samples are sorted by length together: long enough that padding nearly vanishes,
# short enough that every batch still draws from the whole data set over time.
_POOL = 50


@dataclass(frozen=True)
class LossWeighting:
    """First-token weighting (paper): the first labels of an output image count more.

    Attributes:
        first_positions: how many labels get ``weight``; 0 turns the weighting off.
        weight: their weight; all other labels weigh 1.
    """

    first_positions: int = 0
    weight: float = 1.0


@dataclass(frozen=True)
class Batch:
    """One batch.

    Attributes:
        keys: the samples' keys.
        tokens_BL: inputs, right-padded with PAD_ID.
        positions_N: flat indices into B x L of the positions that have a label.
        labels_N: the token that each of them should predict.
        weights_N: the weight of each label, float32.
        row_weights_B: sum of weights over each row with ignored positions counted as 1: the
            reference's normalisation.
        turns_B: how many samples each row counts as, float32.
        num_tokens: real (not padding) input tokens.
        remainders_N: true number minus the grid's number of each label, float32; None: not known.
        pixels_BHWC: each row's input image, uint8, zeros where it has none; None: the model reads
            no pixels.
    """

    keys: tuple[str, ...]
    tokens_BL: Tensor
    positions_N: Tensor
    labels_N: Tensor
    weights_N: Tensor
    row_weights_B: Tensor
    turns_B: Tensor
    num_tokens: int
    remainders_N: Tensor | None = None
    pixels_BHWC: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        return map_tensors(self, lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned host memory; called by DataLoader."""
        return map_tensors(self, Tensor.pin_memory)


@dataclass(frozen=True)
class BatchSettings:
    """How batches are made.

    Attributes:
        batch_size: samples of a batch.
        weighting: of the labels.
        seed: of the order; None: sorted by length.
        multiple: as for ``collate``.
        num_workers: processes that load; 0: none beside the caller.
        pin_memory: put batches into pinned memory, for a GPU.
    """

    batch_size: int
    weighting: LossWeighting = LossWeighting()
    seed: int | None = None
    multiple: int = 1
    num_workers: int = 0
    pin_memory: bool = False


class BatchSource(Protocol):
    """Where batches come from: files, or the world itself.

    Attributes:
        builders: of the tasks' sequences.
        excluded: what is left out and why, a line each.
    """

    builders: tuple[SequenceBuilder, ...]
    excluded: list[str]

    def __len__(self) -> int:
        """Samples of an epoch."""

    @property
    def codes_per_image(self) -> int:
        """Image codes of every image; 0 where no task has one."""

    @property
    def length_range(self) -> tuple[int, int]:
        """Tokens of the shortest and the longest sample."""

    def files(self) -> Mapping[str, Path]:
        """The files that samples are made of, by the argument of the config that names them."""

    def codebooks(self) -> Mapping[str, str | None]:
        """SHA-256 of the codebook that image codes are of, None: not known, by where they are."""

    def longest(self, count: int) -> list[tuple[str, Sample]]:
        """The samples with most tokens, the longest last."""

    def batches(self, epoch: int, first: int, settings: BatchSettings) -> Iterable[Batch]:
        """The batches of ``epoch`` from number ``first`` on, on the host."""

    def place(self, batch: Batch, device: torch.device) -> Batch:
        """One of its batches, whole and on ``device``."""


def position_weights(
    window_starts: Sequence[int | None], length: int, weighting: LossWeighting
) -> np.ndarray:
    """Weights (B, L), float32: 1, but the first-token weight in each row's window.

    ``window_starts`` are positions of labels; position t of the weights predicts label t + 1.
    """
    weights_BL = np.ones((len(window_starts), length), dtype=np.float32)
    for row, start in enumerate(window_starts):
        if start is not None:
            weights_BL[row, start - 1 : start - 1 + weighting.first_positions] = weighting.weight
    return weights_BL


def collate(
    samples: Sequence[tuple[str, Sample]], weighting: LossWeighting, multiple: int = 1
) -> Batch:
    """Pad ``samples`` into a batch; position t of the inputs has token t + 1 as its label.

    Rows are padded on to a ``multiple`` of positions, which changes nothing of the loss: the
    reference's normalisation goes by the longest sample.
    """
    length = max(len(sample.tokens) for _, sample in samples) - 1
    width = padded_length(length, multiple)
    tokens_BL = np.full((len(samples), width), PAD_ID, dtype=np.int64)
    labels_BL = np.full((len(samples), width), IGNORED_LABEL, dtype=np.int64)
    for row, (_, sample) in enumerate(samples):
        inputs = sample.tokens[:length]
        tokens_BL[row, : len(inputs)] = inputs
        labels_BL[row, : len(sample.labels) - 1] = sample.labels[1:]
    starts = [sample.window_start for _, sample in samples]
    weights_BL = position_weights(starts, length, weighting)
    rows_N, columns_N = np.nonzero(labels_BL != IGNORED_LABEL)
    return Batch(
        keys=tuple(key for key, _ in samples),
        tokens_BL=torch.from_numpy(tokens_BL),
        positions_N=torch.from_numpy(rows_N * width + columns_N),
        labels_N=torch.from_numpy(labels_BL[rows_N, columns_N]),
        weights_N=torch.from_numpy(weights_BL[rows_N, columns_N]),
        row_weights_B=torch.from_numpy(weights_BL.sum(axis=1)),
        turns_B=torch.tensor([float(sample.num_turns) for _, sample in samples]),
        num_tokens=sum(len(sample.tokens) - 1 for _, sample in samples),
        remainders_N=_remainders([sample for _, sample in samples], rows_N, columns_N),
        pixels_BHWC=stack_pixels([sample.pixels for _, sample in samples]),
    )


def _remainders(
    samples: Sequence[Sample], rows_N: np.ndarray, columns_N: np.ndarray
) -> Tensor | None:
    """Those of the labels (N,): position t predicts token t + 1."""
    known = [sample.remainders for sample in samples if sample.remainders is not None]
    if len(known) < len(samples):
        return None
    values_BL = np.zeros((len(known), max(map(len, known))), dtype=np.float32)
    for row, values in enumerate(known):
        values_BL[row, : len(values)] = values
    return torch.from_numpy(values_BL[rows_N, columns_N + 1])


def stack_pixels(images: Sequence[np.ndarray | None]) -> Tensor | None:
    """Input images as one batch (B, H, W, 3), zeros for None; None if there is no image."""
    some = next((image for image in images if image is not None), None)
    if some is None:
        return None
    none = np.zeros_like(some)
    return torch.from_numpy(np.stack([none if image is None else image for image in images]))


def padded_length(length: int, multiple: int) -> int:
    """``length`` rounded up to a multiple."""
    return -(-length // multiple) * multiple


def length_buckets(
    lengths: np.ndarray, batch_size: int, seed: int | None, epoch: int
) -> list[list[int]]:
    """Indices of every batch of an epoch: shuffled, then sorted by length within pools.

    Every index occurs once; the last batch may be short. The same arguments give the same
    batches, so a run can go on in the middle of an epoch. Without a seed all are sorted.
    """
    shuffle = seed is not None
    random = np.random.default_rng((seed or 0, epoch))
    order = random.permutation(len(lengths)) if shuffle else np.argsort(lengths, kind="stable")
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * _POOL):
        pool = order[start : start + batch_size * _POOL]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[i : i + batch_size].tolist() for i in range(0, len(pool), batch_size)]
    if shuffle:
        random.shuffle(batches)
    return batches


def make_loader(
    dataset: Dataset[tuple[str, Sample]], batches: list[list[int]], settings: BatchSettings
) -> Iterable[Batch]:
    """A loader over exactly ``batches``."""
    return workers.load(
        dataset,
        batch_sampler=batches,
        collate_fn=_Collate(settings.weighting, settings.multiple),
        num_workers=settings.num_workers,
        pin_memory=settings.pin_memory,
        # Its own: a loader draws a seed whenever it is iterated, and drawing it from torch's
        # global generator would set a resumed run apart from an uninterrupted one.
        generator=torch.Generator(),
    )


@dataclass(frozen=True)
class _Collate:
    """``collate`` as a picklable callable, for loader workers."""

    weighting: LossWeighting
    multiple: int

    def __call__(self, samples: Sequence[tuple[str, Sample]]) -> Batch:
        return collate(samples, self.weighting, self.multiple)
