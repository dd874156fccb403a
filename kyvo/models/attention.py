"""Llama's attention with one product for queries, keys and values, and none of them copied.

torchtune's layer makes three products of the same input and copies every key and value to all the
query heads that share it. At 32 sequences of 353 tokens of Llama-3.2-1B in bfloat16 that moves
about 10 GB more in a training step. Parameter names, and so checkpoints, stay torchtune's.

Shapes: B samples, L positions, D width, H query heads, K key-value heads, E head width.
"""

from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchtune.modules import MultiHeadAttention


class Attention(MultiHeadAttention):
    """Causal self-attention over whole sequences, without dropout, norms or a cache."""

    def forward(
        self,
        x: Tensor,
        y: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        input_pos: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Attend from ``x`` (B, L, D) to ``y``, which must be ``x``.

        ``mask`` (B, L, L) is true where a position may look; None: causal.
        """
        assert y is x, "only self-attention"
        parts = _together(x, (self.q_proj, self.k_proj, self.v_proj))
        # On a CPU, PyTorch's backward pass of attention takes four times as long in bfloat16.
        dtype = torch.float32 if x.device.type == "cpu" else parts[0].dtype
        q_BLHE, k_BLKE, v_BLKE = (
            part.unflatten(-1, (-1, self.head_dim)).to(dtype) for part in parts
        )
        q_BLHE = self.pos_embeddings(q_BLHE, input_pos=input_pos)
        k_BLKE = self.pos_embeddings(k_BLKE, input_pos=input_pos)
        with torch.autocast(x.device.type, enabled=False):
            attended_BHLE = F.scaled_dot_product_attention(
                q_BLHE.transpose(1, 2),
                k_BLKE.transpose(1, 2),
                v_BLKE.transpose(1, 2),
                attn_mask=mask[:, None] if mask is not None else None,
                is_causal=mask is None,
                enable_gqa=self.num_heads != self.num_kv_heads,
            )
        return self.output_proj(attended_BHLE.transpose(1, 2).flatten(2).to(parts[0].dtype))


def _together(x: Tensor, projections: Sequence[nn.Module]) -> Sequence[Tensor]:
    """What each of the projections makes of ``x``, by one product where all of them are plain.

    A module that does more (an adapter, float8, quantised weights) is called itself.
    """
    weights = [module.weight for module in projections if _is_plain(module)]
    if len(weights) < len(projections):
        return [module(x) for module in projections]
    return F.linear(x, torch.cat(weights)).split([len(weight) for weight in weights], dim=-1)


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and module.bias is None
