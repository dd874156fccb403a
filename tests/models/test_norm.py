"""The norm against torchtune's."""

import pytest
import torch
import torchtune.modules

from kyvo.models.norm import RMSNorm


@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_values_and_gradients_are_torchtunes(input_dtype, scale_dtype):
    own, torchtunes = RMSNorm(48).to(scale_dtype), torchtune.modules.RMSNorm(48).to(scale_dtype)
    found = []
    for norm in (own, torchtunes):
        with torch.no_grad():
            norm.scale.copy_(torch.linspace(0.5, 2, 48))
        random = torch.Generator().manual_seed(0)
        x_BD = (3 * torch.randn(20, 48, generator=random)).to(input_dtype).requires_grad_()
        out_BD = norm(x_BD)
        out_BD.float().square().sum().backward()
        found.append((out_BD.detach(), x_BD.grad, norm.scale.grad))
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == theirs.dtype
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=2e-2)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=0, atol=0)
