"""Fused cross-entropy: head, loss and both gradients in one pass over the labelled positions.

The logits of a chunk are turned into their own gradient on the spot, so that no logits outlive
their chunk and no matmul is done twice.

Shapes: D width, N labelled positions, C of them at a time, V ids, P ids with padding.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

_ForwardBackward = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


def cross_entropy_forward_backward(
    logits_CV: Tensor, labels_C: Tensor, weights_C: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted losses, whether each label is ranked first, and the gradient, half in place.

    ``logits_CV`` becomes the weighted softmax. It is its own gradient except at the labels; what
    belongs there is the third result, because rounded probabilities minus one would lose the
    gradient of a sure prediction. Statistics are float32 at least.
    """
    scores_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    max_C, argmax_C = scores_CV.max(-1)
    scores_CV.sub_(max_C[:, None])
    label_scores_C = scores_CV.gather(-1, labels_C[:, None])[:, 0]
    sum_exp_C = scores_CV.exp_().sum(-1)
    scores_CV.mul_((weights_C / sum_exp_C)[:, None])
    logits_CV.copy_(scores_CV)
    losses_C = (sum_exp_C.log() - label_scores_C) * weights_C
    d_labels_C = (label_scores_C.exp() / sum_exp_C - 1) * weights_C
    return losses_C, argmax_C == labels_C, d_labels_C


@dataclass(frozen=True)
class SoftTargets:
    """Distributions in place of single labels.

    Attributes:
        columns: the ids that they are over, K of them.
        is_soft_N: which labels have one.
        targets_NK: sums to 1 for each of these, 0 for the others.
    """

    columns: slice
    is_soft_N: Tensor
    targets_NK: Tensor

    def __getitem__(self, part: slice) -> "SoftTargets":
        return SoftTargets(self.columns, self.is_soft_N[part], self.targets_NK[part])

    def excess(self, logits_CV: Tensor, labels_C: Tensor) -> Tensor:
        """By how much the loss exceeds that of the label alone (C,), before any weight."""
        scores_CK = logits_CV[:, self.columns].to(self.targets_NK.dtype)
        expected_C = (scores_CK * self.targets_NK).sum(-1)
        label_C = logits_CV.gather(-1, labels_C[:, None])[:, 0].to(expected_C.dtype)
        return torch.where(self.is_soft_N, label_C - expected_C, 0)

    def write_gradient(
        self, softmax_CV: Tensor, labels_C: Tensor, d_labels_C: Tensor, weights_C: Tensor
    ) -> None:
        """Turn a weighted softmax into the gradient, in place."""
        kept_C = softmax_CV.gather(-1, labels_C[:, None])[:, 0]
        hard_C = torch.where(self.is_soft_N, kept_C, d_labels_C.to(kept_C.dtype))
        softmax_CV.scatter_(-1, labels_C[:, None], hard_C[:, None])
        block_CK = softmax_CV[:, self.columns]
        block_CK.sub_((self.targets_NK * weights_C[:, None]).to(block_CK.dtype))


@cache
def compiled_forward_backward(**options: Any) -> _ForwardBackward:
    """``cross_entropy_forward_backward`` in few kernels, compiled once for any number of labels.

    ``options`` are those of ``torch.compile``.
    """
    compiled = torch.compile(cross_entropy_forward_backward, **options)

    def forward_backward(*tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        for tensor in tensors:
            # Mark the labels dynamic, or the first batch's number would be compiled in.
            torch._dynamo.maybe_mark_dynamic(tensor, 0)
        return compiled(*tensors)

    return forward_backward


def fused_cross_entropy(
    hidden_ND: Tensor,
    head_VD: Tensor,
    labels_N: Tensor,
    weights_N: Tensor,
    chunk: int = 0,
    forward_backward: _ForwardBackward = cross_entropy_forward_backward,
    alignment: int = 1,
    soft: SoftTargets | None = None,
) -> tuple[Tensor, Tensor]:
    """Summed weighted cross-entropy of ``hidden_ND @ head_VD.T``, and how many labels are first.

    Under autocast the matmuls have its type.

    Args:
        chunk: labelled positions at a time; 0: all at once.
        forward_backward: ``cross_entropy_forward_backward``, or the compiled one.
        alignment: what the number of ids is padded to a multiple of.
        soft: distributions that take the place of some labels; a label itself still says what is
            correct.
    """
    dtype = hidden_ND.dtype
    if torch.is_autocast_enabled(hidden_ND.device.type):
        dtype = torch.get_autocast_dtype(hidden_ND.device.type)
    # Gradients are always off inside the function, so that it must learn of no_grad from here.
    is_training = torch.is_grad_enabled()
    needs_input_grad = (
        is_training and hidden_ND.requires_grad,
        is_training and head_VD.requires_grad,
    )
    settings = _Settings(dtype, needs_input_grad, chunk, forward_backward, alignment, soft)
    sums: tuple[Tensor, Tensor] = _FusedCrossEntropy.apply(
        hidden_ND, head_VD, labels_N, weights_N, settings
    )
    return sums


@dataclass(frozen=True)
class _Settings:
    """How the pass through the head is made.

    Attributes:
        dtype: type of the matmuls.
        needs_input_grad: whether the hidden states, and the head, get a gradient.
        chunk, forward_backward, alignment, soft: as for ``fused_cross_entropy``.
    """

    dtype: torch.dtype
    needs_input_grad: tuple[bool, bool]
    chunk: int
    forward_backward: _ForwardBackward
    alignment: int
    soft: SoftTargets | None

    def slices(self, count: int) -> Iterator[slice]:
        """Chunks of ``count`` labels: at least one, be it empty."""
        step = self.chunk or max(count, 1)
        return (slice(start, start + step) for start in range(0, max(count, 1), step))

    def padded(self, head_VD: Tensor) -> Tensor:
        """The head in the matmuls' type, with rows of zeros up to the alignment."""
        num_ids, width = head_VD.shape
        num_zeros = -num_ids % self.alignment
        if not num_zeros:
            return head_VD.to(self.dtype)
        head_PD = head_VD.new_empty((num_ids + num_zeros, width), dtype=self.dtype)
        head_PD[:num_ids].copy_(head_VD)
        head_PD[num_ids:].zero_()
        return head_PD


class _FusedCrossEntropy(torch.autograd.Function):
    """Make both gradients along with the loss; scale them in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        head_VD: Tensor,
        labels_N: Tensor,
        weights_N: Tensor,
        settings: _Settings,
    ) -> tuple[Tensor, Tensor]:
        dtype, (needs_hidden, needs_head) = settings.dtype, settings.needs_input_grad
        inputs_ND, head_PD, num_ids = hidden_ND.to(dtype), settings.padded(head_VD), len(head_VD)
        total = weights_N.new_zeros((), dtype=torch.promote_types(dtype, torch.float32))
        correct = labels_N.new_zeros(())
        d_hidden_ND = torch.empty_like(hidden_ND) if needs_hidden else None
        d_head_PD = None
        for part in settings.slices(len(labels_N)):
            logits_CP, labels_C = inputs_ND[part] @ head_PD.T, labels_N[part]
            # The padding's logits are zero, and so is their gradient.
            logits_CV, weights_C = logits_CP[:, :num_ids], weights_N[part]
            soft = settings.soft[part] if settings.soft is not None else None
            excess_C = soft.excess(logits_CV, labels_C) if soft is not None else 0.0
            losses_C, correct_C, d_labels_C = settings.forward_backward(
                logits_CV, labels_C, weights_C
            )
            losses_C = losses_C + excess_C * weights_C
            total, correct = total + losses_C.sum(), correct + correct_C.sum()
            # From here on the logits are the gradient of the loss.
            if soft is not None:
                soft.write_gradient(logits_CV, labels_C, d_labels_C, weights_C)
            else:
                logits_CV.scatter_(-1, labels_C[:, None], d_labels_C[:, None].to(dtype))
            if d_hidden_ND is not None:
                d_hidden_ND[part] = logits_CP @ head_PD
            if needs_head:
                d_head_PD = _accumulated(d_head_PD, logits_CP.T @ inputs_ND[part], settings.chunk)
        d_head_VD = d_head_PD[:num_ids].to(head_VD.dtype) if d_head_PD is not None else None
        ctx.save_for_backward(d_hidden_ND, d_head_VD)
        ctx.mark_non_differentiable(correct)
        return total, correct

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *d_sums: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradients in place: autograd refuses a second pass over them."""
        scaled = [d.mul_(d_sums[0]) if d is not None else None for d in ctx.saved_tensors]
        return *scaled, None, None, None


def _accumulated(total_PD: Tensor | None, part_PD: Tensor, chunk: int) -> Tensor:
    """Sum over chunks, in float32 at least: many roundings would add up."""
    if total_PD is not None:
        return total_PD.add_(part_PD)
    return part_PD.to(torch.promote_types(part_PD.dtype, torch.float32)) if chunk else part_PD
