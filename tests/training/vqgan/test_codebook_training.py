import math

import numpy as np
import pytest
import torch

from kyvo.training.vqgan.codebook_training import CodebookTrainer, codebook_use, kmeans
from kyvo.training.vqgan.config import CodebookConfig

RULE = CodebookConfig(
    method="ema",
    start_step=0,
    start_images=8,
    ema_decay=0.75,
    revive_below=0.1,
    revive_every=1,
    revive_until=1.0,
)


def trainer(codebook: torch.Tensor, method: str = "ema") -> CodebookTrainer:
    rule = CodebookConfig(**{**vars(RULE), "method": method})
    return CodebookTrainer(rule, codebook, seed=0)


def test_use_of_equally_used_codes() -> None:
    use = codebook_use(torch.tensor([5, 0, 5, 5, 0, 5]))
    assert use.usage == pytest.approx(4 / 6)
    assert use.perplexity == pytest.approx(4)


def test_use_of_unequally_used_codes() -> None:
    use = codebook_use(torch.tensor([3, 1]))
    assert use.perplexity == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def test_kmeans_finds_separate_clusters() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [10, 10]], np.float32)
    vectors = centres.repeat(50, axis=0) + 0.1 * rng.standard_normal((200, 2)).astype(np.float32)
    found = kmeans(torch.from_numpy(vectors), 12, torch.Generator().manual_seed(0)).numpy()
    gaps = np.linalg.norm(centres[:, None] - found[None], axis=2)
    assert (gaps.min(axis=1) < 0.2).all()
    assert (gaps.min(axis=0) < 0.5).all()


def test_kmeans_takes_fewer_vectors_than_codes() -> None:
    vectors = torch.tensor([[1.0], [2.0]])
    assert set(kmeans(vectors, 5, torch.Generator()).flatten().tolist()) == {1.0, 2.0}


def test_averages_move_codes_to_the_weighted_mean() -> None:
    codebook = torch.tensor([[0.0, 0.0], [9.0, 9.0]])
    start = torch.tensor([[1.0, 0.0], [3.0, 0.0], [8.0, 8.0]])
    codes = trainer(codebook)
    codes.start(start)
    first = int((codebook[:, 0] < 5).nonzero()[0, 0])
    np.testing.assert_allclose(codebook[first], [2.0, 0.0])
    codes.update(torch.tensor([[6.0, 2.0], [8.0, 8.0]]), torch.tensor([first, 1 - first]))
    # Counts 2 and 1 at decay 0.75: (0.75 * 2 * 2.0 + 0.25 * 6) / (0.75 * 2 + 0.25).
    np.testing.assert_allclose(codebook[first], [4.5 / 1.75, 0.5 / 1.75], rtol=1e-6)
    np.testing.assert_allclose(codebook[1 - first], [8.0, 8.0], rtol=1e-6)


def test_gradient_codebooks_are_left_to_the_optimiser() -> None:
    codebook = torch.tensor([[0.0], [9.0]])
    codes = trainer(codebook, "gradient")
    codes.update(torch.tensor([[5.0]]), torch.tensor([0]))
    assert codebook.tolist() == [[0.0], [9.0]]
    assert codes.take_use().usage == 0.5
    assert codes.take_use().usage == 0


def test_dead_codes_move_to_vectors_of_the_batch() -> None:
    codebook = torch.zeros(8, 2)
    codes = trainer(codebook)
    alive = torch.tensor([[1.0, 1.0]] * 4 + [[-1.0, 1.0]] * 4)
    codes.update(alive, torch.tensor([0] * 4 + [5] * 4))
    vectors = torch.randn(20, 2, generator=torch.Generator().manual_seed(1))
    codes.revive(vectors)
    moved = [row for index, row in enumerate(codebook.tolist()) if index not in (0, 5)]
    assert all(row in vectors.tolist() for row in moved)
    assert len({tuple(row) for row in moved}) == 6
    np.testing.assert_allclose(codebook[0], [1.0, 1.0])
    # Each counts as an average code from then on, and so is not moved again.
    mean_count = 0.25 * 8 / 8
    np.testing.assert_allclose(codes.counts_K[1:5], [mean_count] * 4)
    np.testing.assert_allclose(codes.sums_KD, codebook * codes.counts_K[:, None])
    before = codebook.clone()
    codes.revive(vectors)
    assert torch.equal(codebook, before)


def test_dead_codes_share_vectors_only_where_there_are_too_few() -> None:
    codebook = torch.zeros(7, 1)
    codes = trainer(codebook)
    codes.update(torch.ones(4, 1), torch.full((4,), 2))
    codes.revive(torch.tensor([[5.0], [6.0], [7.0]]))
    moved = [value for index, value in enumerate(codebook.flatten().tolist()) if index != 2]
    assert sorted(moved) == [5, 5, 6, 6, 7, 7]
