"""The decoder against the released code's logits and against a second implementation in float64.

Shapes: L positions, D width, H heads, E head width, V ids.
"""

import numpy as np
import pytest
import torch
from kyvo_stand_ins import golden, golden_model, tiny_model

from kyvo.common.errors import InputError


def rms_norm(x_LD, scale_D):
    return x_LD / np.sqrt((x_LD**2).mean(-1, keepdims=True) + 1e-5) * scale_D


def llama3_frequencies(head_dim, base, factor):
    """RoPE's frequencies, stretched as Llama 3 does for wavelengths beyond 2048 positions."""
    frequencies = base ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = 8192 * frequencies / (2 * np.pi)
    kept = np.clip((turns - 1) / (4 - 1), 0, 1)
    return frequencies * (kept + (1 - kept) / factor)


def rotate(x_LHE, frequencies):
    angles_L1 = np.arange(len(x_LHE))[:, None, None] * frequencies
    pairs = x_LHE[..., 0::2] + 1j * x_LHE[..., 1::2]
    turned = pairs * np.exp(1j * angles_L1)
    return np.stack([turned.real, turned.imag], axis=-1).reshape(x_LHE.shape)


def attention(x_LD, weights, prefix, num_heads, num_kv_heads, frequencies):
    length, width = x_LD.shape
    query, key, value = (
        (x_LD @ weights[f"{prefix}{name}_proj.weight"].T).reshape(length, heads, -1)
        for name, heads in (("q", num_heads), ("k", num_kv_heads), ("v", num_kv_heads))
    )
    query, key = rotate(query, frequencies), rotate(key, frequencies)
    out_LHE = np.empty_like(query)
    for head in range(num_heads):
        group = head * num_kv_heads // num_heads
        scores_LL = query[:, head] @ key[:, group].T / np.sqrt(query.shape[-1])
        scores_LL[np.triu_indices(length, 1)] = -np.inf
        shares_LL = np.exp(scores_LL - scores_LL.max(-1, keepdims=True))
        out_LHE[:, head] = shares_LL / shares_LL.sum(-1, keepdims=True) @ value[:, group]
    return out_LHE.reshape(length, width) @ weights[f"{prefix}output_proj.weight"].T


def feed_forward(x_LD, weights, prefix):
    gate = x_LD @ weights[f"{prefix}w1.weight"].T
    gate = gate / (1 + np.exp(-gate))
    return (gate * (x_LD @ weights[f"{prefix}w3.weight"].T)) @ weights[f"{prefix}w2.weight"].T


def naive_logits(model, ids, num_heads, num_kv_heads, base, factor):
    weights = {n: v.detach().double().numpy() for n, v in model.state_dict().items()}
    h_LD = model.tok_embeddings(torch.tensor([ids]))[0].detach().double().numpy()
    frequencies = llama3_frequencies(h_LD.shape[1] // num_heads, base, factor)
    for i in range(len(model.layers)):
        layer = f"layers.{i}."
        normed = rms_norm(h_LD, weights[f"{layer}sa_norm.scale"])
        h_LD = h_LD + attention(
            normed, weights, f"{layer}attn.", num_heads, num_kv_heads, frequencies
        )
        normed = rms_norm(h_LD, weights[f"{layer}mlp_norm.scale"])
        h_LD = h_LD + feed_forward(normed, weights, f"{layer}mlp.")
    return rms_norm(h_LD, weights["norm.scale"]) @ weights["output.weight"].T


# With width 32 and 4 heads the frequencies fall into all three ranges of Llama 3's scaling.
@pytest.mark.parametrize(("num_heads", "num_kv_heads"), [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize(("base", "factor"), [(500_000, 32), (10_000, 1)])
def test_logits_equal_a_second_implementation(num_heads, num_kv_heads, base, factor):
    model = tiny_model(num_kv_heads=num_kv_heads, rope_base=base, rope_scale_factor=factor)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    ids = np.random.default_rng(0).integers(0, model.output.out_features, 200).tolist()
    with torch.no_grad():
        found_LV = model(torch.tensor([ids]))[0].numpy()
    expected_LV = naive_logits(model, ids, num_heads, num_kv_heads, base, factor)
    np.testing.assert_allclose(found_LV, expected_LV, atol=2e-4)


def test_logits_are_those_of_the_released_code():
    expected = golden("logits_bf16.json")
    with torch.no_grad():
        logits_LV = golden_model()(torch.tensor([expected["tokens"]]))[0]
    top = logits_LV.topk(2, dim=-1)
    noise = 0.03
    np.testing.assert_allclose(logits_LV.logsumexp(-1), expected["logsumexp"], atol=0.006)
    is_clear = (top.values[:, 0] - top.values[:, 1]) > noise
    assert is_clear.float().mean() > 0.8
    first = torch.tensor(expected["top5"])[:, 0]
    assert torch.equal(top.indices[is_clear, 0], first[is_clear])


def test_bfloat16_weights_leave_the_rotary_table_in_float32():
    model = tiny_model()
    table = model.layers[0].attn.rope.table.clone()
    model.to(torch.device("cpu"), torch.bfloat16)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.layers[0].attn.rope.table, table)


def test_the_hidden_states_are_the_logits_before_the_head():
    model = tiny_model()
    ids_BL = torch.arange(40).reshape(2, 20)
    positions_N = torch.tensor([0, 3, 19, 20, 33])
    with torch.no_grad():
        found_NV = model.output(model.hidden_states(ids_BL, positions_N))
        torch.testing.assert_close(found_NV, model(ids_BL).flatten(0, 1)[positions_N])


@pytest.mark.parametrize(
    "sizes", [{"embed_dim": 30}, {"num_heads": 4, "num_kv_heads": 3}], ids=["width", "heads"]
)
def test_dimensions_that_do_not_divide_are_refused(sizes):
    with pytest.raises(InputError, match="multiple of num_heads"):
        tiny_model(**sizes)
