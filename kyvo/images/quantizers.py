"""From encoder features to codes, two ways: nearest codebook row, or argmax of logits.

Shape legend: B batch, D embedding dimensions, H height, W width, K codes, N vectors in a row.
"""

import torch
from torch import Tensor, nn


def nearest_codes(vectors_ND: Tensor, codebook_KD: Tensor) -> Tensor:
    """Index of the nearest codebook row for every vector, (N,) int64; the first one at a tie.

    Squared distances are expanded as |v|^2 + |e|^2 - 2 v.e, in float32, as the reference does:
    its rounding decides near-ties.
    """
    vectors_ND, codebook_KD = vectors_ND.float(), codebook_KD.float()
    norms_N1 = vectors_ND.square().sum(dim=1, keepdim=True)
    norms_K = codebook_KD.square().sum(dim=1)
    return (norms_N1 + norms_K - 2 * vectors_ND @ codebook_KD.T).argmin(dim=1)


def as_rows(z_BDHW: Tensor) -> Tensor:
    """Feature maps as one row per position, (B x H x W, D), positions in raster order."""
    return z_BDHW.permute(0, 2, 3, 1).flatten(0, 2)


class NearestQuantizer(nn.Module):
    """The codebook of a VQGAN; a position takes the code whose row is nearest."""

    def __init__(self, n_embed: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(n_embed, embed_dim)
        nn.init.uniform_(self.embedding.weight, -1 / n_embed, 1 / n_embed)

    @property
    def codebook(self) -> Tensor:
        """The table of code vectors, (K, D)."""
        return self.embedding.weight

    def codes(self, z_BDHW: Tensor) -> Tensor:
        """Codes of encoder features, (B, H, W) int64."""
        rows_ND = as_rows(z_BDHW)
        with torch.autocast(rows_ND.device.type, enabled=False):
            codes_N = nearest_codes(rows_ND, self.codebook)
        return codes_N.view(z_BDHW.shape[0], *z_BDHW.shape[2:])


class GumbelQuantizer(nn.Module):
    """Logits over the codes at every position; inference takes the largest.

    Training such a model (with Gumbel-softmax noise) is not offered: it exists to read
    taming-transformers' ``vqgan_gumbel_f8``.
    """

    def __init__(self, n_embed: int, embed_dim: int, z_channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(z_channels, n_embed, 1)
        self.embed = nn.Embedding(n_embed, embed_dim)

    @property
    def codebook(self) -> Tensor:
        """The table of code vectors, (K, D)."""
        return self.embed.weight

    def codes(self, z_BDHW: Tensor) -> Tensor:
        """Codes of encoder features, (B, H, W) int64."""
        with torch.autocast(z_BDHW.device.type, enabled=False):
            return self.proj(z_BDHW.float()).argmax(dim=1)
