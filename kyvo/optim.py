"""Muon for hidden matrices, AdamW for everything else, as one optimizer.

Muon moves every singular direction of a weight by the same amount (Jordan et al. 2024), so that
directions with small gradients learn too. A parameter group with ``is_hidden: True`` gets it.
Shapes: M matrices of one shape, R rows, C columns.
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
    """Matrices with the same singular vectors and all singular values near 1 (0.7 to 1.2)."""
    tall = matrices_MRC.shape[1] > matrices_MRC.shape[2]
    x_MRC = matrices_MRC.mT if tall else matrices_MRC
    x_MRC = x_MRC / (x_MRC.norm(dim=(1, 2), keepdim=True) + 1e-7)
    first, second, third = _COEFFICIENTS
    for _ in range(_ROUNDS):
        gram_MRR = x_MRC @ x_MRC.mT
        x_MRC = first * x_MRC + (second * gram_MRR + third * gram_MRR @ gram_MRR) @ x_MRC
    return x_MRC.mT if tall else x_MRC


class MuonAdamW(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised per weight, for hidden groups; AdamW for the others.

    A weight of more than two dimensions is seen as rows x all else.

    Args:
        parameters: groups; those with ``is_hidden: True`` are Muon's.
        lr, betas, eps: of AdamW.
        muon_lr: of Muon; about ten times as large.
        momentum: of Muon.
        weight_decay: decoupled, of both.
    """

    def __init__(
        self,
        parameters: Iterable[dict[str, Any]],
        lr: float = 1e-3,
        muon_lr: float = 0.02,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        groups = [{"lr": muon_lr, **g} if g.get("is_hidden") else dict(g) for g in parameters]
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "momentum": momentum}
        super().__init__(groups, {**defaults, "weight_decay": weight_decay, "is_hidden": False})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update all weights that have a gradient."""
        assert closure is None
        for group in self.param_groups:
            weights: list[Any] = [w for w in group["params"] if w.grad is not None]
            if weights and group["weight_decay"]:
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            if group["is_hidden"]:
                for same_shape in _by_shape(weights):
                    self._muon(same_shape, group)
            elif weights:
                self._adam(weights, group)

    def _muon(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        """Weights of one shape, together."""
        averages = [self._state(w, "momentum") for w in weights]
        gradients = [w.grad for w in weights if w.grad is not None]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, averages, group["momentum"])
        steps_MRC = orthogonalise(torch.stack([step.flatten(1) for step in nesterov]))
        rows, columns = steps_MRC.shape[1:]
        scale = max(1.0, rows / columns) ** 0.5
        for weight, step_RC in zip(weights, steps_MRC, strict=True):
            weight.add_(step_RC.view_as(weight), alpha=-group["lr"] * scale)

    def _adam(self, weights: list[Any], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        gradients = [w.grad for w in weights if w.grad is not None]
        means = [self._state(w, "exp_avg") for w in weights]
        squares = [self._state(w, "exp_avg_sq") for w in weights]
        counts = [self.state[w].get("step", 0) + 1 for w in weights]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - second**count) ** 0.5 for count in counts])
        torch._foreach_add_(roots, group["eps"])
        steps = [-group["lr"] / (1 - first**count) for count in counts]
        torch._foreach_addcdiv_(weights, means, roots, steps)
        for weight, count in zip(weights, counts, strict=True):
            self.state[weight]["step"] = count

    def _state(self, weight: nn.Parameter, name: str) -> Tensor:
        state: dict[str, Any] = self.state[weight]
        if name not in state:
            state[name] = torch.zeros_like(weight)
        return state[name]


def _by_shape(weights: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
    for weight in weights:
        groups[weight.shape].append(weight)
    return list(groups.values())
