"""Keeping a codebook alive in training: k-means start, moving averages, revival of dead codes.

Shape legend: N vectors (one per position of a batch), D dimensions, K codes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kyvo.images.quantizers import nearest_codes
from kyvo.training.vqgan.config import CodebookConfig

_KMEANS_ROUNDS = 10


@dataclass(frozen=True)
class CodebookUse:
    """How much of a codebook a set of codes uses.

    Attributes:
        usage: share of the codes that occur.
        perplexity: exp of the codes' entropy: the number of equally used codes.
    """

    usage: float
    perplexity: float


def codebook_use(counts_K: Tensor) -> CodebookUse:
    """Usage and perplexity of how often each code occurred; waits for the device."""
    shares_K = counts_K.double() / counts_K.sum().clamp_min(1)
    entropy = -torch.xlogy(shares_K, shares_K).sum()
    return CodebookUse((counts_K > 0).double().mean().item(), entropy.exp().item())


def kmeans(vectors_ND: Tensor, num_codes: int, generator: torch.Generator) -> Tensor:
    """Cluster centres (num_codes, D) by Lloyd's rounds from randomly picked vectors.

    A centre that loses all its vectors moves to a random one.
    """
    centres_KD = _pick(vectors_ND, num_codes, generator)
    for _ in range(_KMEANS_ROUNDS):
        counts_K, sums_KD = _tally(vectors_ND, nearest_codes(vectors_ND, centres_KD), num_codes)
        spare_KD = _pick(vectors_ND, num_codes, generator)
        means_KD = sums_KD / counts_K.clamp_min(1)[:, None]
        centres_KD = torch.where(counts_K[:, None] > 0, means_KD, spare_KD)
    return centres_KD


class CodebookTrainer:
    """Statistics of a codebook's use, and the updates that follow from them.

    It changes ``codebook_KD``, the quantiser's weight, in place. ``counts_K`` and ``sums_KD`` are
    moving averages of how many vectors a batch gives each code, and of their sum; ``seen_K`` counts
    them since the last report.
    """

    def __init__(self, config: CodebookConfig, codebook_KD: Tensor, seed: int) -> None:
        self.config = config
        self.codebook_KD = codebook_KD.detach()
        self.counts_K = torch.zeros(len(codebook_KD), device=codebook_KD.device)
        self.sums_KD = torch.zeros_like(self.codebook_KD)
        self.seen_K = torch.zeros_like(self.counts_K)
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def start(self, vectors_ND: Tensor) -> None:
        """Put the codes at the cluster centres of encoder outputs."""
        num_codes = len(self.codebook_KD)
        self.codebook_KD.copy_(kmeans(vectors_ND.float(), num_codes, self.generator))
        codes_N = nearest_codes(vectors_ND, self.codebook_KD)
        self.counts_K, self.sums_KD = _tally(vectors_ND.float(), codes_N, num_codes)

    @torch.no_grad()
    def update(self, vectors_ND: Tensor, codes_N: Tensor) -> None:
        """Take one batch into the averages; with method ``ema`` move the codes to their means."""
        counts_K, sums_KD = _tally(vectors_ND.float(), codes_N, len(self.codebook_KD))
        self.seen_K += counts_K
        self.counts_K.lerp_(counts_K, 1 - self.config.ema_decay)
        self.sums_KD.lerp_(sums_KD, 1 - self.config.ema_decay)
        if self.config.method == "ema":
            means_KD = self.sums_KD / self.counts_K.clamp_min(1e-8)[:, None]
            alive_K1 = self.counts_K[:, None] > 1e-6
            self.codebook_KD.copy_(torch.where(alive_K1, means_KD, self.codebook_KD))

    @torch.no_grad()
    def revive(self, vectors_ND: Tensor) -> None:
        """Move dead codes to random vectors of the batch, without waiting for the device.

        As many vectors are drawn as there are codes: the host does not know how many are dead.
        """
        mean_count = self.counts_K.mean()
        dead_K = self.counts_K < self.config.revive_below * mean_count
        drawn_KD = _pick(vectors_ND.float(), len(dead_K), self.generator)
        # The n-th dead code takes the n-th vector, so that two share one only if they have to.
        fresh_KD = drawn_KD[(dead_K.cumsum(0) - 1).clamp_min(0)]
        dead_K1 = dead_K[:, None]
        self.codebook_KD.copy_(torch.where(dead_K1, fresh_KD, self.codebook_KD))
        self.counts_K.copy_(torch.where(dead_K, mean_count, self.counts_K))
        self.sums_KD.copy_(torch.where(dead_K1, fresh_KD * mean_count, self.sums_KD))

    def tensors(self) -> dict[str, Tensor]:
        """All that the next update depends on, beside the codebook itself."""
        return {
            "codebook-counts": self.counts_K,
            "codebook-sums": self.sums_KD,
            "codebook-seen": self.seen_K,
            "codebook-random": self.generator.get_state(),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on where ``tensors`` were taken."""
        self.counts_K.copy_(tensors["codebook-counts"])
        self.sums_KD.copy_(tensors["codebook-sums"])
        self.seen_K.copy_(tensors["codebook-seen"])
        self.generator.set_state(tensors["codebook-random"])

    def take_use(self) -> CodebookUse:
        """Use of the codes since the last call; waits for the device."""
        use = codebook_use(self.seen_K)
        self.seen_K.zero_()
        return use


def _tally(vectors_ND: Tensor, codes_N: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    """For every code the number of its vectors (K,) and their sum (K, D)."""
    counts_K = vectors_ND.new_zeros(num_codes)
    # Not bincount, which waits for the device to know the largest code.
    counts_K.index_add_(0, codes_N, torch.ones_like(codes_N, dtype=counts_K.dtype))
    sums_KD = vectors_ND.new_zeros(num_codes, vectors_ND.shape[1])
    return counts_K, sums_KD.index_add_(0, codes_N, vectors_ND)


def _pick(vectors_ND: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` of the vectors at random; each at most once while there are enough."""
    rounds = -(-count // len(vectors_ND))
    order = [torch.randperm(len(vectors_ND), generator=generator) for _ in range(rounds)]
    index_N = torch.cat(order)[:count]
    if vectors_ND.is_cuda:
        # A copy from memory that is not pinned would wait for the device.
        index_N = index_N.pin_memory()
    return vectors_ND[index_N.to(vectors_ND.device, non_blocking=True)]
