"""Sampling against a naive implementation, and at its limits.

Shapes: B rows, V ids.
"""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from kyvo.decoding import GREEDY, Sampling


def naive_top_k(logits_V, temperature, top_k):
    """The k likeliest ids in order, and their probabilities in float64."""
    logits_V = logits_V.astype(np.float64)
    order = sorted(range(len(logits_V)), key=lambda i: (-logits_V[i], i))[:top_k]
    weights = np.exp((logits_V[order] - logits_V.max()) / temperature)
    return order, weights / weights.sum()


def naive_probabilities(logits_V, temperature, top_k, top_p):
    """Cut where the sum so far has reached p, then divide again."""
    kept, reached = [], 0.0
    for token, weight in zip(*naive_top_k(logits_V, temperature, top_k), strict=True):
        if reached >= top_p:
            break
        kept.append((token, weight))
        reached += weight
    return {token: weight / reached for token, weight in kept}


@given(
    logits=st.lists(st.integers(-40, 40), min_size=2, max_size=30),
    temperature=st.floats(0.3, 3.0),
    top_k=st.none() | st.integers(1, 40),
    top_p=st.floats(0.05, 1.0),
)
def test_every_draw_falls_into_its_ids_share(logits, temperature, top_k, top_p):
    """The unit interval is shared out in order of likelihood, each id its probability."""
    logits_V = np.array(logits, dtype=np.float32) / 8
    reached = np.cumsum(naive_top_k(logits_V, temperature, top_k)[1])
    # Where the sum just reaches p, rounding decides whether one more id is let in.
    assume(top_p == 1 or not np.isclose(reached, top_p, atol=1e-5).any())
    expected = naive_probabilities(logits_V, temperature, top_k, top_p)
    ends = np.cumsum(list(expected.values()))
    draws_B = np.linspace(0, 1, 199, endpoint=False, dtype=np.float32)
    logits_BV = torch.from_numpy(np.tile(logits_V, (len(draws_B), 1)))
    sampling = Sampling(temperature, top_k, top_p)
    found = sampling.choose(logits_BV, torch.from_numpy(draws_B)).tolist()
    tokens = list(expected)
    for draw, token in zip(draws_B, found, strict=True):
        # A draw on the border of two shares may fall to either, by rounding.
        places = np.searchsorted(ends, [draw - 1e-5, draw + 1e-5]).clip(0, len(tokens) - 1)
        assert token in {tokens[place] for place in places}


def test_draws_follow_the_probabilities():
    logits_V = torch.tensor([2.0, 0.5, -1.0, 1.0, -9.0])
    sampling = Sampling(temperature=0.8, top_k=4, top_p=0.93, seed=5)
    draws_B = sampling.draws(sample_index=3, count=20_000)
    found = sampling.choose(logits_V.expand(len(draws_B), -1), draws_B)
    expected = naive_probabilities(logits_V.numpy(), 0.8, 4, 0.93)
    assert set(found.tolist()) == set(expected) == {0, 3, 1}
    for token, probability in expected.items():
        assert (found == token).float().mean().item() == pytest.approx(probability, abs=0.012)


@pytest.mark.parametrize("temperature", [1e-3, 1e-30])
def test_a_temperature_near_zero_is_greedy(temperature):
    logits_BV = torch.randn(50, 200, generator=torch.Generator().manual_seed(0)) * 5
    draws_B = Sampling().draws(0, 50)
    found = Sampling(temperature).choose(logits_BV, draws_B)
    assert torch.equal(found, logits_BV.argmax(-1))
    assert torch.equal(found, GREEDY.choose(logits_BV, draws_B))


@pytest.mark.parametrize("sampling", [Sampling(1.0, top_k=1), Sampling(2.0, top_p=1e-9)], ids=str)
def test_one_id_left_is_the_likeliest_and_of_a_tie_the_lowest(sampling):
    logits_BV = torch.tensor([[1.0, 3.0, 3.0, 2.0]]).expand(100, -1)
    assert sampling.choose(logits_BV, sampling.draws(0, 100)).tolist() == [1] * 100


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0), Sampling(5.0, top_k=3)], ids=str)
def test_impossible_ids_are_never_drawn(sampling):
    logits_BV = torch.full((1000, 6), float("-inf"))
    logits_BV[:, 2] = -3.0
    logits_BV[:, 4] = -2.0
    uniform_B = torch.linspace(0, 1, 1000)
    assert set(sampling.choose(logits_BV, uniform_B).tolist()) <= {2, 4}


def test_draws_differ_between_samples_and_seeds_and_repeat():
    first = Sampling(1.0, seed=1).draws(7, 100)
    assert torch.equal(first, Sampling(1.0, seed=1).draws(7, 100))
    assert torch.equal(first[:10], Sampling(1.0, seed=1).draws(7, 10))
    for other in (Sampling(1.0, seed=2).draws(7, 100), Sampling(1.0, seed=1).draws(8, 100)):
        assert not torch.isclose(first, other).any()
    assert first.min() >= 0
    assert first.max() < 1


@pytest.mark.parametrize(
    "settings", [{"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}], ids=str
)
def test_settings_without_meaning_are_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        Sampling(**settings)
