"""The mixed embedding: text, numbers, markers and image codes in one id space.

    text    token_embedding                        (from Llama, usually frozen)
    number  numbers_embedding + fixed sin-cos table
    marker  added_embedding
    image   codebook row (fixed) times a learned projection

Parameter names are those of the released models. Shapes: B samples, L positions, D width,
T text ids, V ids in all, C codebook dimensions.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kyvo.tokens.vocabulary import Vocabulary

NumberEmbedding = Literal["sin_cos_plus_learned", "sin_cos", "learned"]
ImageProjection = Literal["linear", "mlp"]


def sin_cos_table(num_rows: int, width: int) -> Tensor:
    """Fixed table (num_rows, width): angle row / 10000^(2 (i // 2) / width), sin on even i.

    Float32, computed in float64.
    """
    rows = torch.arange(num_rows, dtype=torch.float64)[:, None]
    columns = torch.arange(width, dtype=torch.float64)
    angles = rows / 10000.0 ** (2 * (columns // 2) / width)
    return torch.where(columns % 2 == 0, angles.sin(), angles.cos()).float()


class MixedEmbedding(nn.Module):
    """Ids (B, L) -> embeddings (B, L, D); an id beyond the vocabulary is an IndexError (CPU)."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        width: int,
        codebook_dim: int = 256,
        number_embedding: NumberEmbedding = "sin_cos_plus_learned",
        image_projection: ImageProjection = "linear",
    ) -> None:
        super().__init__()
        self.num_text = vocabulary.num_text
        numbers, added = vocabulary.number_rows.size, vocabulary.added_rows.size
        self.token_embedding = nn.Embedding(vocabulary.num_text, width)
        if number_embedding == "learned":
            added += numbers
        self.added_embedding = nn.Embedding(added, width)
        if number_embedding == "sin_cos":
            self.numbers_embedding = _fixed(sin_cos_table(numbers, width))
        if number_embedding == "sin_cos_plus_learned":
            self.numbers_embedding = nn.Embedding(numbers, width)
            self.static_sin_cos_embedding = _fixed(sin_cos_table(numbers, width))
        self.vqgan_codebook = _fixed(torch.zeros(vocabulary.num_image_codes, codebook_dim))
        self.vqgan_embed_proj = _projection(codebook_dim, width, image_projection)
        self.number_embedding = number_embedding
        self._table: Tensor | None = None

    def new_rows(self) -> Tensor:
        """Embeddings of all ids after the text block, (V - T, D)."""
        rows = [self.added_embedding.weight, self.vqgan_embed_proj(self.vqgan_codebook.weight)]
        if self.number_embedding == "sin_cos_plus_learned":
            learned, fixed = self.numbers_embedding.weight, self.static_sin_cos_embedding.weight
            rows.insert(0, learned + fixed)
        elif self.number_embedding == "sin_cos":
            rows.insert(0, self.numbers_embedding.weight)
        return torch.cat([row.to(self.token_embedding.weight.dtype) for row in rows])

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Look the ids up: one gather once the table is frozen, else one per kind of row.

        The new rows are few, so they are made anew in each training step; selecting between
        two lookups needs no boolean-mask write, which would make the GPU wait for the host.
        """
        if self._table is not None:
            return F.embedding(ids_BL, self._table)
        is_text_BL = ids_BL < self.num_text
        text_BLD = F.embedding(torch.where(is_text_BL, ids_BL, 0), self.token_embedding.weight)
        new_ids_BL = torch.where(is_text_BL, 0, ids_BL - self.num_text)
        new_BLD = F.embedding(new_ids_BL, self.new_rows())
        return torch.where(is_text_BL[..., None], text_BLD, new_BLD)

    @torch.no_grad()
    def materialize_table(self) -> None:
        """Make the whole table (V, D) once; for decoding, when no weight changes any more."""
        self._table = torch.cat([self.token_embedding.weight, self.new_rows()])

    def set_codebook(self, codebook: Tensor) -> None:
        """Copy the VQGAN's codebook (num_image_codes, C) in."""
        with torch.no_grad():
            self.vqgan_codebook.weight.copy_(codebook)


def _fixed(table: Tensor) -> nn.Embedding:
    return nn.Embedding.from_pretrained(table, freeze=True)


def _projection(codebook_dim: int, width: int, kind: ImageProjection) -> nn.Module:
    if kind == "linear":
        return nn.Linear(codebook_dim, width, bias=False)
    return nn.Sequential(nn.Linear(codebook_dim, width), nn.ReLU(), nn.Linear(width, width))
