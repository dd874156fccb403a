"""The language model: torchtune's Llama modules around the mixed embedding.

Shapes: B samples, L positions, N of all B x L, D width, V ids.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchtune.models.llama3._component_builders import llama3_mlp
from torchtune.models.llama3_1 import Llama3ScaledRoPE
from torchtune.modules import TransformerDecoder, TransformerSelfAttentionLayer

from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.models.attention import Attention
from kyvo.models.embedding import (
    ImageProjection,
    MixedEmbedding,
    NumberEmbedding,
    sin_cos_table,
)
from kyvo.models.norm import RMSNorm
from kyvo.tokens.vocabulary import Vocabulary


class KyvoModel(TransformerDecoder):
    """A Llama decoder over all three modalities, with an untied head of V rows."""

    _layer_at: Callable[[Any, Tensor, Tensor], Tensor] | None = None

    def hidden_at(self, tokens_BL: Tensor, positions_N: Tensor) -> Tensor:
        """Normalised hidden states (N, D) at flat positions of B x L: those that the head needs.

        Nothing looks at the last layer's other positions, so they end with its attention.
        """
        h_BLD = self.tok_embeddings(tokens_BL)
        for layer in self.layers[:-1]:
            h_BLD = layer(self._any_size(h_BLD, 0, 1))
        h_BLD, positions_N = self._any_size(h_BLD, 0, 1), self._any_size(positions_N, 0)
        layer_at = self._layer_at or _layer_at
        return self.norm(layer_at(self.layers[-1], h_BLD, positions_N))

    def compile_layers(self, **options: Any) -> None:
        """Compile the layers, each for itself: alike, all but the last share one compilation.

        ``options`` are those of ``torch.compile``.
        """
        for layer in self.layers[:-1]:
            layer.compile(**options)
        self._layer_at = torch.compile(_layer_at, **options)

    def _any_size(self, values: Tensor, *dims: int) -> Tensor:
        """Or the first batch's sizes would be compiled in, and each new kind cost a compilation."""
        if self._layer_at is not None:
            torch._dynamo.maybe_mark_dynamic(values, list(dims))
        return values

    def place(self, device: torch.device, dtype: torch.dtype) -> "KyvoModel":
        """Move to ``device`` with weights of ``dtype``; RoPE's table, a buffer, stays float32."""
        self.to(device)
        for parameter in self.parameters():
            parameter.data = parameter.data.to(dtype)
        return self

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Parameters that training changes, by name."""
        return {n: p for n, p in self.named_parameters() if p.requires_grad}


def _layer_at(layer: Any, h_BLD: Tensor, positions_N: Tensor) -> Tensor:
    """A layer's results (N, D) at flat positions of B x L."""
    normed_BLD = layer.sa_norm(h_BLD)
    h_BLD = h_BLD + layer.attn(normed_BLD, normed_BLD)
    h_ND = h_BLD.flatten(0, 1).index_select(0, positions_N)
    return h_ND + layer.mlp(layer.mlp_norm(h_ND))


def kyvo_model(
    *,
    vocabulary: Vocabulary,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    embed_dim: int,
    intermediate_dim: int,
    max_seq_len: int = 2048,
    rope_base: int = 500_000,
    rope_scale_factor: int = 32,
    norm_eps: float = 1e-5,
    codebook_dim: int = 256,
    number_embedding: NumberEmbedding = "sin_cos_plus_learned",
    image_projection: ImageProjection = "linear",
    train_text_embedding: bool = False,
    initial_std: float = 0.02,
    head_number_scale: float = 0.0,
) -> KyvoModel:
    """A model of any size with random weights (normal, ``initial_std``); norms start at one.

    Args:
        vocabulary: the id space; its size is the number of head rows.
        num_layers, num_heads, num_kv_heads, embed_dim, intermediate_dim: Llama's dimensions.
        max_seq_len: longest sequence in tokens.
        rope_base, rope_scale_factor, norm_eps: as in Llama 3.2.
        codebook_dim: dimensions of the VQGAN's codes; ``image_projection`` takes them to D.
        number_embedding: how number ids are embedded (paper, table on number embeddings).
        train_text_embedding: train the rows of text ids too; the paper freezes them.
        head_number_scale: adds the sin-cos table times this to the head's number rows, so that
            neighbouring numbers start alike: a small model then needs fewer samples.

    Raises:
        InputError: dimensions that do not divide each other.
    """
    if embed_dim % num_heads or num_heads % num_kv_heads:
        raise InputError(
            f"model: embed_dim {embed_dim} must be a multiple of num_heads {num_heads}, "
            f"and num_heads of num_kv_heads {num_kv_heads}"
        )
    rope = Llama3ScaledRoPE(embed_dim // num_heads, max_seq_len, rope_base, rope_scale_factor)
    layers = [
        _layer(embed_dim, num_heads, num_kv_heads, intermediate_dim, norm_eps, rope)
        for _ in range(num_layers)
    ]
    model = KyvoModel(
        tok_embeddings=MixedEmbedding(
            vocabulary, embed_dim, codebook_dim, number_embedding, image_projection
        ),
        layers=layers,
        max_seq_len=max_seq_len,
        num_heads=num_heads,
        head_dim=rope.dim,
        norm=RMSNorm(embed_dim, eps=norm_eps),
        output=nn.Linear(embed_dim, vocabulary.size, bias=False),
    )
    _initialise(model, initial_std)
    _relate_numbers(model, vocabulary, head_number_scale)
    model.tok_embeddings.token_embedding.weight.requires_grad_(train_text_embedding)
    return model


llama3_2_1b = partial(
    kyvo_model,
    num_layers=16,
    num_heads=32,
    num_kv_heads=8,
    embed_dim=2048,
    intermediate_dim=8192,
)
"""``kyvo_model`` with the dimensions of Llama-3.2-1B."""

llama3_2_3b = partial(
    kyvo_model,
    num_layers=28,
    num_heads=24,
    num_kv_heads=8,
    embed_dim=3072,
    intermediate_dim=8192,
)
"""``kyvo_model`` with the dimensions of Llama-3.2-3B."""


def _layer(
    embed_dim: int,
    num_heads: int,
    num_kv_heads: int,
    intermediate_dim: int,
    norm_eps: float,
    rope: Llama3ScaledRoPE,
) -> TransformerSelfAttentionLayer:
    head_dim = embed_dim // num_heads
    attention = Attention(
        embed_dim=embed_dim,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_dim=head_dim,
        q_proj=nn.Linear(embed_dim, embed_dim, bias=False),
        k_proj=nn.Linear(embed_dim, num_kv_heads * head_dim, bias=False),
        v_proj=nn.Linear(embed_dim, num_kv_heads * head_dim, bias=False),
        output_proj=nn.Linear(embed_dim, embed_dim, bias=False),
        pos_embeddings=rope,
        max_seq_len=rope.max_seq_len,
        attn_dropout=0.0,
    )
    return TransformerSelfAttentionLayer(
        attn=attention,
        mlp=llama3_mlp(dim=embed_dim, hidden_dim=intermediate_dim),
        sa_norm=RMSNorm(embed_dim, eps=norm_eps),
        mlp_norm=RMSNorm(embed_dim, eps=norm_eps),
    )


def _initialise(model: KyvoModel, std: float) -> None:
    """Normal weights; the projections into the residual stream start smaller with depth."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or name.endswith("scale"):
            continue
        into_residual = name.endswith(("output_proj.weight", "w2.weight"))
        scale = std / (2 * len(model.layers)) ** 0.5 if into_residual else std
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif "vqgan_embed_proj" in name:
            # Keeps the scale of the codes, whatever their dimension.
            nn.init.normal_(parameter, std=parameter.shape[1] ** -0.5)
        else:
            nn.init.normal_(parameter, std=scale)


@torch.no_grad()
def _relate_numbers(model: KyvoModel, vocabulary: Vocabulary, scale: float) -> None:
    rows = vocabulary.number
    table = sin_cos_table(rows.size, model.output.weight.shape[1])
    model.output.weight[rows.start : rows.stop] += scale * table


def outline(component: Component, vocabulary: Vocabulary) -> KyvoModel:
    """The model of a config on the meta device: names and shapes, no weights.

    Raises:
        InputError: dimensions that do not fit, or wrong keys.
    """
    with torch.device("meta"):
        model: KyvoModel = component.build(vocabulary=vocabulary)
    return model


def num_parameters(model: nn.Module, trainable_only: bool = False) -> int:
    """Number of weights."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable_only)


def resolve_dtype(name: str) -> torch.dtype:
    """``fp32`` or ``bf16`` as a torch dtype."""
    return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
