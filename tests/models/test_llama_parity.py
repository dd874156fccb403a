"""Our decoder against torchtune's modules of the same weights: values and all gradients.

Shapes: B samples, L positions, D width, N selected positions.
"""

import pytest
import torch
import torchtune.modules
from kyvo_stand_ins import tiny_model
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torchtune.models.llama3._component_builders import llama3_mlp
from torchtune.models.llama3_1 import Llama3ScaledRoPE
from torchtune.modules import (
    MultiHeadAttention,
    TransformerDecoder,
    TransformerSelfAttentionLayer,
)

from kyvo.models.llama import Attention, RMSNorm, RotaryEmbedding

WIDTH, HEADS, INNER, LENGTH = 32, 4, 64, 3000


def torchtunes(model, num_kv_heads, base, factor):
    """torchtune's decoder with the weights and the embedding of ``model``."""
    head_dim = WIDTH // HEADS
    rope = Llama3ScaledRoPE(head_dim, LENGTH, base, factor)

    def layer():
        attention = MultiHeadAttention(
            embed_dim=WIDTH,
            num_heads=HEADS,
            num_kv_heads=num_kv_heads,
            head_dim=head_dim,
            q_proj=nn.Linear(WIDTH, WIDTH, bias=False),
            k_proj=nn.Linear(WIDTH, num_kv_heads * head_dim, bias=False),
            v_proj=nn.Linear(WIDTH, num_kv_heads * head_dim, bias=False),
            output_proj=nn.Linear(WIDTH, WIDTH, bias=False),
            pos_embeddings=rope,
        )
        return TransformerSelfAttentionLayer(
            attn=attention,
            mlp=llama3_mlp(WIDTH, INNER),
            sa_norm=torchtune.modules.RMSNorm(WIDTH, eps=1e-5),
            mlp_norm=torchtune.modules.RMSNorm(WIDTH, eps=1e-5),
        )

    decoder = TransformerDecoder(
        tok_embeddings=tiny_model(max_seq_len=LENGTH, num_kv_heads=num_kv_heads).tok_embeddings,
        layers=[layer() for _ in model.layers],
        max_seq_len=LENGTH,
        num_heads=HEADS,
        head_dim=head_dim,
        norm=torchtune.modules.RMSNorm(WIDTH, eps=1e-5),
        output=nn.Linear(WIDTH, model.output.out_features, bias=False),
    )
    decoder.load_state_dict(model.state_dict())
    return decoder


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("base", "factor"), [(500_000, 32), (10_000, 1)])
def test_logits_and_gradients_are_torchtunes(num_kv_heads, base, factor):
    model = tiny_model(
        num_kv_heads=num_kv_heads, rope_base=base, rope_scale_factor=factor, max_seq_len=LENGTH
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("scale"):
                parameter.uniform_(0.5, 1.5)
    other = torchtunes(model, num_kv_heads, base, factor)
    assert list(model.state_dict()) == list(other.state_dict())
    ids_BL = torch.randint(2, 1000, (2, 90), generator=torch.Generator().manual_seed(1))
    found = []
    for decoder in (model, other):
        decoder.zero_grad()
        logits_BLV = decoder(ids_BL)
        logits_BLV.log_softmax(-1)[..., 7].sum().backward()
        gradients = {n: p.grad for n, p in decoder.named_parameters() if p.grad is not None}
        found.append({"logits": logits_BLV.detach(), **gradients})
    own, expected = found
    assert own.keys() == expected.keys() > {"layers.0.attn.k_proj.weight"}
    for name, values in expected.items():
        assert (own[name] - values).norm() < 1e-5 * values.norm(), name


@pytest.mark.parametrize("head_dim", [8, 64, 128])
@pytest.mark.parametrize(("base", "factor"), [(500_000, 32), (500_000, 8), (10_000, 1)])
def test_the_rotary_table_is_torchtunes(head_dim, base, factor):
    rope = Llama3ScaledRoPE(head_dim, LENGTH, base, factor)
    assert torch.equal(RotaryEmbedding(head_dim, LENGTH, base, factor).table, rope.cache)


@pytest.mark.parametrize("input_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_the_norm_is_torchtunes(input_dtype, scale_dtype):
    own = RMSNorm(48, 1e-6).to(scale_dtype)
    found = []
    for norm in (own, torchtune.modules.RMSNorm(48).to(scale_dtype)):
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


def attention():
    torch.manual_seed(0)
    return Attention(WIDTH, HEADS, 2, RotaryEmbedding(WIDTH // HEADS, 64, 500_000, 32))


class Doubled(nn.Linear):
    """A projection that does more than its weight says, as an adapter does."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_a_projection_that_does_more_is_called():
    plain, x_BLD = attention(), torch.randn(2, 20, WIDTH)
    doubled = Doubled(WIDTH, WIDTH, bias=False)
    doubled.weight = plain.q_proj.weight
    plain.q_proj = doubled
    twice = attention()
    with torch.no_grad():
        twice.q_proj.weight *= 2
    torch.testing.assert_close(plain(x_BLD), twice(x_BLD))


def test_matmuls_are_bfloat16_under_autocast_and_attention_stays_close():
    found = []
    for enabled in (False, True):
        module, x_BLD = attention(), torch.linspace(-2, 2, 2 * 20 * WIDTH).reshape(2, 20, WIDTH)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out_BLD = module(x_BLD)
        assert out_BLD.dtype == (torch.bfloat16 if enabled else torch.float32)
        out_BLD.float().square().sum().backward()
        found.append((out_BLD.detach().float(), [p.grad for p in module.parameters()]))
    (expected_BLD, expected), (found_BLD, gradients) = found
    assert (found_BLD - expected_BLD).norm() < 0.02 * expected_BLD.norm()
    for gradient, exact in zip(gradients, expected, strict=True):
        assert (gradient - exact).norm() < 0.03 * exact.norm()


@pytest.mark.slow
def test_all_layers_lengths_and_full_batches_share_one_compilation():
    model, eager = tiny_model(num_layers=3), tiny_model(num_layers=3)
    counter = CompileCounterWithBackend("aot_eager")
    model.compile_layers(backend=counter, fullgraph=True)
    sizes = [(4, 32), (4, 48), (4, 64), (3, 48), (2, 16)]
    for rows, length in sizes:
        ids_BL = torch.randint(500, (rows, length))
        positions_N = torch.arange(0, rows * length, 3)
        hidden_ND = model.hidden_states(ids_BL, positions_N)
        expected_ND = eager.hidden_states(ids_BL, positions_N)
        torch.testing.assert_close(hidden_ND, expected_ND, rtol=1e-4, atol=1e-5)
        hidden_ND.sum().backward()
    # The last layer is compiled for itself.
    assert counter.frame_count == 2
    with torch.no_grad():
        for rows, length in sizes:
            selected_N = torch.arange(rows * length - 1)
            model.hidden_states(torch.randint(500, (rows, length)), selected_N)
    assert counter.frame_count == 4
    # A single row is compiled once more.
    for length in (16, 48, 64):
        ids_BL = torch.randint(500, (1, length))
        model.hidden_states(ids_BL, torch.arange(length - 2)).sum().backward()
    assert counter.frame_count <= 6
