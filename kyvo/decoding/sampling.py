"""Choosing the next token: greedy, or sampled with temperature, top-k and top-p.

Shapes: B rows, V ids.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from kyvo.common.config import Count, NonNegative, Range, Seed, check_ranges


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
        temperature: 0 is greedy; the lowest id wins a tie.
        top_k: only the k likeliest ids (of a tie, the lowest); None for all.
        top_p: only the likeliest ids that together reach this probability; 1 for all.
        seed: a sample's draws depend on it and on the sample's index, not on its batch.
    """

    temperature: NonNegative = 0.0
    top_k: Count | None = None
    top_p: Annotated[float, Range(0, 1, is_open=True)] = 1.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_ranges(self)

    def draws(self, sample_index: int, count: int) -> Tensor:
        """The uniform numbers in [0, 1) that decide a sample's tokens, float32 (count,)."""
        random = np.random.default_rng((self.seed, sample_index))
        return torch.from_numpy(random.random(count, dtype=np.float32))

    def choose(self, logits_BV: Tensor, uniform_B: Tensor) -> Tensor:
        """Ids (B,) drawn from ``logits_BV`` (-inf: impossible) with one number a row."""
        if self.temperature == 0:
            return logits_BV.argmax(dim=-1)
        sorted_BV, ids_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
        # Differences to the likeliest cannot overflow, however low the temperature.
        scaled_BV = (sorted_BV - sorted_BV[:, :1]) / self.temperature
        probability_BV = scaled_BV[:, : self.top_k].softmax(dim=-1)
        before_BV = probability_BV.cumsum(dim=-1) - probability_BV
        probability_BV = probability_BV.masked_fill(before_BV >= self.top_p, 0.0)
        cumulative_BV = probability_BV.cumsum(dim=-1)
        target_B1 = uniform_B[:, None] * cumulative_BV[:, -1:]
        index_B1 = (cumulative_BV <= target_B1).sum(dim=-1, keepdim=True)
        # Rounding may put the target on the total; the last id with any probability is meant.
        last_B1 = (probability_BV > 0).sum(dim=-1, keepdim=True) - 1
        return ids_BV.gather(1, index_B1.minimum(last_B1))[:, 0]


GREEDY = Sampling()
