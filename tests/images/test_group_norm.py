"""The normalisation that is compiled, against torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kyvo.images.layers import GroupNorm, group_norm

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def gradients_of(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return torch.autograd.grad((output * weights).sum(), inputs)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("num_groups", [1, 4, 12])
def test_it_is_torchs_group_norm_with_its_gradients(
    num_groups: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    # Channels with means and deviations that differ, one of them far from zero.
    x_BCHW = torch.randn(3, 12, 5, 7) * torch.linspace(0.1, 4, 12).view(1, 12, 1, 1)
    x_BCHW = (x_BCHW + torch.linspace(-3, 30, 12).view(1, 12, 1, 1)).to(memory_format=layout)
    weight_C, bias_C = torch.randn(12), torch.randn(12)
    inputs = [tensor.requires_grad_(True) for tensor in (x_BCHW, weight_C, bias_C)]
    found = group_norm(x_BCHW, num_groups, weight_C, bias_C, 1e-6)
    expected = F.group_norm(x_BCHW, num_groups, weight_C, bias_C, 1e-6)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert found.is_contiguous(memory_format=layout)
    pairs = zip(gradients_of(found, *inputs), gradients_of(expected, *inputs), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_bfloat16_maps_stay_so_and_are_summed_in_float32() -> None:
    torch.manual_seed(0)
    x_BCHW = (torch.randn(2, 8, 64, 64) + 5).bfloat16().to(memory_format=torch.channels_last)
    weight_C, bias_C = torch.ones(8), torch.zeros(8)
    found = group_norm(x_BCHW, 2, weight_C, bias_C, 1e-6)
    assert found.dtype == torch.bfloat16
    assert found.is_contiguous(memory_format=torch.channels_last)
    exact = F.group_norm(x_BCHW.double(), 2, eps=1e-6)
    assert 4 < exact.abs().max() < 8
    # Half a step of the bfloat16 numbers from 4 to 8, and the rounding before.
    assert (found.double() - exact).abs().max() <= 2**-6 + 1e-4


def test_the_layer_is_torchs_compiled_or_not() -> None:
    torch.manual_seed(0)
    layer = GroupNorm(4, 8, eps=1e-6)
    x_BCHW = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)
    expected = F.group_norm(x_BCHW, 4, eps=1e-6)
    assert torch.equal(layer(x_BCHW), expected)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager")(x_BCHW), expected)
    assert layer.state_dict().keys() == torch.nn.GroupNorm(4, 8).state_dict().keys()
