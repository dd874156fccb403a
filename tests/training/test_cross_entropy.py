"""Fused cross-entropy against the formula, central differences, and itself in other arrangements.

Shapes: D width, N labelled positions, V ids.
"""

from functools import partial

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from kyvo.training.cross_entropy import (
    SoftTargets,
    compiled_forward_backward,
    fused_cross_entropy,
)


def plain_head(hidden_ND, head_VD, labels_N, weights_N):
    """The formula: logits, log-softmax, all gradients by autograd."""
    logits_NV = nn.functional.linear(hidden_ND, head_VD)
    losses_N = nn.functional.cross_entropy(logits_NV, labels_N, reduction="none")
    return (losses_N * weights_N).sum(), (logits_NV.argmax(-1) == labels_N).sum()


def head_inputs(dtype=torch.float64, num_labels=11, num_ids=29, scale=1.0):
    torch.manual_seed(2)
    hidden_ND = torch.randn(num_labels, 6, dtype=dtype).mul_(scale).requires_grad_()
    head_VD = torch.randn(num_ids, 6, dtype=dtype, requires_grad=True)
    return hidden_ND, head_VD, torch.randint(num_ids, (num_labels,)), torch.rand(num_labels) + 0.5


def gradients_of(function, inputs, *choices, scale=0.7):
    loss, correct = function(*inputs, *choices)
    return loss.detach(), correct, *torch.autograd.grad(loss * scale, inputs[:2])


@pytest.mark.parametrize("chunk", [0, 1, 4, 11, 50])
def test_the_fused_head_is_the_formula(chunk):
    inputs = head_inputs()
    found, expected = (
        gradients_of(fused_cross_entropy, inputs, chunk),
        gradients_of(plain_head, inputs),
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("num_ids", [29, 32, 33])
@pytest.mark.parametrize("chunk", [0, 4])
def test_padding_the_ids_changes_nothing(num_ids, chunk):
    inputs = head_inputs(num_ids=num_ids)
    padded = gradients_of(partial(fused_cross_entropy, alignment=16), inputs, chunk)
    torch.testing.assert_close(padded, gradients_of(plain_head, inputs), rtol=1e-6, atol=1e-7)


def test_the_fused_heads_gradient_is_the_slope():
    """Central differences in float64, of every number."""
    inputs = head_inputs(num_labels=3, num_ids=5)
    inputs = (*inputs[:3], inputs[3].double())
    _, _, *gradients = gradients_of(fused_cross_entropy, inputs, 2, scale=1.0)
    for tensor, gradient in zip(inputs[:2], gradients, strict=True):
        for place in torch.cartesian_prod(*map(torch.arange, tensor.shape)).tolist():
            ends = []
            for change in (1e-6, -2e-6):
                tensor.data[tuple(place)] += change
                ends.append(fused_cross_entropy(*inputs)[0].item())
            tensor.data[tuple(place)] += 1e-6
            slope = (ends[0] - ends[1]) / 2e-6
            assert slope == pytest.approx(gradient[tuple(place)].item(), abs=1e-7)


@pytest.mark.parametrize("frozen", [0, 1])
def test_only_what_is_trained_gets_a_gradient(frozen):
    inputs = head_inputs()
    expected = gradients_of(plain_head, inputs)[3 - frozen]
    inputs[frozen].requires_grad_(False)
    trained = inputs[1 - frozen]
    (fused_cross_entropy(*inputs, 4)[0] * 0.7).backward()
    torch.testing.assert_close(trained.grad, expected, rtol=1e-6, atol=1e-7)
    assert inputs[frozen].grad is None


def test_validation_makes_the_same_loss_and_no_gradient():
    inputs = head_inputs()
    expected = plain_head(*inputs)
    with torch.no_grad():
        found = fused_cross_entropy(*inputs, 4)
    assert not found[0].requires_grad
    torch.testing.assert_close(found[0], expected[0].detach(), rtol=1e-6, atol=1e-7)
    assert found[1] == expected[1]


def test_a_batch_without_labels_has_no_loss():
    loss, correct, *gradients = gradients_of(fused_cross_entropy, head_inputs(num_labels=0), 4)
    assert (loss, correct) == (0, 0)
    assert all((gradient == 0).all() for gradient in gradients)


def test_no_logits_outlive_their_chunk_and_gradients_are_not_copied():
    inputs = head_inputs(torch.float32, num_labels=40, num_ids=50)
    loss, _ = fused_cross_entropy(*inputs, 8)
    saved = loss.grad_fn.saved_tensors
    assert [tensor.shape for tensor in saved] == [(40, 6), (50, 6)]
    kept = [tensor.data_ptr() for tensor in saved]
    del saved
    loss.backward()
    assert [tensor.grad.data_ptr() for tensor in inputs[:2]] == kept


def test_a_second_backward_pass_is_refused():
    loss, _ = fused_cross_entropy(*head_inputs())
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("chunk", [0, 16])
def test_autocast_rounds_products_but_not_the_sure_labels_gradient(chunk):
    """Logits of 20 and more: probabilities within 2^-9 of one would round to it."""
    inputs = head_inputs(torch.float32, num_labels=64, scale=4.0)
    inputs = (*inputs[:2], (inputs[0] @ inputs[1].T).argmax(-1), inputs[3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients_of(fused_cross_entropy, inputs, chunk)
        expected = gradients_of(plain_head, inputs)
    assert found[2].dtype == found[3].dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.01)
    sure_N = torch.softmax(inputs[0] @ inputs[1].T, -1).amax(-1) > 1 - 2**-9
    assert sure_N.sum() > 5
    assert (found[2][sure_N].norm(dim=-1) > 0).float().mean() > 0.9


def test_bfloat16_chunks_are_summed_in_float32():
    inputs = head_inputs(torch.bfloat16, num_labels=512, num_ids=4)
    exact = gradients_of(
        plain_head, [t.detach().float().requires_grad_() for t in inputs[:2]] + list(inputs[2:])
    )
    whole, chunked = (gradients_of(fused_cross_entropy, inputs, chunk)[3] for chunk in (0, 1))
    errors = [(gradient.float() - exact[3]).norm() for gradient in (whole, chunked)]
    assert chunked.dtype == torch.bfloat16
    assert errors[1] < 1.5 * errors[0]


def test_the_compiled_pass_is_compiled_once_and_changes_nothing():
    counter = CompileCounterWithBackend("aot_eager")
    forward_backward = compiled_forward_backward(backend=counter)
    for num_labels in (11, 7, 40, 23):
        inputs = head_inputs(torch.float32, num_labels)
        found = gradients_of(fused_cross_entropy, inputs, 0, forward_backward)
        torch.testing.assert_close(found, gradients_of(fused_cross_entropy, inputs))
    assert counter.frame_count == 1


def soft_targets(labels_N, columns=slice(4, 13)):
    """Random distributions for the labels among these columns, zeros for the others."""
    torch.manual_seed(5)
    is_soft_N = (labels_N >= columns.start) & (labels_N < columns.stop)
    targets_NK = torch.randn(len(labels_N), columns.stop - columns.start).double().softmax(-1)
    return SoftTargets(columns, is_soft_N, targets_NK * is_soft_N[:, None])


def plain_soft_head(hidden_ND, head_VD, labels_N, weights_N):
    """Cross-entropy with a whole row of probabilities for each label."""
    soft = soft_targets(labels_N)
    targets_NV = nn.functional.one_hot(labels_N, len(head_VD)).double()
    targets_NV[soft.is_soft_N] = 0
    targets_NV[:, soft.columns] += soft.targets_NK
    logits_NV = nn.functional.linear(hidden_ND, head_VD)
    losses_N = nn.functional.cross_entropy(logits_NV, targets_NV, reduction="none")
    return (losses_N * weights_N).sum(), (logits_NV.argmax(-1) == labels_N).sum()


@pytest.mark.parametrize("chunk", [0, 4])
@pytest.mark.parametrize("alignment", [1, 16])
def test_soft_targets_are_cross_entropy_with_distributions(chunk, alignment):
    inputs = head_inputs(num_labels=31)
    soft = soft_targets(inputs[2])
    assert 0 < soft.is_soft_N.sum() < 31
    found = gradients_of(
        partial(fused_cross_entropy, alignment=alignment, soft=soft), inputs, chunk
    )
    torch.testing.assert_close(found, gradients_of(plain_soft_head, inputs), rtol=1e-6, atol=1e-7)
