"""MuonAdamW against torch's AdamW and a naive Muon."""

from typing import Any

import pytest
import torch
from torch import nn

from kyvo.training.muon import MuonAdamW, orthogonalise


def _weights(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(*shape, generator=generator)) for shape in shapes]


def _set_gradients(weights: list[nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)


def test_orthogonalise_brings_singular_values_near_one() -> None:
    for shape in ((2, 8, 8), (3, 4, 16), (1, 16, 4)):
        matrices = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
        values = torch.linalg.svdvals(torch.stack(orthogonalise(matrices.unbind())))
        assert values.min() > 0.3
        assert values.max() < 1.3


def test_orthogonalise_is_the_newton_schulz_iteration() -> None:
    """On matrices of several shapes at once, some of them nearly singular."""
    generator = torch.Generator().manual_seed(3)
    shapes = [(8, 8), (4, 16), (16, 4), (8, 20)]
    matrices = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]
    matrices.append(matrices[0] * torch.logspace(0, -4, 8, dtype=torch.float64))
    for matrix, found in zip(matrices, orthogonalise(matrices), strict=True):
        x = matrix / matrix.norm()
        for _ in range(5):
            gram = x @ x.T
            x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
        torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-7)
        (single,) = orthogonalise([matrix.float()])
        assert (single - x).norm() < 1e-3 * x.norm()


def test_orthogonalise_keeps_singular_vectors() -> None:
    matrix = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(2))
    left, _, right = torch.linalg.svd(matrix[0])
    turned = left.T @ orthogonalise([matrix[0]])[0] @ right.T
    assert torch.allclose(turned, turned.diag().diag(), atol=1e-4)


def test_other_groups_follow_adamw() -> None:
    ours, theirs = _weights((5, 3), (4,)), _weights((5, 3), (4,))
    rule = {"lr": 1e-2, "betas": (0.9, 0.98), "eps": 1e-8, "weight_decay": 0.1}
    mine = MuonAdamW([{"params": ours}], **rule)
    reference = torch.optim.AdamW(theirs, **rule)
    for step in range(5):
        for weights, optimizer in ((ours, mine), (theirs, reference)):
            _set_gradients(weights, step)
            optimizer.step()
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def test_hidden_groups_take_orthogonal_nesterov_steps() -> None:
    weights = _weights((8, 4), (8, 4), (4, 8))
    before = [w.detach().clone() for w in weights]
    optimizer = MuonAdamW([{"params": weights, "is_hidden": True}], muon_lr=0.1, momentum=0.5)
    averages = [torch.zeros_like(w) for w in weights]
    for step in range(3):
        _set_gradients(weights, step)
        for index, weight in enumerate(weights):
            averages[index] = 0.5 * averages[index] + 0.5 * weight.grad
            nesterov = 0.5 * weight.grad + 0.5 * averages[index]
            scale = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
            before[index] -= 0.1 * scale * orthogonalise([nesterov])[0]
        optimizer.step()
    for own, expected in zip(weights, before, strict=True):
        torch.testing.assert_close(own.detach(), expected)


def test_learning_rates_of_the_groups_scale_together() -> None:
    hidden, table = _weights((4, 4), (6, 4))
    optimizer = MuonAdamW([{"params": [hidden], "is_hidden": True}, {"params": [table]}], 1e-3, 0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.05, 5e-4]


def test_weights_of_one_shape_are_updated_on_their_own() -> None:
    together = _weights((4, 18), (4, 18), (4, 2, 3, 3))
    alone = [nn.Parameter(w.detach().clone()) for w in together]
    optimizers = [MuonAdamW([{"params": together, "is_hidden": True}], muon_lr=0.1)]
    optimizers += [MuonAdamW([{"params": [w], "is_hidden": True}], muon_lr=0.1) for w in alone]
    for _ in range(3):
        for weight in (*together, *alone):
            weight.grad = 2 * weight.detach()
        for optimizer in optimizers:
            optimizer.step()
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["lr", "muon_lr", "weight_decay"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "abc"])
def test_rates_that_are_no_rates_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a number of 0 or more"):
        MuonAdamW([{"params": _weights((2, 2))}], **{name: value})
