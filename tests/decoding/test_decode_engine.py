"""Cached, batched decoding equals asking the whole model again for every token.

Shapes: B samples, L positions, V ids.
"""

import gc
import weakref

import numpy as np
import pytest
import torch
from kyvo_stand_ins import (
    CODES_PER_IMAGE,
    generate,
    golden,
    golden_model,
    make_engine,
    mini_codec,
    tiny_model,
    uncached_values,
)
from torch._dynamo.testing import CompileCounterWithBackend

from kyvo.common.errors import InputError
from kyvo.decoding import Engine, GenerationSettings, Sampling, number_values
from kyvo.decoding import engine as engine_module
from kyvo.decoding.grammar import output_automaton
from kyvo.models.kv_cache import masked_attention
from kyvo.tokens.sequences import get_task
from kyvo.tokens.vocabulary import get_vocabulary

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
    found = generate(model, [prompts[i] for i in places], EOS, 40, batch_size)
    assert found == {place: expected[i] for place, i in enumerate(places)}


@pytest.fixture
def graphs(monkeypatch):
    """Counts what torch.compile traces, and runs it as it was traced.

    A function with more graphs than PyTorch allows would go on uncompiled; here it fails.
    """
    counter, compile_ = CompileCounterWithBackend("eager"), torch.compile
    torch.compiler.reset()
    monkeypatch.setattr(
        torch,
        "compile",
        lambda function, dynamic=None, options=None: compile_(
            function, backend=counter, dynamic=dynamic
        ),
    )
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        yield counter
    torch.compiler.reset()


@pytest.mark.slow
def test_compiled_decoding_changes_no_token_and_compiles_little(greedy, graphs):
    model, prompts, expected = greedy
    compiled_before = []
    for batch_size in (5, 3, 1, 13, 7, 4):
        found = generate(model, prompts, EOS, 40, batch_size, compiled=True)
        assert [found[i] for i in range(len(prompts))] == expected
        compiled_before.append(graphs.frame_count)
    # One layer's graphs are all layers'; from the second batch size on, sizes are left open.
    assert compiled_before[0] > 0
    assert compiled_before[2] == compiled_before[-1]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["I-3", "3-I"])
def test_compiled_steps_change_what_a_slot_has_in_its_place(task, graphs, monkeypatch):
    """And choose what the uncompiled ones choose."""
    model, prompts = model_that_ends(), random_prompts(seed=5, count=4)
    automaton = output_automaton(get_task(task), mini_codec(), CODES_PER_IMAGE)
    places = set()
    collect = engine_module._Batch.collect

    def recording(batch, scheduler):
        state = batch.state
        tensors = (state.ids_BN, state.counts_B, state.states_B, state.active_B, state.values_BN)
        places.add(tuple(tensor.data_ptr() for tensor in tensors if tensor is not None))
        return collect(batch, scheduler)

    monkeypatch.setattr(engine_module._Batch, "collect", recording)
    numbers = number_values("expected", get_vocabulary("mini"))
    settings = {"eos": EOS, "max_new_tokens": 60, "automaton": automaton, "numbers": numbers}
    found, expected = (
        dict(make_engine(model, prompts, 3, compiled=compiled, **settings).generate(prompts))
        for compiled in (True, False)
    )
    assert len(places) == 2
    for place, generated in expected.items():
        assert found[place].ids.tolist() == generated.ids.tolist()
        assert (generated.values is not None) == (task == "I-3")
        if task == "I-3":
            np.testing.assert_allclose(found[place].values, generated.values, atol=1e-5)
    assert graphs.frame_count > 0


@pytest.mark.slow
def test_a_compiled_engine_is_freed_with_its_last_user(graphs):
    model = tiny_model()
    engine = Engine(model, GenerationSettings(EOS, 4, compiled=True), 3, 50)
    assert len(list(engine.generate([np.array([2, 3]), np.array([4])]))) == 2
    cache = weakref.ref(engine.cache.tensors[0][0])
    gc.disable()
    try:
        del engine
        assert cache() is None
    finally:
        gc.enable()


def test_long_prompts_are_read_in_parts(greedy, monkeypatch):
    model, prompts, expected = greedy
    monkeypatch.setattr("kyvo.decoding.engine.PREFILL_TOKENS", 70)
    found = generate(model, prompts, EOS, 40, 13)
    assert [found[i] for i in range(len(prompts))] == expected


def test_a_materialized_table_changes_no_token(greedy):
    _, prompts, expected = greedy
    model = model_that_ends()
    model.tok_embeddings.materialize_table()
    found = generate(model, prompts, EOS, 40, 5)
    assert [found[i] for i in range(len(prompts))] == expected


@torch.inference_mode()
def uncached_constrained(model, prompt, automaton, num_new):
    """Greedy ids among those that the automaton allows, asking the whole model for each."""
    ids, state = prompt.tolist(), 0
    while len(ids) < len(prompt) + num_new and (len(ids) == len(prompt) or ids[-1] != EOS):
        logits_V = model(torch.tensor([ids]))[0, -1]
        forbidden_V = automaton.next_state[state, automaton.class_of_id] < 0
        logits_V[torch.from_numpy(forbidden_V)] = float("-inf")
        ids.append(int(logits_V.argmax()))
        state = automaton.next_state[state, automaton.class_of_id[ids[-1]]]
    return ids[len(prompt) :]


@pytest.mark.parametrize("task", ["I-3", "3-I", "I+3+Q-A"])
@pytest.mark.parametrize("batch_size", [1, 3, 13])
def test_jumping_forward_and_a_smaller_head_change_no_token(task, batch_size):
    model, prompts = model_that_ends(), random_prompts(seed=5)
    with torch.no_grad():
        for marker in ("[SCENE-END]", "[TEXT-END]"):
            model.output.weight[get_vocabulary("mini").marker_id(marker)] *= 2
    automaton = output_automaton(get_task(task), mini_codec(), CODES_PER_IMAGE)
    found = generate(model, prompts, EOS, 45, batch_size, automaton=automaton)
    expected = [uncached_constrained(model, prompt, automaton, 45) for prompt in prompts]
    assert [found[i] for i in range(len(prompts))] == expected
    ended = [ids[-1] == EOS for ids in expected]
    assert any(ended)
    assert task == "3-I" or not all(ended)


def test_jumping_forward_saves_steps(monkeypatch):
    """An object of CLEVR has 14 ids, 8 of them chosen."""
    steps = []
    decode = Engine.decode
    monkeypatch.setattr(Engine, "decode", lambda *args: (steps.append(1), decode(*args))[1])
    automaton = output_automaton(get_task("I-3"), mini_codec(), CODES_PER_IMAGE)
    prompts = random_prompts()
    found = generate(tiny_model(), prompts, EOS, 141, 1, automaton=automaton)
    num_ids = sum(map(len, found.values()))
    assert num_ids > 20 * len(prompts)
    assert len(steps) <= num_ids * 8 / 14 + 2 * len(prompts)


def test_slots_that_have_ended_touch_nothing_while_others_go_on(greedy, monkeypatch):
    """A GPU is asked every few steps only which slots have ended."""
    monkeypatch.setattr(engine_module, "STEPS_PER_SYNC", {"cpu": 7})
    model, prompts, expected = greedy
    for batch_size in BATCH_SIZES:
        found = generate(model, prompts, EOS, 40, batch_size)
        assert [found[i] for i in range(len(prompts))] == expected


def test_int8_weights_change_logits_little_and_the_model_not_at_all():
    model, prompt = tiny_model(), torch.arange(2, 30)
    with torch.inference_mode():
        expected = model(prompt[None])[0, -1]
        settings = GenerationSettings(EOS, 4, quantization="int8")
        found = Engine(model, settings, 1, 40).prefill([prompt], [0])[0]
        assert 0 < (found - expected).norm() / expected.norm() < 0.05
        assert torch.equal(model(prompt[None])[0, -1], expected)


def test_a_model_can_be_trained_after_decoding(greedy):
    """The engine has copies of weights; the model's own stay where they are, ordinary tensors."""
    model = tiny_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    places = {name: weight.data_ptr() for name, weight in model.state_dict().items()}
    generate(model, [np.array([2, 3, 4])], EOS, 4)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name
        assert weight.data_ptr() == places[name]
    model(torch.tensor([[2, 3, 4]])).sum().backward()
    assert model.layers[0].attn.q_proj.weight.grad.abs().sum() > 0


def test_logits_of_the_engine_equal_the_models():
    model, prompts = tiny_model(), [torch.from_numpy(p) for p in random_prompts(count=4)]
    engine = Engine(model, GenerationSettings(EOS, 4), num_slots=4, max_length=100)
    slots = [2, 0, 3, 1]
    with torch.inference_mode():
        found_BV = engine.prefill(prompts, slots)
        for prompt, logits_V in zip(prompts, found_BV, strict=True):
            torch.testing.assert_close(logits_V, model(prompt[None])[0, -1], atol=1e-4, rtol=1e-4)
        tokens_BT = torch.tensor([[7, 17], [8, 18], [9, 19], [10, 20]])
        num_real = torch.tensor([1, 2, 2, 1])
        by_slot = dict(zip(slots, prompts, strict=True))
        lengths_B1 = torch.tensor([[len(by_slot[slot])] for slot in range(4)])
        positions_BT = lengths_B1 + torch.arange(2)
        found_BV = engine.decode(tokens_BT, positions_BT, num_real - 1, int(positions_BT.max()) + 1)
        for slot, logits_V in enumerate(found_BV):
            ids_1L = torch.cat([by_slot[slot], tokens_BT[slot, : num_real[slot]]])[None]
            torch.testing.assert_close(logits_V, model(ids_1L)[0, -1], atol=1e-4, rtol=1e-4)


def test_generation_ends_at_the_models_longest_sequence():
    model = tiny_model(max_seq_len=20)
    prompts = [np.arange(2, 2 + length) for length in (5, 18, 19)]
    found = generate(model, prompts, -1, 8, 2)
    assert [len(found[i]) for i in range(3)] == [8, 2, 1]
    for prompt, ids in zip(prompts, (found[i] for i in range(3)), strict=True):
        assert ids == uncached(model, prompt, -1, len(ids))[0]


def test_a_prompt_that_leaves_no_room_is_refused():
    model = tiny_model(max_seq_len=20)
    with pytest.raises(InputError, match="a prompt has 20 tokens, but max_seq_len is 20"):
        generate(model, [np.arange(2, 22)], EOS, 8)


def test_no_prompts_give_no_samples():
    assert generate(tiny_model(), [], EOS, 8) == {}


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_a_samples_draws_depend_on_its_index_alone(batch_size):
    """Whatever the batch, the order, and the other samples asked for."""
    model, prompts = model_that_ends(), random_prompts(seed=3)
    sampling = Sampling(temperature=1.3, top_k=50, top_p=0.95, seed=11)
    alone = [
        generate(model, [prompt], EOS, 25, 1, [100 + i], sampling=sampling)[0]
        for i, prompt in enumerate(prompts)
    ]
    chosen = np.random.default_rng(1).permutation(len(prompts))[:9]
    indices = [100 + int(i) for i in chosen]
    asked = [prompts[i] for i in chosen]
    found = generate(model, asked, EOS, 25, batch_size, indices, sampling=sampling)
    assert found == {place: alone[i] for place, i in enumerate(chosen)}
    assert len({tuple(ids) for ids in alone}) == len(prompts)


@pytest.mark.parametrize("task", ["I-3", "3-I", "I+3+T-I+3", "I+3+Q-A"])
def test_greedy_continuations_are_those_of_the_released_code(task):
    """The goldens are bfloat16: only choices with a clear lead in float32 must be the same."""
    model, num_clear = golden_model(), 0
    rows = golden("greedy_bf16.json")[task]
    prompts = [np.array(row["prompt"]) for row in rows]
    found = generate(model, prompts, 128001, 12, 3)
    for i, row in enumerate(rows):
        length, ids_L = len(row["prompt"]), torch.tensor(row["generated"])
        with torch.inference_mode():
            top = model(ids_L[None, :-1])[0, length - 1 :].topk(2)
        is_clear = (top.values[:, 0] - top.values[:, 1]) > 0.04
        assert torch.equal(top.indices[is_clear, 0], ids_L[length:][is_clear])
        num_clear += int(is_clear.sum())
        same = int(is_clear.int().cumprod(0).sum())
        assert found[i][:same] == row["generated"][length : length + same]
    assert num_clear > 20


ATTENTION_SHAPES = pytest.mark.parametrize(
    ("rows", "new", "heads", "kv_heads", "width", "length"),
    [(1, 1, 32, 8, 64, 700), (3, 2, 8, 2, 8, 90), (40, 2, 32, 8, 64, 300), (2, 1, 24, 8, 128, 65)],
)


@pytest.mark.gpu
@ATTENTION_SHAPES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_attention_kernel_equals_masked_attention(
    rows, new, heads, kv_heads, width, length, dtype
):
    error = attention_error(rows, new, heads, kv_heads, width, length, dtype, "cuda")
    assert error < (1e-6 if dtype == torch.float32 else 1e-2)


@pytest.mark.slow
@pytest.mark.interpreted
@ATTENTION_SHAPES
def test_the_attention_kernel_interpreted_equals_masked_attention(
    rows, new, heads, kv_heads, width, length
):
    pytest.importorskip("triton")
    # The interpreter knows no bfloat16.
    shape = (rows, new, heads, kv_heads, width, length)
    assert attention_error(*shape, torch.float32, "cpu") < 1e-6


def attention_error(rows, new, heads, kv_heads, width, length, dtype, device):
    """Distance of the kernel's result from masked attention in float32, as a share of it."""
    from kyvo.models.triton_attention import cached_attention

    random = torch.Generator().manual_seed(rows)
    q_BTHE = torch.randn(rows, new, heads, width, generator=random)
    k_BKME, v_BKME = torch.randn(2, rows, kv_heads, length, width, generator=random)
    starts_B1 = torch.randint(length - new, (rows, 1), generator=random)
    positions_BT = starts_B1 + torch.arange(new)
    there = [x.to(device, dtype) for x in (q_BTHE, k_BKME, v_BKME)]
    found = cached_attention(*there, positions_BT.to(device)).cpu().float()
    expected = masked_attention(q_BTHE, k_BKME, v_BKME, positions_BT, length)
    return (found - expected).norm() / expected.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True])
def test_constrained_decoding_on_the_gpu_equals_uncached_decoding_on_the_cpu(compiled):
    model, prompts = model_that_ends(), random_prompts(seed=5)
    automaton = output_automaton(get_task("I-3"), mini_codec(), CODES_PER_IMAGE)
    expected = [uncached_constrained(model, prompt, automaton, 60) for prompt in prompts]
    vocabulary = get_vocabulary("mini")
    values = [
        uncached_values(model, prompt, ids, vocabulary, automaton)
        for prompt, ids in zip(prompts, expected, strict=True)
    ]
    settings = {"eos": EOS, "max_new_tokens": 60, "automaton": automaton, "compiled": compiled}
    settings["numbers"] = number_values("expected", vocabulary)
    engine = make_engine(model.to("cuda"), prompts, 5, **settings)
    found = dict(engine.generate(prompts))
    assert [found[i].ids.tolist() for i in range(len(prompts))] == expected
    for i, expected_N in enumerate(values):
        np.testing.assert_allclose(found[i].values, expected_N, rtol=0, atol=1e-3)


@pytest.mark.gpu
def test_greedy_decoding_on_the_gpu_equals_uncached_decoding_on_the_cpu(greedy):
    model, prompts, expected = greedy
    on_gpu, found = model_that_ends().to("cuda"), {}
    on_gpu.load_state_dict(model.state_dict())
    for batch_size in (1, 5, 13):
        ids = generate(on_gpu, prompts, EOS, 40, batch_size)
        found[batch_size] = [ids[i] for i in range(len(prompts))]
    assert found == dict.fromkeys(found, expected)


def check_an_engine_that_lives(model, prompts, expected, **settings):
    """Calls of all sizes through one engine; what it was built of stays in its place."""
    engine = make_engine(model, prompts, 5, eos=EOS, max_new_tokens=40, **settings)
    places, steps = {t.data_ptr() for kv in engine.cache.tensors for t in kv}, {}
    for chosen in ([0], [0, 1, 2], list(range(13)), [4], [12, 3], list(range(13))):
        found = dict(engine.generate([prompts[i] for i in chosen]))
        assert [found[k].ids.tolist() for k in range(len(chosen))] == [expected[i] for i in chosen]
        for size, batch in engine._batches.items():
            assert steps.setdefault(size, (batch, batch.replay)) == (batch, batch.replay)
    assert {t.data_ptr() for kv in engine.cache.tensors for t in kv} == places
    assert sorted(steps) == [1, 2, 4, 5]
    return engine


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_engine_is_built_once_and_serves_many_calls(greedy, compiled, graphs):
    engine = check_an_engine_that_lives(*greedy, compiled=compiled)
    # A call that was left half-way does not show in the next one.
    _, prompts, expected = greedy
    next(engine.generate(prompts))
    assert dict(engine.generate(prompts[:1]))[0].ids.tolist() == expected[0]


def test_another_call_ends_the_one_before(greedy):
    model, prompts, _ = greedy
    engine = make_engine(model, prompts, 2, eos=EOS, max_new_tokens=40)
    first = engine.generate(prompts)
    next(first)
    second = dict(engine.generate(prompts))
    assert len(second) == len(prompts)
    with pytest.raises(RuntimeError, match="one at a time"):
        list(first)


@pytest.mark.gpu
def test_an_engine_that_lives_replays_its_graphs(greedy):
    model, prompts, expected = greedy
    on_gpu = model_that_ends().to("cuda")
    on_gpu.load_state_dict(model.state_dict())
    check_an_engine_that_lives(on_gpu, prompts, expected)
