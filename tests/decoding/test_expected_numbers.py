"""Expected numbers: against plain sums over a model's logits, and through reader and files.

Shapes: L positions, V ids.
"""

import numpy as np
import pytest
import torch
from kyvo_stand_ins import CODES_PER_IMAGE, mini_codec, tiny_model

from kyvo.decoding import Engine, GenerationSettings, OutputReader
from kyvo.decoding.grammar import output_automaton
from kyvo.decoding.numbers import ExpectedNumbers, Generated
from kyvo.tokens.sequences import get_task
from kyvo.tokens.vocabulary import get_vocabulary

VOCABULARY = get_vocabulary("mini")
NUMBERS = VOCABULARY.number
CODEC = mini_codec()
TASK = get_task("I-3")


def mean_around(logits_V, chosen, allowed):
    """The mean of the nine numbers around ``chosen`` by their probabilities, id by id."""
    total = weight = 0.0
    for token in range(chosen - 4, chosen + 5):
        if token in NUMBERS and token in allowed:
            share = np.exp(float(logits_V[token]) - float(logits_V[chosen]))
            total += share * float(VOCABULARY.token_string(token))
            weight += share
    return total / weight


@pytest.mark.parametrize("has_head_ids", [False, True])
def test_the_mean_of_the_bins_around_the_chosen_one(has_head_ids):
    torch.manual_seed(0)
    logits_BV = 3 * torch.randn(4, VOCABULARY.size)
    ids = [NUMBERS.start + 1, NUMBERS.start + 60, NUMBERS.stop - 1, VOCABULARY.marker.start]
    head_ids = None
    if has_head_ids:
        # Every second number alone: those between are no bins.
        head_ids = torch.cat([torch.arange(NUMBERS.start + 1, NUMBERS.stop, 2), torch.tensor(ids)])
        head_ids = head_ids.unique()
    numbers = ExpectedNumbers(VOCABULARY, head_ids, torch.device("cpu"))
    seen = logits_BV if head_ids is None else logits_BV[:, head_ids]
    found = numbers(seen, torch.tensor(ids)).tolist()
    for row, token in enumerate(ids[:3]):
        bins = sorted(number_ids(head_ids))
        place = bins.index(token)
        near = bins[max(place - 4, 0) : place + 5]
        shares = np.exp([float(logits_BV[row, t]) for t in near])
        values = [float(VOCABULARY.token_string(t)) for t in near]
        assert found[row] == pytest.approx(np.dot(shares, values) / shares.sum(), abs=1e-5)
    assert np.isnan(found[3])


def number_ids(head_ids):
    ids = range(VOCABULARY.size) if head_ids is None else head_ids.tolist()
    return [token for token in ids if token in NUMBERS]


@pytest.mark.parametrize("compiled", [False, True])
def test_an_engine_says_what_an_uncached_model_says(compiled):
    model = tiny_model(seed=3, max_seq_len=400)
    automaton = output_automaton(TASK, CODEC, CODES_PER_IMAGE)
    settings = GenerationSettings(
        VOCABULARY.eos, 90, automaton=automaton, compiled=compiled, numbers=VOCABULARY
    )
    prompts = [np.array([0, 5, 9, 12 + i]) for i in range(3)]
    found = dict(Engine(model, settings, 2, 200).generate(prompts))
    allowed = set(automaton.possible_ids.tolist())
    num_numbers = 0
    for place, prompt in enumerate(prompts):
        ids, values = found[place].ids, found[place].values
        whole = torch.from_numpy(np.concatenate([prompt, ids]))[None]
        with torch.no_grad():
            logits_LV = model(whole)[0, len(prompt) - 1 :]
        for step, (token, value) in enumerate(zip(ids, values, strict=True)):
            if token not in NUMBERS:
                assert np.isnan(value)
                continue
            num_numbers += 1
            assert value == pytest.approx(mean_around(logits_LV[step], token, allowed), abs=1e-4)
    assert num_numbers > 5


def test_nobody_asked_nothing_is_kept():
    settings = GenerationSettings(VOCABULARY.eos, 8)
    found = dict(Engine(tiny_model(), settings, 1, 64).generate([np.array([2, 3])]))
    assert found[0].values is None


def test_a_scene_has_the_numbers_that_its_ids_stand_for():
    scene = CODEC.schema.parse_scene(
        [
            {
                "size": "large",
                "color": "red",
                "material": "metal",
                "shape": "cube",
                "3d_coords": [0.5, -1.0, 0.7],
            }
        ],
        "test",
    )
    ids = np.array([*CODEC.encode(scene), VOCABULARY.eos])
    values = np.full(len(ids), np.nan, dtype=np.float32)
    places = [i for i, token in enumerate(ids) if token in NUMBERS]
    values[places[:2]] = 0.5123, -0.98764
    reader = OutputReader(TASK, CODEC, CODES_PER_IMAGE, "generated")
    (item,) = reader.read(Generated(ids, values)).scene.objects
    assert item.position == (0.5123, -0.9876, 0.7)
    assert reader.read(Generated(ids)).scene == scene
