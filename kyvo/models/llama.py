"""The language model, to be read from top to bottom: a Llama decoder over the mixed embedding.

One forward pass serves training, prefill and decoding; they differ in the cache alone. Training
has none, and a position attends to itself and all before it. With a cache, new keys and values
are stored first; then a prompt attends to itself, and a decoded token to its slot of the cache.

Parameter names are torchtune's (Llama 3: Touvron et al., arXiv 2407.21783; its published code).

Shapes: B samples, L positions, N selected positions of all B x L, D width, H query heads, K
key-value heads, E head width, F feed-forward width, V ids, M longest sequence.
"""

import math
from dataclasses import dataclass
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kyvo.models.embedding import MixedEmbedding
from kyvo.models.image_input import ImageInput
from kyvo.models.kv_cache import CacheStep, LayerCache

# Llama 3's scaling of rotary frequencies: context of the first training, in positions, and the
# wavelengths, in shares of it, beyond which frequencies are divided and up to which they stay.
_TRAINED_POSITIONS = 8192
_LOW_FREQUENCY, _HIGH_FREQUENCY = 1, 4
_MOST_GRAPHS = 64


class RMSNorm(nn.Module):
    """Root mean square norm with a learned scale, summed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Norm of ``x`` (..., D), in its own type."""
        if x.dtype != self.scale.dtype:
            return F.rms_norm(x.float(), self.scale.shape, self.scale, self.eps).to(x.dtype)
        # PyTorch's kernel sums in float32 itself, so that one kernel serves bfloat16 too.
        return F.rms_norm(x, self.scale.shape, self.scale, self.eps)


class RotaryEmbedding(nn.Module):
    """Rotary positions: each pair of neighbouring columns is turned by position x frequency.

    The table of cosines and sines stays float32, whatever type the model is cast to.
    """

    def __init__(self, head_width: int, max_seq_len: int, base: int, scale_factor: int) -> None:
        super().__init__()
        frequencies = _rotary_frequencies(head_width, base, scale_factor)
        angles = torch.arange(max_seq_len, dtype=torch.float32)[:, None] * frequencies
        self.table: Tensor
        self.register_buffer("table", torch.stack([angles.cos(), angles.sin()], -1), False)

    def forward(self, x_BLHE: Tensor, positions_BL: Tensor | None = None) -> Tensor:
        """Turn ``x_BLHE`` by its positions; None: 0, 1, 2, ... in every sample."""
        length = x_BLHE.shape[1]
        turns = self.table[:length] if positions_BL is None else self.table[positions_BL]
        cos, sin = turns.view(-1, length, 1, turns.shape[-2], 2).unbind(-1)
        first, second = x_BLHE.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = torch.stack([first * cos - second * sin, second * cos + first * sin], -1)
        return turned.flatten(3).type_as(x_BLHE)

    def _apply(self, function: Any, recurse: bool = True) -> "RotaryEmbedding":
        table = self.table
        super()._apply(function, recurse)
        self.table = table.to(self.table.device)
        return self


def _rotary_frequencies(head_width: int, base: int, scale_factor: int) -> Tensor:
    """Radians per position of each pair of columns (E / 2,), the low ones divided as Llama 3 does.

    Float32; between the two wavelengths the division comes in gradually.
    """
    frequencies = 1.0 / base ** (torch.arange(0, head_width, 2).float() / head_width)
    turns = _TRAINED_POSITIONS / (2 * math.pi / frequencies)
    kept = (turns - _LOW_FREQUENCY) / (_HIGH_FREQUENCY - _LOW_FREQUENCY)
    mixed = (1 - kept) * frequencies / scale_factor + kept * frequencies
    scaled = torch.where(turns < _LOW_FREQUENCY, frequencies / scale_factor, mixed)
    return torch.where(turns > _HIGH_FREQUENCY, frequencies, scaled)


@dataclass(frozen=True)
class Prefix:
    """The first positions of a sequence, which all attend to each other in some samples.

    Attributes:
        length: how many there are.
        samples_B: the samples in which they do.
    """

    length: int
    samples_B: Tensor


class Attention(nn.Module):
    """Causal self-attention in which groups of query heads share their keys and values.

    With ``qk_norm_eps`` queries and keys are normed head by head, which keeps their logits small
    under large learning rates (Henry et al., arXiv 2010.04245; names as in torchtune's Qwen 3).
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_kv_heads: int,
        rope: RotaryEmbedding,
        qk_norm_eps: float | None = None,
    ) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        self.head_dim = width // num_heads
        self.q_norm = self.k_norm = None
        if qk_norm_eps is not None:
            self.q_norm = RMSNorm(self.head_dim, qk_norm_eps)
            self.k_norm = RMSNorm(self.head_dim, qk_norm_eps)
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, num_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, num_kv_heads * self.head_dim, bias=False)
        self.output_proj = nn.Linear(width, width, bias=False)
        self.rope = rope

    def forward(
        self, x_BLD: Tensor, cache: LayerCache | None = None, prefix: Prefix | None = None
    ) -> Tensor:
        """What each position gathers (B, L, D) from those that it may attend to."""
        qkv_BLD = self.project(x_BLD)
        dtype = qkv_BLD.dtype
        if cache is None and x_BLD.device.type == "cpu":
            # PyTorch's backward pass of attention takes four times as long in bfloat16 there.
            qkv_BLD = qkv_BLD.float()
        qkv_BLHE = qkv_BLD.unflatten(-1, (-1, self.head_dim))
        heads = (self.num_heads, self.num_kv_heads)
        qk_BLHE, v_BLKE = qkv_BLHE.split((sum(heads), self.num_kv_heads), dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q_BLHE, k_BLKE = qk_BLHE.split(heads, dim=2)
            qk_BLHE = torch.cat([self.q_norm(q_BLHE), self.k_norm(k_BLKE)], dim=2)
        positions_BL = cache.positions_BL if cache is not None else None
        q_BLHE, k_BLKE = self.rope(qk_BLHE, positions_BL).split(heads, dim=2)
        if cache is not None:
            cache.store(k_BLKE, v_BLKE)
        if cache is None or cache.is_prefill:
            out_BLHE = prefix_attention(q_BLHE, k_BLKE, v_BLKE, prefix)
        else:
            out_BLHE = cache.attend(q_BLHE)
        return self.output_proj(out_BLHE.flatten(2).to(dtype))

    def project(self, x_BLD: Tensor) -> Tensor:
        """Queries, keys and values of ``x_BLD`` side by side (B, L, (H + 2 K) E).

        Plain projections are one matmul. One that does more (an adapter, float8, quantised
        weights) is called itself.
        """
        projections = (self.q_proj, self.k_proj, self.v_proj)
        weights = [module.weight for module in projections if _is_plain(module)]
        if len(weights) < len(projections):
            return torch.cat([module(x_BLD) for module in projections], dim=-1)
        return F.linear(x_BLD, torch.cat(weights))


def prefix_attention(
    q_BLHE: Tensor, k_BLKE: Tensor, v_BLKE: Tensor, prefix: Prefix | None
) -> Tensor:
    """Causal attention (B, L, H, E), but within the prefix in both directions.

    The prefix is attended to twice, which is cheaper than a mask over everything.
    """
    causal_BLHE = attention(q_BLHE, k_BLKE, v_BLKE, is_causal=True)
    if prefix is None or prefix.length > q_BLHE.shape[1]:
        return causal_BLHE
    first = slice(prefix.length)
    whole_BPHE = attention(q_BLHE[:, first], k_BLKE[:, first], v_BLKE[:, first], is_causal=False)
    samples_B111 = prefix.samples_B[:, None, None, None]
    out_BPHE = torch.where(samples_B111, whole_BPHE, causal_BLHE[:, first])
    return torch.cat([out_BPHE, causal_BLHE[:, prefix.length :]], dim=1)


def attention(q_BLHE: Tensor, k_BLKE: Tensor, v_BLKE: Tensor, is_causal: bool) -> Tensor:
    """Attention (B, L, H, E) of every position over all, or over itself and those before it."""
    with torch.autocast(q_BLHE.device.type, enabled=False):
        out_BHLE = F.scaled_dot_product_attention(
            q_BLHE.transpose(1, 2),
            k_BLKE.transpose(1, 2),
            v_BLKE.transpose(1, 2),
            is_causal=is_causal,
            enable_gqa=q_BLHE.shape[2] != k_BLKE.shape[2],
        )
    return out_BHLE.transpose(1, 2)


def _is_plain(module: nn.Module) -> TypeGuard[nn.Linear]:
    return type(module) is nn.Linear and type(module.weight) is nn.Parameter and module.bias is None


class FeedForward(nn.Module):
    """SwiGLU: w2 (silu(w1 x) * w3 x)."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.w1 = nn.Linear(width, inner_width, bias=False)
        self.w2 = nn.Linear(inner_width, width, bias=False)
        self.w3 = nn.Linear(width, inner_width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Values (..., D) of ``x`` (..., D), position by position."""
        gate, up = self.gate_and_up(x)
        return self.w2(F.silu(gate) * up)

    def gate_and_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Both projections (..., F) of ``x``."""
        return self.w1(x), self.w3(x)


class Block(nn.Module):
    """A layer: attention, then feed-forward, each normalised before and added to its input."""

    def __init__(
        self, attn: Attention, mlp: FeedForward, sa_norm: RMSNorm, mlp_norm: RMSNorm
    ) -> None:
        super().__init__()
        self.attn, self.mlp = attn, mlp
        self.sa_norm, self.mlp_norm = sa_norm, mlp_norm

    def forward(
        self,
        h_BLD: Tensor,
        selected_N: Tensor | None = None,
        cache: LayerCache | None = None,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """The layer's values (B, L, D), or (N, D) at flat positions of B x L."""
        h = h_BLD + self.attn(self.sa_norm(h_BLD), cache, prefix)
        if selected_N is not None:
            h = h.flatten(0, 1).index_select(0, selected_N)
        return h + self.mlp(self.mlp_norm(h))


class KyvoModel(nn.Module):
    """A Llama decoder over all modalities, with an untied head of V rows.

    Attributes:
        max_seq_len: longest sequence in tokens.
        image_input: how input images enter; None: as their codes, like any other token.
        sizes_vary: the layers are compiled, for batches and lengths of any size.
    """

    def __init__(
        self,
        tok_embeddings: MixedEmbedding,
        layers: list[Block],
        norm: RMSNorm,
        output: nn.Linear,
        max_seq_len: int,
        image_input: ImageInput | None = None,
    ) -> None:
        super().__init__()
        self.tok_embeddings = tok_embeddings
        self.image_input = image_input
        self.layers = nn.ModuleList(layers)
        self.norm = norm
        self.output = output
        self.max_seq_len = max_seq_len
        self.sizes_vary = False

    def forward(
        self,
        tokens_BL: Tensor,
        selected_N: Tensor | None = None,
        cache: CacheStep | None = None,
        pixels_BHWC: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token: (B, L, V), or (N, V) at flat positions of B x L."""
        return self.output(self.hidden_states(tokens_BL, selected_N, cache, pixels_BHWC))

    def hidden_states(
        self,
        tokens_BL: Tensor,
        selected_N: Tensor | None = None,
        cache: CacheStep | None = None,
        pixels_BHWC: Tensor | None = None,
    ) -> Tensor:
        """Normalised hidden states: (B, L, D), or (N, D) at flat positions of B x L.

        No later layer needs the last one's other positions, so they end with its attention.
        ``pixels_BHWC``: see ``ImageInput``.
        """
        h_BLD, prefix = self.tok_embeddings(tokens_BL), None
        reads_prompt = cache is None or cache.is_prefill
        if self.image_input is not None and reads_prompt:
            h_BLD = self.image_input(h_BLD, tokens_BL, self.tok_embeddings, pixels_BHWC)
            if self.image_input.options.prefix:
                samples_B = self.image_input.has_image(tokens_BL)
                prefix = Prefix(self.image_input.prefix_length, samples_B)
        last = len(self.layers) - 1
        for index, layer in enumerate(self.layers):
            selected = selected_N if index == last else None
            if self.sizes_vary and reads_prompt:
                _mark_dynamic(h_BLD, selected, prefix)
            layer_cache = cache.layer(index) if cache is not None else None
            h_BLD = layer(h_BLD, selected, layer_cache, prefix)
        return self.norm(h_BLD)

    def compile_layers(self, **options: Any) -> None:
        """Compile the layers, each for itself: alike, all but the last share one compilation.

        ``options`` are those of ``torch.compile``.
        """
        allow_graphs()
        for layer in self.layers:
            layer.compile(**options)
        self.sizes_vary = True

    @property
    def blocks(self) -> list[Block]:
        """The layers."""
        return [cast(Block, layer) for layer in self.layers]

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that training changes, by name."""
        return {n: p for n, p in self.named_parameters() if p.requires_grad}


def allow_graphs() -> None:
    """Let PyTorch compile a function as often as training, prefills and decoding need.

    All layers share one function; PyTorch would give up compiling it after its eighth graph.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)


def _mark_dynamic(h_BLD: Tensor, selected_N: Tensor | None, prefix: Prefix | None) -> None:
    """Leave batch and length open, or the first batch's sizes would be compiled in."""
    torch._dynamo.maybe_mark_dynamic(h_BLD, [0, 1])
    if selected_N is not None:
        torch._dynamo.maybe_mark_dynamic(selected_N, 0)
    if prefix is not None:
        torch._dynamo.maybe_mark_dynamic(prefix.samples_B, 0)
