"""A training step as the released code takes it, to measure against.

Written anew from its description: bfloat16 weights; an embedding of zeros into which each kind of
id is written through a boolean mask; logits of every position, in float32; cross-entropy with
ignored positions counted as zero in a mean over all of them; accuracy read back in every step;
nothing compiled. AdamW is PyTorch's fused one instead of the paged 8-bit one.

Shapes: B samples, L positions, D width, V ids.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kyvo.data.batches import Batch
from kyvo.models import KyvoModel
from kyvo.models.kv_cache import LayerCache
from kyvo.models.llama import Attention, Prefix, attention
from kyvo.tokens.sequences import IGNORED_LABEL
from kyvo.tokens.vocabulary import Vocabulary


class TorchtunesAttention(Attention):
    """Attention as torchtune has it: three matmuls, keys and values copied to all query heads."""

    def forward(
        self, x_BLD: Tensor, cache: LayerCache | None = None, prefix: Prefix | None = None
    ) -> Tensor:
        """What each position gathers (B, L, D) from itself and those before it."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (part(x_BLD).unflatten(-1, (-1, self.head_dim)) for part in projections)
        q, k, group = self.rope(q), self.rope(k), self.num_heads // self.num_kv_heads
        k, v = (part.repeat_interleave(group, dim=2) for part in (k, v))
        return self.output_proj(attention(q, k, v, is_causal=True).flatten(2))


def use_torchtunes_attention(model: KyvoModel) -> None:
    """torchtune's forward pass of attention over the same weights."""
    for block in model.blocks:
        block.attn.__class__ = TorchtunesAttention


def masked_embedding(embedding: nn.Module, vocabulary: Vocabulary, ids_BL: Tensor) -> Tensor:
    """Embeddings (B, L, D), each kind of id written through its mask."""
    width = embedding.token_embedding.weight.shape[1]
    dtype = embedding.token_embedding.weight.dtype
    out_BLD = torch.zeros(*ids_BL.shape, width, dtype=dtype, device=ids_BL.device)
    numbers, fixed = embedding.numbers_embedding, embedding.static_sin_cos_embedding
    codes, project = embedding.vqgan_codebook, embedding.vqgan_embed_proj
    kinds = (
        (vocabulary.text, embedding.token_embedding),
        (vocabulary.number, lambda rows: numbers(rows) + fixed(rows)),
        (vocabulary.marker, embedding.added_embedding),
        (vocabulary.image, lambda rows: project(codes(rows))),
    )
    for block, look_up in kinds:
        is_kind_BL = (ids_BL >= block.start) & (ids_BL < block.stop)
        out_BLD[is_kind_BL] = look_up(ids_BL[is_kind_BL] - block.start).to(dtype)
    return out_BLD


def dense_labels(batch: Batch) -> Tensor:
    """Labels (B, L), ignored where there is none."""
    labels_BL = torch.full_like(batch.tokens_BL, IGNORED_LABEL)
    labels_BL.view(-1)[batch.positions_N] = batch.labels_N
    return labels_BL


def reference_loss(
    model: KyvoModel, vocabulary: Vocabulary, batch: Batch, labels_BL: Tensor
) -> tuple[Tensor, float]:
    """The loss, and the accuracy, for which the host waits."""
    h_BLD = masked_embedding(model.tok_embeddings, vocabulary, batch.tokens_BL)
    for layer in model.layers:
        h_BLD = layer(h_BLD)
    logits_BLV = model.output(model.norm(h_BLD)).float()
    losses_N = F.cross_entropy(
        logits_BLV.flatten(0, 1), labels_BL.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    is_label_BL = labels_BL != IGNORED_LABEL
    hits = logits_BLV.argmax(-1)[is_label_BL] == labels_BL[is_label_BL]
    return losses_N.mean(), hits.float().mean().item()
