"""Cached, batched decoding equals asking the whole model again for every token.

Shapes: B samples, L positions, V ids.
"""

import numpy as np
import pytest
import torch
from kyvo_stand_ins import golden, golden_model, tiny_model

from kyvo.decoding import DecodeEngine, Generator, Sampling
from kyvo.errors import InputError
from kyvo.vocabulary import get_vocabulary

EOS = get_vocabulary("mini").eos
BATCH_SIZES = (1, 2, 5, 13, 40)


def random_prompts(seed=0, count=13):
    random = np.random.default_rng(seed)
    return [random.integers(2, 1159, size=n) for n in random.integers(1, 70, size=count)]


def model_that_ends():
    """EOS is likely enough that samples end at different times."""
    model = tiny_model()
    with torch.no_grad():
        model.output.weight[EOS] *= 1.7
    return model


@torch.inference_mode()
def uncached(model, prompt, eos, num_new):
    """Greedy ids, and at each the lead of the first choice over the second."""
    ids, leads = prompt.tolist(), []
    while len(leads) < num_new and (not leads or ids[-1] != eos):
        top = model(torch.tensor([ids]))[0, -1].topk(2)
        ids.append(int(top.indices[0]))
        leads.append(float(top.values[0] - top.values[1]))
    return ids[len(prompt) :], leads


@pytest.fixture(scope="module")
def greedy():
    model, prompts = model_that_ends(), random_prompts()
    expected = [uncached(model, prompt, EOS, 40)[0] for prompt in prompts]
    lengths = {len(ids) for ids in expected}
    assert len(lengths) > 3
    assert 40 in lengths
    return model, prompts, expected


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
@pytest.mark.parametrize("order", ["as given", "reversed", "shuffled"])
def test_greedy_decoding_equals_uncached_decoding(greedy, batch_size, order):
    model, prompts, expected = greedy
    places = np.arange(len(prompts))
    if order != "as given":
        places = {"reversed": places[::-1], "shuffled": np.random.default_rng(0).permutation(13)}[
            order
        ]
    generator = Generator(model, EOS, max_new_tokens=40, batch_size=batch_size)
    found = list(generator.generate([prompts[i] for i in places]))
    assert sorted(place for place, _ in found) == list(range(len(prompts)))
    for place, ids in found:
        assert ids.tolist() == expected[places[place]]


def test_a_frozen_table_changes_no_token(greedy):
    _, prompts, expected = greedy
    model = model_that_ends()
    model.tok_embeddings.freeze_table()
    found = dict(Generator(model, EOS, 40, 5).generate(prompts))
    assert [found[i].tolist() for i in range(len(prompts))] == expected


def test_logits_of_the_engine_equal_the_models():
    model, prompts = tiny_model(), [torch.from_numpy(p) for p in random_prompts(count=4)]
    engine = DecodeEngine(model, num_rows=4, max_length=100)
    rows = [2, 0, 3, 1]
    with torch.inference_mode():
        found_BV = engine.prefill(prompts, rows)
        for prompt, logits_V in zip(prompts, found_BV, strict=True):
            torch.testing.assert_close(logits_V, model(prompt[None])[0, -1], atol=1e-4, rtol=1e-4)
        tokens_B = torch.tensor([7, 8, 9, 10])
        by_row = dict(zip(rows, prompts, strict=True))
        positions_B = torch.tensor([len(by_row[row]) for row in range(4)])
        found_BV = engine.step(tokens_B, positions_B, int(positions_B.max()) + 1)
        for row, logits_V in enumerate(found_BV):
            ids_1L = torch.cat([by_row[row], tokens_B[row : row + 1]])[None]
            torch.testing.assert_close(logits_V, model(ids_1L)[0, -1], atol=1e-4, rtol=1e-4)


def test_generation_ends_at_the_models_longest_sequence():
    model = tiny_model(max_seq_len=20)
    prompts = [np.arange(2, 2 + length) for length in (5, 18, 19)]
    found = dict(Generator(model, -1, max_new_tokens=8, batch_size=2).generate(prompts))
    assert [len(found[i]) for i in range(3)] == [8, 2, 1]
    for prompt, ids in zip(prompts, (found[i] for i in range(3)), strict=True):
        assert ids.tolist() == uncached(model, prompt, -1, len(ids))[0]


def test_a_prompt_that_leaves_no_room_is_refused():
    generator = Generator(tiny_model(max_seq_len=20), EOS, 8)
    with pytest.raises(InputError, match="a prompt has 20 tokens, but max_seq_len is 20"):
        list(generator.generate([np.arange(2, 22)]))


def test_no_prompts_give_no_samples():
    assert list(Generator(tiny_model(), EOS, 8).generate([])) == []


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_samples_draws_depend_on_its_index_alone(batch_size):
    """Whatever the batch, the order, and the other samples asked for."""
    model, prompts = model_that_ends(), random_prompts(seed=3)
    sampling = Sampling(temperature=1.3, top_k=50, top_p=0.95, seed=11)
    alone = [
        next(Generator(model, EOS, 25, 1, sampling).generate([prompt], [100 + i]))[1].tolist()
        for i, prompt in enumerate(prompts)
    ]
    chosen = np.random.default_rng(1).permutation(len(prompts))[:9]
    generator = Generator(model, EOS, 25, batch_size, sampling)
    indices = [100 + int(i) for i in chosen]
    for place, ids in generator.generate([prompts[i] for i in chosen], indices):
        assert ids.tolist() == alone[chosen[place]]
    assert len({tuple(ids) for ids in alone}) == len(prompts)


@pytest.mark.parametrize("task", ["I-3", "3-I", "I+3+T-I+3", "I+3+Q-A"])
def test_greedy_continuations_are_those_of_the_released_code(task):
    """The goldens are bfloat16: only choices with a clear lead in float32 must be the same."""
    model, num_clear = golden_model(), 0
    rows = golden("greedy_bf16.json")[task]
    prompts = [np.array(row["prompt"]) for row in rows]
    found = dict(Generator(model, 128001, 12, batch_size=3).generate(prompts))
    for i, row in enumerate(rows):
        length, ids_L = len(row["prompt"]), torch.tensor(row["generated"])
        with torch.inference_mode():
            top = model(ids_L[None, :-1])[0, length - 1 :].topk(2)
        is_clear = (top.values[:, 0] - top.values[:, 1]) > 0.04
        assert torch.equal(top.indices[is_clear, 0], ids_L[length:][is_clear])
        num_clear += int(is_clear.sum())
        same = int(is_clear.int().cumprod(0).sum())
        assert found[i][:same].tolist() == row["generated"][length : length + same]
    assert num_clear > 20


@pytest.mark.gpu
def test_greedy_decoding_on_the_gpu_equals_uncached_decoding_on_the_cpu(greedy):
    model, prompts, expected = greedy
    found = {}
    for batch_size in (1, 5, 13):
        generator = Generator(model.to("cuda"), EOS, 40, batch_size)
        found[batch_size] = [ids.tolist() for _, ids in sorted(generator.generate(prompts))]
    model.to("cpu")
    assert found == dict.fromkeys(found, expected)
