"""Numbers finer than their tokens: the mean over the bins around the one that was chosen.

A model that is unsure between two neighbouring bins of the grid means a number between them. Its
distribution says which, at no cost in tokens (as histogram regression reads its histograms; Imani
and White, arXiv 1806.04613).

Shapes: B slots, I ids of the head, K of them that are numbers, V ids, N new ids of a sample.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from kyvo.tokens.vocabulary import Vocabulary

Numbers = Literal["best", "expected"]
"""What a number token stands for: its own number, or the mean over the numbers around it."""
_BINS_AROUND = 4
"""Bins on each side of the chosen one that are averaged."""


@dataclass(frozen=True)
class Generated:
    """What was generated for one prompt.

    Attributes:
        ids: int64 (N,).
        values: the number that each id stands for, float32 (N,); NaN where that is the id's own or
            none; None: nobody asked.
    """

    ids: np.ndarray
    values: np.ndarray | None = None


class ExpectedNumbers:
    """Reads expected numbers off logits, on the device.

    Args:
        head_ids: the ids that logits are of; None: all.
    """

    def __init__(
        self, vocabulary: Vocabulary, head_ids: Tensor | None, device: torch.device
    ) -> None:
        block = vocabulary.number
        ids = torch.arange(vocabulary.size) if head_ids is None else head_ids.cpu()
        columns_K = ((ids >= block.start) & (ids < block.stop)).nonzero()[:, 0]
        numbers_K = ids[columns_K] - block.start
        of_block = torch.tensor([float(string) for string in vocabulary.numbers])
        place_V = torch.full((vocabulary.size,), -1)
        place_V[ids[columns_K]] = torch.arange(len(columns_K))
        self._columns_K = columns_K.to(device)
        self._values_K = of_block[numbers_K].to(device)
        self._place_V = place_V.to(device)
        self._bins_K = torch.arange(len(columns_K), device=device)

    def __call__(self, logits_BI: Tensor, ids_B: Tensor) -> Tensor:
        """The number that each chosen id stands for (B,), NaN where it is none."""
        place_B = self._place_V[ids_B]
        is_near_BK = (self._bins_K - place_B[:, None]).abs() <= _BINS_AROUND
        scores_BK = logits_BI[:, self._columns_K].float()
        shares_BK = scores_BK.masked_fill(~is_near_BK, float("-inf")).softmax(-1)
        value_B = (shares_BK * self._values_K).sum(-1)
        return value_B.masked_fill(place_B < 0, float("nan"))
