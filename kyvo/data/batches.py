"""Batches: samples of like length together, right-padded, with their labelled positions listed.

Shapes: B samples, L positions (each predicts the next token), N labelled positions of the batch.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from kyvo.common.workers import leave_signals_to_parent
from kyvo.data.dataset import KyvoDataset
from kyvo.tokens.sequences import IGNORED_LABEL, Sample

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
        num_tokens: real (not padding) input tokens.
    """

    keys: tuple[str, ...]
    tokens_BL: Tensor
    positions_N: Tensor
    labels_N: Tensor
    weights_N: Tensor
    row_weights_B: Tensor
    num_tokens: int

    def to(self, device: torch.device) -> "Batch":
        """The same batch with its tensors on ``device``."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in pinned host memory; called by DataLoader."""
        return self._map(Tensor.pin_memory)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Batch":
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = function(value)
        return Batch(**values)


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
        num_tokens=sum(len(sample.tokens) - 1 for _, sample in samples),
    )


def padded_length(length: int, multiple: int) -> int:
    """``length`` rounded up to a multiple."""
    return -(-length // multiple) * multiple


def length_buckets(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int, shuffle: bool = True
) -> list[list[int]]:
    """Indices of every batch of an epoch: shuffled, then sorted by length within pools.

    Every index occurs once; the last batch may be short. The same arguments give the same
    batches, so a run can go on in the middle of an epoch.
    """
    random = np.random.default_rng((seed, epoch))
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
    dataset: KyvoDataset,
    batches: list[list[int]],
    weighting: LossWeighting,
    num_workers: int = 0,
    pin_memory: bool = False,
    multiple: int = 1,
) -> Iterable[Batch]:
    """A loader over exactly ``batches``; ``multiple`` as for ``collate``."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=_Collate(weighting, multiple),
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=leave_signals_to_parent,
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
