"""A static KV cache in which every slot has its own position, and attention over it.

Prompts are right-padded; what a pad writes beyond its slot's end is overwritten before any later
position may attend to it. Slots never see each other, so the slot of a finished sample can be
given to the next prompt while the others go on.

Shapes: B rows of a step, one a slot, L new positions, H heads, K key-value heads, E head width, S
slots, M cache length, P the part of it that is in use.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

_HAS_TRITON = find_spec("triton") is not None
if _HAS_TRITON:
    from kyvo.models.triton_attention import cached_attention

# The used part of the cache grows in steps of so many positions: few shapes, little waste.
_LENGTH_STEP = 64


@dataclass(frozen=True)
class LayerCache:
    """One layer's keys and values, and where the new positions of a step go.

    Attributes:
        k_SKME, v_SKME: of all slots.
        slots_B: the slot of each row.
        positions_BL: of the new tokens; a row's positions ascend.
        kv_len: largest position plus one, or more, known on the host so that nothing waits;
            None: a prefill, whose tokens attend to nothing but themselves.
    """

    k_SKME: Tensor
    v_SKME: Tensor
    slots_B: Tensor
    positions_BL: Tensor
    kv_len: int | None

    @property
    def is_prefill(self) -> bool:
        """Whether the new tokens are whole prompts."""
        return self.kv_len is None

    def store(self, k_BLKE: Tensor, v_BLKE: Tensor) -> None:
        """Put new keys and values at their positions."""
        for kept_SKME, new_BLKE in ((self.k_SKME, k_BLKE), (self.v_SKME, v_BLKE)):
            kept_SKME[self.slots_B[:, None], :, self.positions_BL] = new_BLKE

    def attend(self, q_BLHE: Tensor) -> Tensor:
        """Attention (B, L, H, E) of new positions over their slot up to themselves.

        The rows are the first slots, in order.
        """
        rows = len(q_BLHE)
        k_BKME, v_BKME = self.k_SKME[:rows], self.v_SKME[:rows]
        if q_BLHE.is_cuda and _HAS_TRITON:
            # The kernel reads each row's own length from its positions.
            return cached_attention(q_BLHE, k_BKME, v_BKME, self.positions_BL)
        assert self.kv_len is not None
        return masked_attention(q_BLHE, k_BKME, v_BKME, self.positions_BL, self.kv_len)


@dataclass(frozen=True)
class CacheStep:
    """A ``LayerCache`` of every layer for one step."""

    tensors: Sequence[tuple[Tensor, Tensor]]
    slots_B: Tensor
    positions_BL: Tensor
    kv_len: int | None

    @property
    def is_prefill(self) -> bool:
        """Whether the new tokens are whole prompts."""
        return self.kv_len is None

    def layer(self, index: int) -> LayerCache:
        """The step in layer ``index``."""
        return LayerCache(*self.tensors[index], self.slots_B, self.positions_BL, self.kv_len)


class KVCache:
    """Keys and values of all layers for ``num_slots`` sequences of at most ``max_length`` tokens.

    Args:
        shape: layers, key-value heads, head width.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_slots: int,
        max_length: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        num_layers, num_kv_heads, head_dim = shape
        self.num_slots, self.max_length = num_slots, max_length
        size = (num_slots, num_kv_heads, max_length, head_dim)

        def zeros() -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        self.tensors = [(zeros(), zeros()) for _ in range(num_layers)]
        self._slots_S = torch.arange(num_slots, device=device)

    def prefill(self, slots_B: Tensor, length: int) -> CacheStep:
        """The step in which prompts, padded to ``length``, fill ``slots_B`` from position 0."""
        positions_L = torch.arange(length, device=slots_B.device)
        return CacheStep(self.tensors, slots_B, positions_L.expand(len(slots_B), -1), None)

    def decode(self, positions_BL: Tensor, kv_len: int) -> CacheStep:
        """The step in which the first slots go on with tokens at ``positions_BL``."""
        slots_B = self._slots_S[: len(positions_BL)]
        return CacheStep(self.tensors, slots_B, positions_BL, min(kv_len, self.max_length))


def masked_attention(
    q_BLHE: Tensor, k_BKME: Tensor, v_BKME: Tensor, positions_BL: Tensor, kv_len: int
) -> Tensor:
    """Attention (B, L, H, E) that reads as much of every row as the longest one has in use."""
    used = min(-(-kv_len // _LENGTH_STEP) * _LENGTH_STEP, k_BKME.shape[2])
    columns_P = torch.arange(used, device=q_BLHE.device)
    out_BHLE = F.scaled_dot_product_attention(
        q_BLHE.transpose(1, 2),
        k_BKME[:, :, :used],
        v_BKME[:, :, :used],
        attn_mask=(columns_P <= positions_BL[..., None])[:, None],
        enable_gqa=True,
    )
    return out_BHLE.transpose(1, 2)
