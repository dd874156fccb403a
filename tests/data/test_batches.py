"""Batches: length buckets lose no index, collation equals a double loop, padding is right."""

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kyvo.data.batches import (
    Batch,
    BatchSettings,
    LossWeighting,
    collate,
    length_buckets,
    position_weights,
)
from kyvo.data.dataset import kyvo_dataset
from kyvo.tokens.sequences import IGNORED_LABEL, Sample
from kyvo.tokens.vocabulary import get_vocabulary

LENGTHS = st.lists(st.integers(1, 2000), max_size=300).map(lambda v: np.array(v, dtype=np.int64))


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Random tokens of which everything before ``prompt_length`` carries no loss."""
    tokens = np.array(draw(st.lists(st.integers(1, 99), min_size=2, max_size=9)))
    prompt_length = draw(st.integers(0, len(tokens)))
    labels = np.where(np.arange(len(tokens)) < prompt_length, IGNORED_LABEL, tokens)
    window_start = draw(st.none() | st.integers(1, len(tokens) - 1))
    return Sample(tokens, labels, prompt_length, window_start)


BATCHES = st.lists(samples(), min_size=1, max_size=5).map(
    lambda values: [(f"key{i}", sample) for i, sample in enumerate(values)]
)
WEIGHTINGS = st.builds(LossWeighting, st.integers(0, 4), st.sampled_from((0.5, 1.0, 10.0)))


@given(LENGTHS, st.integers(1, 40), st.none() | st.integers(0, 5), st.integers(0, 5))
def test_buckets_hold_every_index_once(
    lengths: np.ndarray, batch_size: int, seed: int | None, epoch: int
) -> None:
    batches = length_buckets(lengths, batch_size, seed, epoch)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert len(batches) == math.ceil(len(lengths) / batch_size)
    assert sum(len(batch) != batch_size for batch in batches) <= 1
    assert batches == length_buckets(lengths.copy(), batch_size, seed, epoch)


def test_epochs_and_seeds_differ() -> None:
    lengths = np.random.default_rng(0).integers(300, 700, size=500)
    plans = [length_buckets(lengths, 8, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({str(plan) for plan in plans}) == 4


def test_unshuffled_buckets_ascend() -> None:
    lengths = np.random.default_rng(0).integers(300, 700, size=500)
    order = [i for batch in length_buckets(lengths, 8, None, 0) for i in batch]
    assert (np.diff(lengths[order]) >= 0).all()


def test_buckets_pad_little_but_still_mix() -> None:
    """Scenes of 3 to 10 objects beside an image: plain batches would be a tenth padding."""
    lengths = 263 + 14 * np.random.default_rng(0).integers(3, 11, size=6400)

    def padding(batches: list[list[int]]) -> float:
        padded = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
        return 1 - lengths.sum() / padded

    batches = length_buckets(lengths, 32, seed=0, epoch=0)
    assert padding(batches) < 0.01
    assert padding(np.random.default_rng(1).permutation(6400).reshape(-1, 32).tolist()) > 0.1
    means = np.array([lengths[batch].mean() for batch in batches])
    halves = means[:100].mean(), means[100:].mean()
    assert abs(halves[0] - halves[1]) < 8


@given(
    st.lists(st.none() | st.integers(1, 12), min_size=1, max_size=4),
    st.integers(1, 12),
    WEIGHTINGS,
)
def test_position_weights_against_a_loop(
    starts: list[int | None], length: int, weighting: LossWeighting
) -> None:
    """Position t predicts label t + 1: label s is weighed at position s - 1."""
    weights = position_weights(starts, length, weighting)
    assert weights.dtype == np.float32
    for row, start in enumerate(starts):
        for position in range(length):
            label = position + 1
            inside = start is not None and start <= label < start + weighting.first_positions
            assert weights[row, position] == (weighting.weight if inside else 1)


@given(BATCHES, WEIGHTINGS)
def test_collate_against_a_loop(batch: list[tuple[str, Sample]], weighting: LossWeighting) -> None:
    made = collate(batch, weighting)
    length = max(len(sample.tokens) for _, sample in batch) - 1
    rows, found, sums = [], [], []
    for row, (_, sample) in enumerate(batch):
        inputs = sample.tokens[:length].tolist()
        rows.append(inputs + [0] * (length - len(inputs)))
        start, total = sample.window_start, 0.0
        for position in range(length):
            label = position + 1
            inside = start is not None and start <= label < start + weighting.first_positions
            weight = weighting.weight if inside else 1.0
            total += weight
            if label < len(sample.tokens) and sample.labels[label] != IGNORED_LABEL:
                found.append((row * length + position, int(sample.labels[label]), weight))
        sums.append(total)
    assert made.keys == tuple(key for key, _ in batch)
    assert made.tokens_BL.tolist() == rows
    assert _labelled(made) == found
    assert made.row_weights_B.tolist() == sums
    assert made.num_tokens == sum(len(sample.tokens) - 1 for _, sample in batch)


def _labelled(batch: Batch) -> list[tuple[int, int, float]]:
    parts = (batch.positions_N, batch.labels_N, batch.weights_N)
    return list(zip(*(part.tolist() for part in parts), strict=True))


def test_a_batch_without_labels() -> None:
    tokens = np.array([5, 6, 7])
    batch = collate([("a", Sample(tokens, np.full(3, IGNORED_LABEL), 3, None))], LossWeighting())
    assert batch.labels_N.shape == batch.positions_N.shape == batch.weights_N.shape == (0,)
    assert batch.tokens_BL.tolist() == [[5, 6]]


def test_types_and_moving() -> None:
    tokens = np.array([5, 6, 7])
    batch = collate([("a", Sample(tokens, tokens, 0, None))], LossWeighting())
    moved = batch.to(torch.device("meta"))
    for name in ("tokens_BL", "positions_N", "labels_N"):
        assert getattr(batch, name).dtype == torch.int64
        assert getattr(moved, name).device.type == "meta"
    assert batch.weights_N.dtype == batch.row_weights_B.dtype == torch.float32
    assert (moved.keys, moved.num_tokens) == (batch.keys, batch.num_tokens)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_loader_gives_exactly_the_planned_batches(tmp_path: Path, num_workers: int) -> None:
    goldens = Path(__file__).parents[1] / "goldens/sequences"
    paths = {}
    for name in ("image_source", "three_d_source"):
        (tmp_path / f"{name}.json").write_text((goldens / f"{name}.json").read_text())
        paths[name] = str(tmp_path / f"{name}.json")
    data = kyvo_dataset(vocabulary=get_vocabulary("clevr"), task="3-I", codes_per_image=16, **paths)
    plan = length_buckets(data.lengths, 4, seed=0, epoch=0)
    weighting = LossWeighting(5, 10.0)
    settings = BatchSettings(4, weighting, seed=0, num_workers=num_workers)
    batches = list(data.batches(0, 0, settings))
    assert [batch.keys for batch in data.batches(0, 1, settings)] == [batches[1].keys]
    assert sorted(len(batch.keys) for batch in batches) == [2, 4]
    for indices, batch in zip(plan, batches, strict=True):
        expected = collate([data[i] for i in indices], weighting)
        assert batch.keys == expected.keys
        assert torch.equal(batch.tokens_BL, expected.tokens_BL)
        assert _labelled(batch) == _labelled(expected)


def test_a_batch_can_be_sent_between_processes() -> None:
    tokens = np.array([5, 6, 7])
    batch = collate([("a", Sample(tokens, tokens, 0, None))], LossWeighting())
    assert torch.equal(pickle.loads(pickle.dumps(batch)).tokens_BL, batch.tokens_BL)


@given(BATCHES, WEIGHTINGS, st.sampled_from((4, 16)))
def test_padding_to_a_multiple_moves_labels_and_changes_no_weight(
    batch: list[tuple[str, Sample]], weighting: LossWeighting, multiple: int
) -> None:
    plain, padded = collate(batch, weighting), collate(batch, weighting, multiple)
    length, width = plain.tokens_BL.shape[1], padded.tokens_BL.shape[1]
    assert width % multiple == 0
    assert 0 <= width - length < multiple
    assert torch.equal(padded.tokens_BL[:, :length], plain.tokens_BL)
    assert (padded.tokens_BL[:, length:] == 0).all()
    assert [row[1:] for row in _labelled(padded)] == [row[1:] for row in _labelled(plain)]
    places = [made.positions_N // size for made, size in ((plain, length), (padded, width))]
    offsets = [made.positions_N % size for made, size in ((plain, length), (padded, width))]
    assert torch.equal(*places)
    assert torch.equal(*offsets)
    assert torch.equal(padded.row_weights_B, plain.row_weights_B)
    assert padded.num_tokens == plain.num_tokens
