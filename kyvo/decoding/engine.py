"""The decoding engine: a static KV cache in which every row has its own position.

Prompts are right-padded; what a pad writes beyond its row's end is overwritten before any later
position may look at it. Rows never see each other, so a finished row can be given to the next
prompt while the others go on.

Shapes: B rows, T new positions, D width, H heads, K key-value heads, E head width, M cache
length, S used part of the cache, V ids.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kyvo.models import KyvoModel

# The used part of the cache grows in steps of so many positions: few shapes, little waste.
_CACHE_STEP = 64


class DecodeEngine:
    """Runs a model over a cache of ``num_rows`` sequences of at most ``max_length`` tokens."""

    def __init__(self, model: KyvoModel, num_rows: int, max_length: int) -> None:
        self.model = model
        self.max_length = max_length
        attention = model.layers[0].attn
        weight = model.output.weight
        shape = (num_rows, attention.num_kv_heads, max_length, attention.head_dim)
        self._caches = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in model.layers]
        self._slots_M = torch.arange(max_length, device=weight.device)
        self._all_rows_B = torch.arange(num_rows, device=weight.device)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._slots_M.device

    def prefill(self, prompts: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """Put ``prompts`` into the cache's ``rows``; logits (B, V) after each prompt's end."""
        lengths = [len(prompt) for prompt in prompts]
        tokens_BT = nn.utils.rnn.pad_sequence(list(prompts), batch_first=True).to(self.device)
        positions_BT = torch.arange(max(lengths), device=self.device).expand_as(tokens_BT)
        rows_B = torch.tensor(rows, device=self.device)
        hidden_BTD = self._run(tokens_BT, positions_BT, rows_B, max(lengths))
        last_B = torch.tensor(lengths, device=self.device) - 1
        return self._logits(hidden_BTD[torch.arange(len(lengths), device=self.device), last_B])

    def step(self, tokens_B: Tensor, positions_B: Tensor, used: int) -> Tensor:
        """Logits (B, V) after one more token in every row.

        ``used`` is the largest position plus one, known on the host so that nothing waits.
        """
        hidden_BTD = self._run(tokens_B[:, None], positions_B[:, None], self._all_rows_B, used)
        return self._logits(hidden_BTD[:, 0])

    def _logits(self, hidden_BD: Tensor) -> Tensor:
        return self.model.output(hidden_BD).float()

    def _run(self, tokens_BT: Tensor, positions_BT: Tensor, rows_B: Tensor, used: int) -> Tensor:
        used = min(-(-used // _CACHE_STEP) * _CACHE_STEP, self.max_length)
        mask_B1TS = (self._slots_M[:used] <= positions_BT[..., None])[:, None]
        h_BTD = self.model.tok_embeddings(tokens_BT)
        for layer, cache in zip(self.model.layers, self._caches, strict=True):
            attended = self._attend(
                layer.attn, layer.sa_norm(h_BTD), positions_BT, rows_B, mask_B1TS, cache
            )
            h_BTD = h_BTD + attended
            h_BTD = h_BTD + layer.mlp(layer.mlp_norm(h_BTD))
        return self.model.norm(h_BTD)

    def _attend(
        self,
        attention: Any,
        x_BTD: Tensor,
        positions_BT: Tensor,
        rows_B: Tensor,
        mask_B1TS: Tensor,
        cache: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Attention of new positions over the cache, after their own keys and values went in."""
        shape = (*x_BTD.shape[:2], -1, attention.head_dim)
        rope = attention.pos_embeddings
        q_BHTE = rope(attention.q_proj(x_BTD).view(shape), input_pos=positions_BT).transpose(1, 2)
        k_BTKE = rope(attention.k_proj(x_BTD).view(shape), input_pos=positions_BT)
        v_BTKE = attention.v_proj(x_BTD).view(shape)
        used = mask_B1TS.shape[-1]
        for stored, new in zip(cache, (k_BTKE, v_BTKE), strict=True):
            stored[rows_B[:, None], :, positions_BT] = new.to(stored.dtype)
        # A view where it can be: indexing by rows copies.
        rows = slice(None) if rows_B is self._all_rows_B else rows_B
        k_BKSE, v_BKSE = (stored[rows, :, :used] for stored in cache)
        out_BHTE = F.scaled_dot_product_attention(
            q_BHTE, k_BKSE, v_BKSE, attn_mask=mask_B1TS, enable_gqa=True
        )
        return attention.output_proj(out_BHTE.transpose(1, 2).flatten(2))
