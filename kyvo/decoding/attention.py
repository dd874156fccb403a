"""Attention of new positions over a KV cache: a kernel on the GPU, PyTorch's own elsewhere.

Shapes: B rows, T new positions, H heads, K key-value heads, E head width, M cache length, S used
part of the cache.
"""

from collections.abc import Callable
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

_HAS_TRITON = find_spec("triton") is not None
if _HAS_TRITON:
    from kyvo.decoding.triton_attention import cached_attention

CacheAttention = Callable[[Tensor, Tensor, Tensor, Tensor, int], Tensor]
"""(queries (B, T, H, E), keys and values (B, K, M, E), positions (B, T), used) -> (B, T, H, E).

A query looks at the cache up to its own position, where its own key and value are already.
``used`` is at least the largest position plus one.
"""

# The used part of the cache grows in steps of so many positions: few shapes, little waste.
_CACHE_STEP = 64


def cache_attention(device: torch.device) -> CacheAttention:
    """The fastest way to attend there."""
    return _fused_attention if device.type == "cuda" and _HAS_TRITON else masked_attention


def _fused_attention(
    q_BTHE: Tensor, k_BKME: Tensor, v_BKME: Tensor, positions_BT: Tensor, _used: int
) -> Tensor:
    # The kernel reads each row's own length from its positions.
    return cached_attention(q_BTHE, k_BKME, v_BKME, positions_BT)


def masked_attention(
    q_BTHE: Tensor, k_BKME: Tensor, v_BKME: Tensor, positions_BT: Tensor, used: int
) -> Tensor:
    """``CacheAttention`` that reads as much of every row as the longest one has used."""
    used = min(-(-used // _CACHE_STEP) * _CACHE_STEP, k_BKME.shape[2])
    slots_S = torch.arange(used, device=q_BTHE.device)
    out_BHTE = F.scaled_dot_product_attention(
        q_BTHE.transpose(1, 2),
        k_BKME[:, :, :used],
        v_BKME[:, :, :used],
        attn_mask=(slots_S <= positions_BT[..., None])[:, None],
        enable_gqa=True,
    )
    return out_BHTE.transpose(1, 2)
