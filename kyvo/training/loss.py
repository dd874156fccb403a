"""The training loss: cross-entropy at labelled positions only.

The head is applied to the N labelled positions of a batch, not to all B x L: with a vocabulary
of 130,000 ids the logits of positions that carry no loss would cost most of the memory. What is
left of N x V is turned into its own gradient on the spot.

Shapes: B samples, L positions, D width, N labelled positions, C of them at a time, V ids, P ids
with padding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from kyvo.data.batches import Batch
from kyvo.models import KyvoModel

Normalization = Literal["valid", "sample", "reference"]
# Rows of 16-bit numbers that start at any other multiple keep the GPU's fast products away.
_GPU_ALIGNMENT = 16
_Score = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@dataclass(frozen=True)
class LossSums:
    """Additive parts of the loss, so that batches can be accumulated: loss = total / weight.

    ``total`` is a tensor with gradient, good for one backward pass; ``correct`` counts labels
    that the model ranks first.
    """

    total: Tensor
    correct: Tensor


def loss_weight(batch: Batch, normalization: Normalization) -> float:
    """What ``LossSums.total`` of ``batch``, which is on the host, is to be divided by.

    "valid": the summed weight of its labels: a proper weighted mean over labels.
    "sample": the number of rows; each row is a weighted mean over its labels, so that in mixed
    training a short scene counts as much as an image.
    "reference": the number of rows; each row is a weighted mean over *all* its positions with
    ignored ones counted as zero loss of weight one (formats of the released code).
    """
    if normalization == "valid":
        # numpy refuses tensors of a GPU, for which this would wait.
        return float(batch.weights_N.numpy().sum())
    return float(len(batch.keys))


def language_loss(
    model: KyvoModel,
    batch: Batch,
    normalization: Normalization = "valid",
    chunk: int = 0,
    is_compiled: bool = False,
) -> LossSums:
    """Weighted cross-entropy of the next token, summed over the labelled positions.

    Args:
        normalization: see ``loss_weight``.
        chunk: labelled positions per pass through the head; 0: all at once.
        is_compiled: compile what turns logits into their gradient, instead of one kernel each.
    """
    hidden_ND = model.hidden_states(batch.tokens_BL, batch.positions_N)
    weights_N = _normalised_weights(batch, normalization)
    score = compiled_score() if is_compiled else _score
    alignment = _GPU_ALIGNMENT if hidden_ND.is_cuda else 1
    return LossSums(
        *head_loss(
            hidden_ND, model.output.weight, batch.labels_N, weights_N, chunk, score, alignment
        )
    )


def _normalised_weights(batch: Batch, normalization: Normalization) -> Tensor:
    """Each label's weight within its row, unless rows do not matter."""
    if normalization == "valid":
        return batch.weights_N
    rows_N = batch.positions_N // batch.tokens_BL.shape[1]
    totals_B = batch.row_weights_B
    if normalization == "sample":
        totals_B = torch.zeros_like(totals_B).index_add(0, rows_N, batch.weights_N)
    return batch.weights_N / totals_B[rows_N]


def _score(logits_CV: Tensor, labels_C: Tensor, weights_C: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, hits, and the gradient of the labels' own logits; weighs softmax into ``logits_CV``.

    Statistics are float32 at least. Only the labels' own entries of the gradient are left to be
    put in: rounded probabilities minus one would lose the gradient of a sure prediction.
    """
    scores_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    tops_C, best_C = scores_CV.max(-1)
    scores_CV.sub_(tops_C[:, None])
    chosen_C = scores_CV.gather(-1, labels_C[:, None])[:, 0]
    sums_C = scores_CV.exp_().sum(-1)
    scores_CV.mul_((weights_C / sums_C)[:, None])
    logits_CV.copy_(scores_CV)
    losses_C = (sums_C.log() - chosen_C) * weights_C
    return losses_C, best_C == labels_C, (chosen_C.exp() / sums_C - 1) * weights_C


@cache
def compiled_score(**options: Any) -> _Score:
    """``_score`` in few kernels, compiled once for any number of labels.

    ``options`` are those of ``torch.compile``.
    """
    compiled = torch.compile(_score, **options)

    def score(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for tensor in tensors:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return compiled(*tensors)

    return score


def head_loss(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    weights_N: Tensor,
    chunk: int = 0,
    score: _Score = _score,
    alignment: int = 1,
) -> tuple[Tensor, Tensor]:
    """Summed weighted cross-entropy of ``hidden_ND @ head_VD.T``, and how many labels are first.

    Gradients are made along with the loss, chunk by chunk, so no product is made twice and no
    logits outlive their chunk. Under autocast the products have its type. The number of ids is
    padded to a multiple of ``alignment`` inside.
    """
    dtype = hidden_ND.dtype
    if torch.is_autocast_enabled(hidden_ND.device.type):
        dtype = torch.get_autocast_dtype(hidden_ND.device.type)
    # Without gradients to make, the pass is the same one, less their products.
    wanted = (hidden_ND.requires_grad, head_VD.requires_grad)
    wanted = wanted if torch.is_grad_enabled() else (False, False)
    sums: tuple[Tensor, Tensor] = _HeadLoss.apply(
        hidden_ND, head_VD, labels_N, weights_N, _Pass(dtype, wanted, chunk, score, alignment)
    )
    return sums


@dataclass(frozen=True)
class _Pass:
    """How to go through the head.

    Attributes:
        dtype: type of the products.
        wanted: whether the hidden states, and the head, get a gradient.
        chunk, score, alignment: as for ``head_loss``.
    """

    dtype: torch.dtype
    wanted: tuple[bool, bool]
    chunk: int
    score: _Score
    alignment: int

    def slices(self, count: int) -> Iterator[slice]:
        """Parts of ``count`` labels: at least one, be it empty."""
        step = self.chunk or max(count, 1)
        return (slice(start, start + step) for start in range(0, max(count, 1), step))

    def padded(self, head_VD: Tensor) -> Tensor:
        """The head in the products' type, with rows of zeros up to the alignment."""
        num_ids, width = head_VD.shape
        num_zeros = -num_ids % self.alignment
        if not num_zeros:
            return head_VD.to(self.dtype)
        matrix_PD = head_VD.new_empty((num_ids + num_zeros, width), dtype=self.dtype)
        matrix_PD[:num_ids].copy_(head_VD)
        matrix_PD[num_ids:].zero_()
        return matrix_PD


class _HeadLoss(torch.autograd.Function):
    """Loss and hits of the head; keeps the two gradients for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor,
        how: _Pass,
    ) -> tuple[Tensor, Tensor]:
        inputs_ND, matrix_PD = hidden_ND.to(how.dtype), how.padded(head_VD)
        num_ids = len(head_VD)
        total = weights_N.new_zeros((), dtype=torch.promote_types(how.dtype, torch.float32))
        correct = labels_N.new_zeros(())
        d_hidden_ND = torch.empty_like(hidden_ND) if how.wanted[0] else None
        d_head_PD = None
        for part in how.slices(len(labels_N)):
            logits_CP, labels_C = inputs_ND[part] @ matrix_PD.T, labels_N[part]
            # The padding's logits are zero, and so is their gradient.
            logits_CV = logits_CP[:, :num_ids]
            losses_C, hits_C, own_C = how.score(logits_CV, labels_C, weights_N[part])
            total, correct = total + losses_C.sum(), correct + hits_C.sum()
            # From here on they are the gradient of the loss.
            logits_CV.scatter_(-1, labels_C[:, None], own_C[:, None].to(how.dtype))
            if d_hidden_ND is not None:
                d_hidden_ND[part] = logits_CP @ matrix_PD
            if how.wanted[1]:
                d_head_PD = _accumulated(d_head_PD, logits_CP.T @ inputs_ND[part], how.chunk)
        d_head_VD = d_head_PD[:num_ids].to(head_VD.dtype) if d_head_PD is not None else None
        ctx.save_for_backward(d_hidden_ND, d_head_VD)
        ctx.mark_non_differentiable(correct)
        return total, correct

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *d_sums: Tensor) -> tuple[Tensor | None, ...]:
        """Scaled where they lie: autograd refuses a second pass over them."""
        scaled = [d.mul_(d_sums[0]) if d is not None else None for d in ctx.saved_tensors]
        return *scaled, None, None, None


def _accumulated(total_PD: Tensor | None, part_PD: Tensor, chunk: int) -> Tensor:
    """The sum over chunks, in float32 at least: many roundings would add up."""
    if total_PD is not None:
        return total_PD.add_(part_PD)
    return part_PD.to(torch.promote_types(part_PD.dtype, torch.float32)) if chunk else part_PD
