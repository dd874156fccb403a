"""A model for decoding, whose projections of one input are one matmul.

The fused weights are copies, so that the model that they come from stays as it is; embedding,
norms and the other weights are shared.
"""

import torch
from torch import Tensor, nn

from kyvo.models import KyvoModel
from kyvo.models.llama import Attention, Block, FeedForward


class _FusedAttention(Attention):
    """Attention with one projection to queries, keys and values."""

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.num_heads, self.num_kv_heads = attention.num_heads, attention.num_kv_heads
        self.head_dim = attention.head_dim
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.qkv_proj = _fused(attention.q_proj, attention.k_proj, attention.v_proj)
        self.output_proj = _fused(attention.output_proj)
        self.rope = attention.rope

    def project(self, x_BLD: Tensor) -> Tensor:
        """Queries, keys and values of ``x_BLD`` side by side."""
        return self.qkv_proj(x_BLD)


class _FusedFeedForward(FeedForward):
    """Feed-forward with one projection to gate and up."""

    def __init__(self, feed_forward: FeedForward) -> None:
        nn.Module.__init__(self)
        self.gate_up_proj = _fused(feed_forward.w1, feed_forward.w3)
        self.w2 = _fused(feed_forward.w2)

    def gate_and_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both projections of ``x``."""
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return gate, up


# Otherwise the copies would be tensors of inference mode.
@torch.inference_mode(False)
@torch.no_grad()
def fuse_projections(model: KyvoModel, head_ids: Tensor | None = None) -> KyvoModel:
    """``model`` with fused projections, and with the head's rows of ``head_ids`` alone, if given.

    It can only be used for inference, on the device where ``model`` is.
    """
    layers = [
        Block(
            _FusedAttention(layer.attn),
            _FusedFeedForward(layer.mlp),
            layer.sa_norm,
            layer.mlp_norm,
        )
        for layer in model.blocks
    ]
    head = _fused(model.output)
    if head_ids is not None:
        head = _linear(model.output.weight[head_ids])
    return KyvoModel(
        model.tok_embeddings, layers, model.norm, head, model.max_seq_len, model.image_input
    ).eval()


def _fused(*linears: nn.Linear) -> nn.Linear:
    """One linear map with the outputs of all."""
    weights = [linear.weight.detach() for linear in linears]
    return _linear(torch.cat(weights) if len(weights) > 1 else weights[0])


def _linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear
