"""Muon for hidden matrices, AdamW for everything else, as one optimizer.

Muon moves every singular direction of a weight by the same amount (Jordan et al. 2024), so that
directions with small gradients learn too. A parameter group with ``is_hidden: True`` gets it.
Shapes: R rows, C columns, S the smaller of both, M matrices with the same S.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# Newton-Schulz polynomial whose iteration drives singular values towards 1 (Jordan et al. 2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ROUNDS = 5


def orthogonalise(matrices_RC: Sequence[Tensor]) -> list[Tensor]:
    """Matrices with the same singular vectors and all singular values near 1 (0.7 to 1.2).

    Each is multiplied by a polynomial of its Gram matrix over its smaller side: the iteration
    needs the Gram matrices alone, so that those of one size go through it together.
    """
    wide = [x_RC if x_RC.shape[0] <= x_RC.shape[1] else x_RC.mT for x_RC in matrices_RC]
    factors: dict[int, Tensor] = {}
    for same_side in _grouped(range(len(wide)), lambda i: wide[i].shape[0]):
        grams_MSS = torch.stack([wide[i] @ wide[i].mT for i in same_side])
        factors |= zip(same_side, _inverse_roots(grams_MSS), strict=True)
    updates = [factors[i] @ x for i, x in enumerate(wide)]
    return [
        update if update.shape == x_RC.shape else update.mT
        for update, x_RC in zip(updates, matrices_RC, strict=True)
    ]


def _inverse_roots(grams_MSS: Tensor) -> Tensor:
    """Roughly the inverse square roots of Gram matrices, by Newton-Schulz."""
    first, second, third = _COEFFICIENTS
    sizes_M11 = grams_MSS.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None].clamp_min(1e-14)
    gram_MSS, factor_MSS = grams_MSS / sizes_M11, None
    for round_ in range(_ROUNDS):
        step_MSS = torch.baddbmm(gram_MSS, gram_MSS, gram_MSS, beta=second, alpha=third)
        step_MSS.diagonal(dim1=1, dim2=2).add_(first)
        factor_MSS = step_MSS if factor_MSS is None else step_MSS @ factor_MSS
        if round_ < _ROUNDS - 1:
            # All of these are polynomials of one matrix and commute.
            gram_MSS = step_MSS @ (step_MSS @ gram_MSS)
    assert factor_MSS is not None
    return factor_MSS * sizes_M11.rsqrt()


class MuonAdamW(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised per weight, for hidden groups; AdamW for the others.

    A weight of more than two dimensions is seen as rows x all else.

    Args:
        parameters: groups; those with ``is_hidden: True`` are Muon's.
        lr, betas, eps: of AdamW.
        muon_lr: of Muon; about ten times as large.
        momentum: of Muon.
        weight_decay: decoupled, of both.

    Raises:
        ValueError: a rate or the decay is no number of 0 or more.
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
        for name, value in {"lr": lr, "muon_lr": muon_lr, "weight_decay": weight_decay}.items():
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"{name}: expected a number of 0 or more, found {value!r}")
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
            if group["is_hidden"] and weights:
                self._muon(weights, group)
            elif weights:
                self._adam(weights, group)

    def _muon(self, weights: list[nn.Parameter], group: dict[str, Any]) -> None:
        averages = [self._state(w, "momentum") for w in weights]
        gradients = [w.grad for w in weights if w.grad is not None]
        torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
        nesterov = torch._foreach_lerp(gradients, averages, group["momentum"])
        steps_RC = orthogonalise([step.flatten(1) for step in nesterov])
        for weight, step_RC in zip(weights, steps_RC, strict=True):
            rows, columns = step_RC.shape
            scale = max(1.0, rows / columns) ** 0.5
            weight.add_(step_RC.reshape(weight.shape), alpha=-group["lr"] * scale)

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


def _grouped(items: Iterable[int], key: Callable[[int], int]) -> Iterable[list[int]]:
    groups: dict[int, list[int]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return groups.values()
