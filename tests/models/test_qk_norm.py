"""Normed queries and keys: against torchtune's attention with the same norms."""

import torch
from kyvo_stand_ins import TINY_SIZES
from torch import nn
from torchtune.modules import MultiHeadAttention
from torchtune.modules import RMSNorm as TorchtuneNorm

from kyvo.models import kyvo_model, load_released_state, released_state_dict
from kyvo.models.llama import Attention, RotaryEmbedding
from kyvo.tokens.vocabulary import get_vocabulary

WIDTH, HEADS, KV_HEADS, HEAD = 32, 4, 2, 8


def test_attention_is_torchtunes():
    torch.manual_seed(0)
    rope = RotaryEmbedding(HEAD, 64, 500_000, 32)
    ours = Attention(WIDTH, HEADS, KV_HEADS, rope, qk_norm_eps=1e-5)
    theirs = MultiHeadAttention(
        embed_dim=WIDTH,
        num_heads=HEADS,
        num_kv_heads=KV_HEADS,
        head_dim=HEAD,
        q_proj=nn.Linear(WIDTH, WIDTH, bias=False),
        k_proj=nn.Linear(WIDTH, KV_HEADS * HEAD, bias=False),
        v_proj=nn.Linear(WIDTH, KV_HEADS * HEAD, bias=False),
        output_proj=nn.Linear(WIDTH, WIDTH, bias=False),
        q_norm=TorchtuneNorm(HEAD, eps=1e-5),
        k_norm=TorchtuneNorm(HEAD, eps=1e-5),
    )
    for name, parameter in ours.named_parameters():
        nn.init.normal_(parameter, std=0.3, mean="norm" in name)
    theirs.load_state_dict(ours.state_dict())
    x_BLD = torch.randn(2, 7, WIDTH)
    # torchtune norms after turning; a norm with equal scales everywhere commutes with turning.
    for norm in (ours.q_norm, ours.k_norm, theirs.q_norm, theirs.k_norm):
        norm.scale.data.fill_(1.3)
    theirs.pos_embeddings = lambda x, input_pos=None: rope(x)
    torch.testing.assert_close(ours(x_BLD), theirs(x_BLD, x_BLD), rtol=1e-4, atol=1e-5)


def test_large_projections_do_not_sharpen_attention():
    torch.manual_seed(0)
    attention = Attention(WIDTH, HEADS, KV_HEADS, RotaryEmbedding(HEAD, 64, 500_000, 32), 1e-5)
    x_BLD = torch.randn(2, 7, WIDTH)
    before = attention(x_BLD)
    attention.q_proj.weight.data.mul_(50)
    torch.testing.assert_close(attention(x_BLD), before, rtol=1e-3, atol=1e-4)


def test_the_norms_travel_with_the_weights():
    def build():
        return kyvo_model(vocabulary=get_vocabulary("mini"), **TINY_SIZES, qk_norm=True)

    model, other = build(), build()
    for block in model.blocks:
        block.attn.q_norm.scale.data.uniform_()
    load_released_state(other, released_state_dict(model), "test")
    for ours, theirs in zip(model.blocks, other.blocks, strict=True):
        assert torch.equal(ours.attn.q_norm.scale, theirs.attn.q_norm.scale)
