"""The attention that makes one product, against torchtune's own of the same weights."""

import pytest
import torch
from kyvo_stand_ins import tiny_model
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torchtune.models.llama3_1 import Llama3ScaledRoPE
from torchtune.modules import MultiHeadAttention

from kyvo.models.attention import Attention


def pair(num_kv_heads):
    """The same weights in both kinds of attention."""
    torch.manual_seed(0)
    width, head_dim = 32, 8
    parts = {
        "q_proj": nn.Linear(width, width, bias=False),
        "k_proj": nn.Linear(width, num_kv_heads * head_dim, bias=False),
        "v_proj": nn.Linear(width, num_kv_heads * head_dim, bias=False),
        "output_proj": nn.Linear(width, width, bias=False),
        "pos_embeddings": Llama3ScaledRoPE(head_dim, 64),
    }
    sizes = {"embed_dim": width, "num_heads": 4, "num_kv_heads": num_kv_heads, "head_dim": head_dim}
    return [kind(**sizes, **parts) for kind in (Attention, MultiHeadAttention)]


def outcome(attention, x_BLD, **choices):
    attention.zero_grad()
    out_BLD = attention(x_BLD, x_BLD, **choices)
    out_BLD.square().sum().backward()
    return out_BLD.detach(), {name: p.grad.clone() for name, p in attention.named_parameters()}


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("choice", ["causal", "mask", "positions"])
def test_values_and_gradients_are_torchtunes(num_kv_heads, choice):
    own, torchtunes = pair(num_kv_heads)
    x_BLD = torch.randn(2, 20, 32)
    choices = {
        "causal": {},
        "mask": {
            "mask": torch.ones(2, 20, 20).tril().bool() & (torch.arange(20) != 3)
            | torch.eye(20).bool()
        },
        "positions": {"input_pos": torch.arange(20).flip(0).expand(2, 20)},
    }[choice]
    assert [n for n, _ in own.named_parameters()] == [n for n, _ in torchtunes.named_parameters()]
    torch.testing.assert_close(
        outcome(own, x_BLD, **choices), outcome(torchtunes, x_BLD, **choices), rtol=1e-4, atol=1e-5
    )


class Doubled(nn.Linear):
    """A projection that does more than its weight says, as an adapter does."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_projection_that_does_more_is_called():
    attention, torchtunes = pair(2)
    doubled = Doubled(32, 32, bias=False)
    doubled.weight = attention.q_proj.weight
    attention.q_proj = torchtunes.q_proj = doubled
    x_BLD = torch.randn(2, 20, 32)
    torch.testing.assert_close(attention(x_BLD, x_BLD), torchtunes(x_BLD, x_BLD))


@pytest.mark.slow
def test_all_layers_lengths_and_full_batches_share_one_compilation():
    model, eager = tiny_model(num_layers=3), tiny_model(num_layers=3)
    counter = CompileCounterWithBackend("aot_eager")
    model.compile_layers(backend=counter, fullgraph=True)
    sizes = [(4, 32), (4, 48), (4, 64), (3, 48), (2, 16)]
    for rows, length in sizes:
        ids_BL = torch.randint(500, (rows, length))
        positions_N = torch.arange(0, rows * length, 3)
        hidden_ND = model.hidden_at(ids_BL, positions_N)
        expected_ND = eager.hidden_at(ids_BL, positions_N)
        torch.testing.assert_close(hidden_ND, expected_ND, rtol=1e-4, atol=1e-5)
        hidden_ND.sum().backward()
    # The last layer is compiled for itself.
    assert counter.frame_count == 2
    with torch.no_grad():
        for rows, length in sizes:
            model.hidden_at(torch.randint(500, (rows, length)), torch.arange(rows * length - 1))
    assert counter.frame_count == 4
    # A single row is compiled once more.
    for length in (16, 48, 64):
        ids_BL = torch.randint(500, (1, length))
        model.hidden_at(ids_BL, torch.arange(length - 2)).sum().backward()
    assert counter.frame_count <= 6


def test_products_are_bfloat16_under_autocast_and_attention_stays_close():
    own, _ = pair(2)
    x_BLD = torch.randn(2, 20, 32)
    expected_BLD, expected = outcome(own, x_BLD)
    with torch.autocast("cpu", torch.bfloat16):
        found_BLD, found = outcome(own, x_BLD)
    assert found_BLD.dtype == torch.bfloat16
    torch.testing.assert_close(found_BLD.float(), expected_BLD, rtol=0.02, atol=0.02)
    for name, gradient in found.items():
        assert (gradient - expected[name]).norm() < 0.02 * expected[name].norm(), name
