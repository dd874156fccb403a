"""Muon: momentum with orthogonalised steps, for weights that act as matrices (Jordan et al. 2024).

A step moves every singular direction of a weight by the same amount, so that directions with
small gradients learn too.
Shape legend: M matrices of one shape, R rows, C columns.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

# Newton-Schulz polynomial whose iteration drives singular values towards 1 (Jordan et al. 2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


def orthogonalise(matrices_MRC: Tensor) -> Tensor:
    """Matrices with the same singular vectors and all singular values near 1 (0.7 to 1.2).

    The polynomials are multiplied up on the small side's Gram matrices, which commute, so that
    only two products see the long side.
    """
    if matrices_MRC.shape[1] > matrices_MRC.shape[2]:
        return orthogonalise(matrices_MRC.mT).mT
    x_MRC = matrices_MRC / (matrices_MRC.norm(dim=(1, 2), keepdim=True) + 1e-7)
    gram_MRR = x_MRC @ x_MRC.mT
    identity_RR = torch.eye(gram_MRR.shape[1], dtype=x_MRC.dtype, device=x_MRC.device)
    product_MRR = identity_RR.expand_as(gram_MRR)
    first, second, third = _COEFFICIENTS
    for _ in range(_ROUNDS):
        factor_MRR = first * identity_RR + second * gram_MRR + third * gram_MRR @ gram_MRR
        product_MRR = factor_MRR @ product_MRR
        gram_MRR = factor_MRR @ gram_MRR @ factor_MRR
    return product_MRR @ x_MRC


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised per weight; a weight is seen as rows x all else.

    Weights of one shape are worked on together.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.9
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            for same_shape in _by_shape(group["params"]):
                self._step_together(same_shape, group["lr"], group["momentum"])

    def _step_together(self, weights: list[nn.Parameter], lr: float, momentum: float) -> None:
        gradients_MRC = torch.stack([w.grad.flatten(1) for w in weights if w.grad is not None])
        state = self.state[weights[0]]
        average_MRC = state.setdefault("average", torch.zeros_like(gradients_MRC))
        average_MRC.lerp_(gradients_MRC, 1 - momentum)
        steps_MRC = orthogonalise(gradients_MRC.lerp(average_MRC, momentum))
        rows, columns = steps_MRC.shape[1:]
        scale = max(1.0, rows / columns) ** 0.5
        for weight, step_RC in zip(weights, steps_MRC, strict=True):
            weight.add_(step_RC.view_as(weight), alpha=-lr * scale)


def _by_shape(weights: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
    for weight in weights:
        if weight.grad is not None:
            groups[weight.shape].append(weight)
    return list(groups.values())
