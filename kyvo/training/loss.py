"""The training loss: cross-entropy of the next token, at labelled positions only.

The head is applied to the N labelled positions of a batch, not to all B x L: with a vocabulary
of 130,000 ids the logits of positions that carry no loss would cost most of the memory.

Shapes: B samples, L positions, D width, N labelled positions, K number ids.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kyvo.data.batches import Batch
from kyvo.models import KyvoModel
from kyvo.tokens.vocabulary import Vocabulary
from kyvo.training.cross_entropy import (
    SoftTargets,
    compiled_forward_backward,
    cross_entropy_forward_backward,
    fused_cross_entropy,
)

Normalization = Literal["valid", "sample", "reference"]
# Rows of 16-bit numbers that start at any other multiple keep the GPU's fast matmuls away.
_GPU_ALIGNMENT = 16


@dataclass(frozen=True)
class LossSums:
    """Additive parts of the loss, so that batches can be accumulated: loss = total / weight.

    Attributes:
        total: summed weighted loss, a scalar with gradient, good for one backward pass.
        correct: number of labels that the model ranks first, a scalar.
    """

    total: Tensor
    correct: Tensor


class SoftNumbers:
    """Spreads a number's label over the numbers around its true value, as a Gaussian.

    The neighbours of the right number are nearly right, which one-hot labels keep to themselves
    (soft labels: DIST2Loss, arXiv 2503.02379; the Gaussian: HL-Gauss, arXiv 1806.04613).

    Args:
        sigma: standard deviation, in the unit of the numbers.
    """

    def __init__(self, vocabulary: Vocabulary, sigma: float, device: torch.device) -> None:
        self.block, self.sigma = vocabulary.number, sigma
        self._values_K = torch.tensor([float(s) for s in vocabulary.numbers], device=device)

    def targets(self, labels_N: Tensor, remainders_N: Tensor | None) -> SoftTargets:
        """The distribution of each label that is a number; zeros for the others."""
        is_number_N = (labels_N >= self.block.start) & (labels_N < self.block.stop)
        index_N = torch.where(is_number_N, labels_N - self.block.start, 0)
        true_N = self._values_K[index_N]
        if remainders_N is not None:
            true_N = true_N + remainders_N
        offsets_NK = (self._values_K - true_N[:, None]) / self.sigma
        targets_NK = (-0.5 * offsets_NK * offsets_NK).softmax(-1) * is_number_N[:, None]
        return SoftTargets(slice(self.block.start, self.block.stop), is_number_N, targets_NK)


def loss_weight(batch: Batch, normalization: Normalization) -> float:
    """What ``LossSums.total`` of ``batch``, which is on the host, is to be divided by.

    "valid": the summed weight of its labels: a proper weighted mean over labels.
    "sample": the number of samples; each is a weighted mean over its labels, so that in mixed
    training a short scene counts as much as an image. A row that asks several times is as many.
    "reference": the number of rows; each row is a weighted mean over *all* its positions with
    ignored ones counted as zero loss of weight one (formats of the released code).
    """
    if normalization == "valid":
        # numpy refuses tensors of a GPU, for which this would wait.
        return float(batch.weights_N.numpy().sum())
    if normalization == "sample":
        return float(batch.turns_B.numpy().sum())
    return float(len(batch.keys))


def language_loss(
    model: KyvoModel,
    batch: Batch,
    normalization: Normalization = "valid",
    chunk: int = 0,
    is_compiled: bool = False,
    soft_numbers: SoftNumbers | None = None,
) -> LossSums:
    """Weighted cross-entropy of the next token, summed over the labelled positions.

    Args:
        normalization: see ``loss_weight``.
        chunk: labelled positions per pass through the head; 0: all at once.
        is_compiled: compile what turns logits into their gradient, instead of one kernel each.
        soft_numbers: spreads the labels that are numbers over their neighbours.
    """
    hidden_ND = model.hidden_states(
        batch.tokens_BL, batch.positions_N, pixels_BHWC=batch.pixels_BHWC
    )
    soft = None
    if soft_numbers is not None:
        soft = soft_numbers.targets(batch.labels_N, batch.remainders_N)
    total, correct = fused_cross_entropy(
        hidden_ND,
        model.output.weight,
        batch.labels_N,
        _normalised_weights(batch, normalization),
        chunk,
        compiled_forward_backward() if is_compiled else cross_entropy_forward_backward,
        _GPU_ALIGNMENT if hidden_ND.is_cuda else 1,
        soft,
    )
    return LossSums(total, correct)


def _normalised_weights(batch: Batch, normalization: Normalization) -> Tensor:
    """Each label's weight within its row, unless rows do not matter, (N,)."""
    if normalization == "valid":
        return batch.weights_N
    rows_N = batch.positions_N // batch.tokens_BL.shape[1]
    totals_B = batch.row_weights_B
    if normalization == "sample":
        totals_B = torch.zeros_like(totals_B).index_add(0, rows_N, batch.weights_N)
        totals_B = totals_B / batch.turns_B
    return batch.weights_N / totals_B[rows_N]
