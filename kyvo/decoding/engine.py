"""The decoding engine: a static KV cache in which every row has its own position.

Prompts are right-padded; what a pad writes beyond its row's end is overwritten before any later
position may look at it. Rows never see each other, so a finished row can be given to the next
prompt while the others go on.

Shapes: B rows, T new positions, D width, H heads, K key-value heads, E head width, M cache
length, F feed-forward width, C ids of the head.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kyvo.decoding.attention import cache_attention
from kyvo.decoding.quantization import Quantization, quantize
from kyvo.models import KyvoModel

PREFILL_TOKENS = 1 << 15
"""Tokens of prompts, padding included, that go through the model at a time."""

Cache = tuple[Tensor, Tensor]


class DecodeEngine:
    """Runs a model over a cache of ``num_rows`` sequences of at most ``max_length`` tokens.

    Args:
        head_ids: the ids that can come out, ascending (C,); None: all. Fewer make the head smaller.
        quantization: of the layers' weights.
        compiled: compile the layers; pays in long runs.
    """

    def __init__(
        self,
        model: KyvoModel,
        num_rows: int,
        max_length: int,
        head_ids: Tensor | None = None,
        quantization: Quantization = "none",
        compiled: bool = False,
    ) -> None:
        self.model = model
        self.num_rows = num_rows
        self.max_length = max_length
        weight = model.output.weight
        self._head_CD = weight if head_ids is None else weight[head_ids.to(weight.device)]
        self._layers = [_CachedLayer(layer) for layer in model.layers]
        self._caches = [layer.new_cache(num_rows, max_length) for layer in self._layers]
        self._rows_B1 = torch.arange(num_rows, device=weight.device)[:, None]
        quantize(nn.ModuleList(self._layers), quantization)
        self._fills = [layer.fill for layer in self._layers]
        self._extends = [layer.extend for layer in self._layers]
        if compiled:
            self._extends = [_compiled_step(extend, num_rows) for extend in self._extends]
        # Compiled, long products with int8 weights would go through a kernel for short ones.
        if compiled and quantization != "int8":
            self._fills = [torch.compile(fill, dynamic=True) for fill in self._fills]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._head_CD.device

    def prefill(self, prompts: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        """Put ``prompts`` into the cache's ``rows``; logits (B, C) after each prompt's end."""
        at_once = max(1, PREFILL_TOKENS // max(map(len, prompts)))
        return torch.cat(
            [
                self._prefill(prompts[start : start + at_once], rows[start : start + at_once])
                for start in range(0, len(prompts), at_once)
            ]
        )

    def _prefill(self, prompts: Sequence[Tensor], rows: Sequence[int]) -> Tensor:
        lengths = [len(prompt) for prompt in prompts]
        tokens_BT = nn.utils.rnn.pad_sequence(list(prompts), batch_first=True).to(self.device)
        positions_BT = torch.arange(max(lengths), device=self.device).expand_as(tokens_BT)
        rows_B = torch.tensor(rows, device=self.device)
        h_BTD = self.model.tok_embeddings(tokens_BT)
        fills = self._fills
        if len(prompts) == 1 < self.num_rows:
            # Would be compiled once more, for a single prompt now and then.
            fills = [layer.fill for layer in self._layers]
        for fill, cache in zip(fills, self._caches, strict=True):
            h_BTD = fill(h_BTD, positions_BT, rows_B[:, None], cache)
        last_B = torch.tensor(lengths, device=self.device) - 1
        return self._logits(h_BTD, last_B)

    def step(self, tokens_BT: Tensor, positions_BT: Tensor, last_B: Tensor, used: int) -> Tensor:
        """Logits (B, C) of each row's new token ``last_B``, after all its tokens went in.

        A row's positions ascend from the first that its cache lacks; what stands after ``last_B``
        is padding. ``used`` is at least the largest position plus one, known on the host so that
        nothing waits.
        """
        h_BTD = self.model.tok_embeddings(tokens_BT)
        used = min(used, self.max_length)
        for extend, cache in zip(self._extends, self._caches, strict=True):
            h_BTD = extend(h_BTD, positions_BT, self._rows_B1, cache, used)
        return self._logits(h_BTD, last_B)

    def _logits(self, h_BTD: Tensor, last_B: Tensor) -> Tensor:
        index_B1D = last_B[:, None, None].expand(-1, 1, h_BTD.shape[2])
        last_BD = self.model.norm(h_BTD.gather(1, index_B1D)[:, 0])
        return F.linear(last_BD, self._head_CD).float()


def _compiled_step(extend: Callable[..., Tensor], num_rows: int) -> Callable[..., Tensor]:
    # On a GPU, makes a kernel of its own of each product with a single row: it reads int8 weights
    # as they are, at the rate of the memory.
    return torch.compile(extend, options={"coordinate_descent_tuning": num_rows == 1})


class _CachedLayer(nn.Module):
    """A layer of the model over a cache; products over the same input are one product.

    The cache comes with each call, since the sizes of a module's own tensors would be compiled in.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        attention, mlp = layer.attn, layer.mlp
        self.attention_norm, self.mlp_norm = layer.sa_norm, layer.mlp_norm
        self.qkv = _joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self.attention_out = _joined(attention.output_proj)
        self.gate_up = _joined(mlp.w1, mlp.w3)
        self.down = _joined(mlp.w2)
        self.rope = attention.pos_embeddings
        self.attend = cache_attention(self.qkv.weight.device)
        self.heads = (attention.num_heads, attention.num_kv_heads)
        self.head_dim = attention.head_dim

    def new_cache(self, num_rows: int, max_length: int) -> Cache:
        """Keys and values (B, K, M, E), each."""
        shape = (num_rows, self.heads[1], max_length, self.head_dim)
        return self.qkv.weight.new_zeros(shape), self.qkv.weight.new_zeros(shape)

    def fill(self, h_BTD: Tensor, positions_BT: Tensor, rows_B1: Tensor, cache: Cache) -> Tensor:
        """Prompts that fill ``rows_B1`` from position 0: they see nothing but themselves."""
        q_BTHE, k_BTKE, v_BTKE = self._project(h_BTD, positions_BT)
        _store(cache, rows_B1, positions_BT, k_BTKE, v_BTKE)
        q, k, v = (x_BTHE.transpose(1, 2) for x_BTHE in (q_BTHE, k_BTKE, v_BTKE))
        out_BHTE = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self._finish(h_BTD, out_BHTE.transpose(1, 2))

    def extend(
        self, h_BTD: Tensor, positions_BT: Tensor, rows_B1: Tensor, cache: Cache, used: int
    ) -> Tensor:
        """All rows go on: new positions see their row's cache up to themselves."""
        q_BTHE, k_BTKE, v_BTKE = self._project(h_BTD, positions_BT)
        _store(cache, rows_B1, positions_BT, k_BTKE, v_BTKE)
        out_BTHE = self.attend(q_BTHE, *cache, positions_BT, used)
        return self._finish(h_BTD, out_BTHE)

    def _project(self, h_BTD: Tensor, positions_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads, kv_heads = self.heads
        qkv_BTHE = self.qkv(self.attention_norm(h_BTD)).unflatten(2, (heads + 2 * kv_heads, -1))
        qk_BTHE, v_BTKE = qkv_BTHE.split((heads + kv_heads, kv_heads), dim=2)
        q_BTHE, k_BTKE = self.rope(qk_BTHE, input_pos=positions_BT).split(self.heads, dim=2)
        return q_BTHE, k_BTKE, v_BTKE

    def _finish(self, h_BTD: Tensor, out_BTHE: Tensor) -> Tensor:
        h_BTD = h_BTD + self.attention_out(out_BTHE.flatten(2))
        gate_BTF, up_BTF = self.gate_up(self.mlp_norm(h_BTD)).chunk(2, dim=2)
        return h_BTD + self.down(F.silu(gate_BTF) * up_BTF)


def _store(
    cache: Cache, rows_B1: Tensor, positions_BT: Tensor, k_BTKE: Tensor, v_BTKE: Tensor
) -> None:
    for kept_BKME, new_BTKE in zip(cache, (k_BTKE, v_BTKE), strict=True):
        kept_BKME[rows_B1, :, positions_BT] = new_BTKE


# Else the model's own weights would become tensors of inference mode.
@torch.inference_mode(False)
@torch.no_grad()
def _joined(*linears: nn.Linear) -> nn.Linear:
    """One linear map with all their outputs; they become views of its weight, so memory stays."""
    weight = linears[0].weight
    if len(linears) > 1:
        weight = torch.cat([linear.weight for linear in linears])
        parts = weight.split([linear.out_features for linear in linears])
        for linear, part in zip(linears, parts, strict=True):
            linear.weight.data = part
    joined = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    joined.weight = nn.Parameter(weight.detach(), requires_grad=False)
    return joined
