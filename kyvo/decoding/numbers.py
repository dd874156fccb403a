"""Expected-value decoding of numbers: finer than their grid, without more tokens.

A number is one token, that of a bin. How probable the bins beside it are says on which side of
the bin the number is: the mean over the bins around the chosen one is the number that is reported
(as histogram regression reads its histograms; Imani and White, arXiv 1806.04613).

Shapes: B slots, V ids, I ids of the head, K number tokens among them.
"""

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.tokens.vocabulary import Vocabulary

Numbers = Literal["best", "expected"]
"""A number is that of the chosen token, or the mean of the bins around it."""

BINS_PER_SIDE = 4
"""Bins on each side of the chosen one that count: further ones are other objects' numbers."""


def number_values(numbers: Numbers, vocabulary: Vocabulary) -> np.ndarray | None:
    """Of every id its number, float32 (V,), NaN where it is none; None if ``best`` is asked for.

    Raises:
        InputError: ``numbers`` is something else.
    """
    if numbers not in get_args(Numbers):
        expected = " or ".join(get_args(Numbers))
        raise InputError(f"numbers: expected {expected}, found {numbers!r}.")
    if numbers == "best":
        return None
    values_V = np.full(vocabulary.size, np.nan, np.float32)
    block = vocabulary.number
    values_V[block.start : block.stop] = list(map(float, vocabulary.numbers))
    return values_V


class ExpectedNumbers:
    """The number tokens on the device; logits are those of the ids of a head.

    Args:
        values_V: of ``number_values``.
        head_values_I: those of the head's ids, at least one of them a number.
    """

    def __init__(
        self, values_V: np.ndarray, head_values_I: np.ndarray, device: torch.device
    ) -> None:
        # Numbers are one block of ids, so their logits are side by side, their values ascending.
        columns = np.flatnonzero(~np.isnan(head_values_I))
        self._first, self._last = int(columns[0]), int(columns[-1])
        self._values_K = torch.from_numpy(head_values_I[columns]).to(device)
        self._values_V = torch.from_numpy(values_V).to(device)

    def of_ids(self, ids_B: Tensor) -> Tensor:
        """The tokens' own numbers (B,), NaN for a token that is none."""
        return self._values_V[ids_B]

    def around(self, logits_BI: Tensor, index_B: Tensor) -> Tensor:
        """The means (B,) around the tokens chosen at ``index_B``, NaN for one that is no number.

        Bins that are impossible (-inf) are passed over: what is next to a bin is the grid's next
        value, also where the vocabulary has other axes' numbers between the two.
        """
        logits_BK = logits_BI[:, self._first : self._last + 1]
        is_number_B = (index_B >= self._first) & (index_B <= self._last)
        chosen_B1 = (index_B.clamp(self._first, self._last) - self._first)[:, None]
        rank_BK = logits_BK.isfinite().cumsum(dim=1)
        is_far_BK = (rank_BK - rank_BK.gather(1, chosen_B1)).abs() > BINS_PER_SIDE
        share_BK = logits_BK.masked_fill(is_far_BK, -torch.inf).softmax(dim=1)
        # No matmul: on a GPU it may keep ten bits of each factor.
        mean_B = (share_BK * self._values_K).sum(dim=1)
        return torch.where(is_number_B, mean_B, torch.nan)


def expected_numbers(
    values_V: np.ndarray | None, head_ids: np.ndarray | None, device: torch.device
) -> ExpectedNumbers | None:
    """``ExpectedNumbers`` of the head of ``head_ids`` (None: all); None if it has no number."""
    if values_V is None:
        return None
    head_values_I = values_V if head_ids is None else values_V[head_ids]
    if np.isnan(head_values_I).all():
        return None
    return ExpectedNumbers(values_V, head_values_I, device)
