"""Models of any size with random weights: the builders that configs name."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.models.embedding import (
    ImageProjection,
    MixedEmbedding,
    NumberEmbedding,
    sin_cos_table,
)
from kyvo.models.image_input import build_image_input
from kyvo.models.llama import (
    Attention,
    Block,
    FeedForward,
    KyvoModel,
    RMSNorm,
    RotaryEmbedding,
)
from kyvo.tokens.vocabulary import Vocabulary


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
    qk_norm: bool = False,
    image_input: Mapping[str, Any] | None = None,
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
        qk_norm: norm queries and keys head by head, for large learning rates.
        image_input: how an image that opens the sequence enters, ``ImageInputOptions`` by name;
            None: as its codes, like any other token (the paper).

    Raises:
        InputError: dimensions that do not divide each other.
    """
    if embed_dim % num_heads or num_heads % num_kv_heads:
        raise InputError(
            f"model: embed_dim {embed_dim} must be a multiple of num_heads {num_heads}, "
            f"and num_heads of num_kv_heads {num_kv_heads}"
        )
    rope = RotaryEmbedding(embed_dim // num_heads, max_seq_len, rope_base, rope_scale_factor)
    layers = [
        Block(
            Attention(embed_dim, num_heads, num_kv_heads, rope, norm_eps if qk_norm else None),
            FeedForward(embed_dim, intermediate_dim),
            RMSNorm(embed_dim, norm_eps),
            RMSNorm(embed_dim, norm_eps),
        )
        for _ in range(num_layers)
    ]
    model = KyvoModel(
        MixedEmbedding(vocabulary, embed_dim, codebook_dim, number_embedding, image_projection),
        layers,
        RMSNorm(embed_dim, norm_eps),
        nn.Linear(embed_dim, vocabulary.size, bias=False),
        max_seq_len,
        build_image_input(image_input, vocabulary, embed_dim, codebook_dim),
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


def _initialise(model: KyvoModel, std: float) -> None:
    """Normal weights; the projections into the residual stream start smaller with depth."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or name.endswith("scale"):
            continue
        into_residual = name.endswith(("output_proj.weight", "w2.weight"))
        scale = std / (2 * len(model.layers)) ** 0.5 if into_residual else std
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif name.startswith("image_input.encoder"):
            # Keeps the scale of the image through all convolutions.
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
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


def build_on_meta(component: Component, vocabulary: Vocabulary) -> KyvoModel:
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
