"""The training loss: cross-entropy at labelled positions only.

The head is applied to the N labelled positions of a batch, not to all B x L: with a vocabulary
of 130,000 ids the logits of positions that carry no loss would cost most of the memory.

Shapes: B samples, L positions, D width, N labelled positions, V ids.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from kyvo.data.batches import Batch
from kyvo.models import KyvoModel

Normalization = Literal["valid", "sample", "reference"]


@dataclass(frozen=True)
class LossSums:
    """Additive parts of the loss, so that batches can be accumulated: loss = total / weight.

    ``total`` is a tensor with gradient; ``correct`` counts labels that the model ranks first.
    """

    total: Tensor
    correct: Tensor


def loss_weight(batch: Batch, normalization: Normalization) -> float:
    """What ``LossSums.total`` of ``batch`` is to be divided by.

    "valid": the summed weight of its labels: a proper weighted mean over labels.
    "sample": the number of rows; each row is a weighted mean over its labels, so that in mixed
    training a short scene counts as much as an image.
    "reference": the number of rows; each row is a weighted mean over *all* its positions with
    ignored ones counted as zero loss of weight one (formats of the released code).
    """
    if normalization == "valid":
        return float(batch.weights_N.sum())
    return float(len(batch.keys))


def language_loss(
    model: KyvoModel, batch: Batch, normalization: Normalization = "valid", chunk: int = 0
) -> LossSums:
    """Weighted cross-entropy of the next token, summed over the labelled positions.

    Args:
        normalization: see ``loss_weight``.
        chunk: labelled positions per pass through the head; logits are then made again in the
            backward pass and never held for the whole batch. 0: all at once.
    """
    hidden_BLD = model.hidden(batch.tokens_BL)
    hidden_ND = hidden_BLD.flatten(0, 1).index_select(0, batch.positions_N)
    weights_N = _normalised_weights(batch, normalization)
    total = hidden_ND.new_zeros((), dtype=torch.float32)
    correct = torch.zeros((), dtype=torch.int64, device=hidden_ND.device)
    for part in _slices(len(hidden_ND), chunk):
        arguments = (model, hidden_ND[part], batch.labels_N[part], weights_N[part])
        if chunk:
            loss, hits = checkpoint(_head_loss, *arguments, use_reentrant=False)
        else:
            loss, hits = _head_loss(*arguments)
        total, correct = total + loss, correct + hits
    return LossSums(total, correct)


def _normalised_weights(batch: Batch, normalization: Normalization) -> Tensor:
    """Each label's weight within its row, unless rows do not matter."""
    if normalization == "valid":
        return batch.weights_N
    rows_N = batch.positions_N // batch.tokens_BL.shape[1]
    totals_B = batch.row_weights_B
    if normalization == "sample":
        totals_B = torch.zeros_like(totals_B).index_add(0, rows_N, batch.weights_N)
    return batch.weights_N / totals_B[rows_N]


def _head_loss(
    model: KyvoModel, hidden_ND: Tensor, labels_N: Tensor, weights_N: Tensor
) -> tuple[Tensor, Tensor]:
    logits_NV = model.output(hidden_ND).float()
    losses_N = F.cross_entropy(logits_NV, labels_N, reduction="none")
    return (losses_N * weights_N).sum(), (logits_NV.detach().argmax(-1) == labels_N).sum()


def _slices(count: int, chunk: int) -> Iterator[slice]:
    if not chunk:
        yield slice(0, count)
        return
    for start in range(0, count, chunk):
        yield slice(start, start + chunk)
