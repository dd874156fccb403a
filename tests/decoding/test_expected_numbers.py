"""Expected-value decoding against a mean in NumPy over logits of the whole, uncached model."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from kyvo_stand_ins import (
    CODES_PER_IMAGE,
    MINI_CODEBOOK,
    TINY_SIZES,
    make_engine,
    mini_codec,
    tiny_model,
    uncached_values,
)
from scene_samples import CODECS, MINI, MINI_OBJECTRON

from kyvo.common.errors import InputError
from kyvo.decoding import OutputReader, Sampling, number_values
from kyvo.decoding import engine as engine_module
from kyvo.decoding.grammar import Automaton, output_automaton
from kyvo.models import kyvo_model
from kyvo.scenes import NumberField, Schema
from kyvo.tokens.sequences import get_task
from kyvo.tokens.vocabulary import SCENE_END

EXACT = {"rtol": 0, "atol": 2e-4}


def prompts_of(vocabulary, count=5):
    random = np.random.default_rng(2)
    return [random.integers(2, vocabulary.size, n) for n in random.integers(5, 40, count)]


def model_of(vocabulary, number_scale=1.0):
    """A tiny model with the head of its numbers scaled: above 1 likelier, below 1 less certain."""
    torch.manual_seed(0)
    model = kyvo_model(vocabulary=vocabulary, **TINY_SIZES, initial_std=0.3).eval()
    model.tok_embeddings.set_codebook(torch.from_numpy(MINI_CODEBOOK))
    with torch.no_grad():
        model.output.weight[vocabulary.number.start : vocabulary.number.stop] *= number_scale
    return model


def endless(task, codec):
    """The grammar of ``task``, without an end of its scene: random models end theirs at once."""
    automaton = output_automaton(get_task(task), codec, CODES_PER_IMAGE)
    next_SC, end = automaton.next_state.copy(), codec.vocabulary.marker_id(SCENE_END)
    next_SC[:, automaton.class_of_id[end]] = -1
    return Automaton(automaton.class_of_id, next_SC)


def generate(model, vocabulary, prompts, batch_size, num_new=45, **settings):
    """Ids and values by prompt."""
    settings = {"eos": vocabulary.eos, "max_new_tokens": num_new, **settings}
    values = number_values("expected", vocabulary)
    engine = make_engine(model, prompts, batch_size, numbers=values, **settings)
    found = dict(engine.generate(prompts))
    return [found[i] for i in range(len(prompts))]


def check(found, model, vocabulary, prompts, automaton=None, least=20):
    """All values are those of the reference; so many of them differ from their bins' numbers."""
    bins = number_values("expected", vocabulary)
    num_between = 0
    for prompt, generated in zip(prompts, found, strict=True):
        ids = generated.ids
        expected = uncached_values(model, prompt, ids.tolist(), vocabulary, automaton)
        np.testing.assert_allclose(generated.values, expected, **EXACT)
        num_between += int((np.abs(generated.values - bins[ids]) > 0.005).sum())
    assert num_between >= least


@pytest.mark.parametrize("batch_size", [1, 3, 5])
@pytest.mark.parametrize("name", ["clevr", "objaworld", "objectron"])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(1.5, top_k=9)], ids=["greedy", "drawn"])
def test_with_a_grammar_values_are_means_over_the_axis_own_bins(name, batch_size, sampling):
    codec = CODECS[name]
    vocabulary, model = codec.vocabulary, model_of(codec.vocabulary, number_scale=0.3)
    automaton = endless("I-3", codec)
    prompts = prompts_of(vocabulary)
    settings = {"sampling": sampling, "automaton": automaton}
    found = generate(model, vocabulary, prompts, batch_size, **settings)
    check(found, model, vocabulary, prompts, automaton)


@pytest.mark.parametrize("vocabulary", [MINI, MINI_OBJECTRON], ids=lambda v: v.name)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(3.0)], ids=["greedy", "drawn"])
def test_without_a_grammar_values_are_means_over_neighbouring_ids(vocabulary, sampling):
    model, prompts = model_of(vocabulary, number_scale=1.5), prompts_of(vocabulary, count=13)
    found = generate(model, vocabulary, prompts, 3, sampling=sampling)
    check(found, model, vocabulary, prompts)
    is_number = np.isin(np.concatenate([x.ids for x in found]), np.r_[slice(*block(vocabulary))])
    assert 20 < is_number.sum() < len(is_number)


def block(vocabulary):
    return vocabulary.number.start, vocabulary.number.stop


@pytest.mark.parametrize("place", ["first", "last"])
def test_at_the_ends_of_the_numbers_no_other_token_counts(place):
    """The ids beside the block are likelier than all numbers but the chosen one."""
    start, stop = block(MINI)
    model, prompts = model_of(MINI), prompts_of(MINI)
    chosen = {"first": start, "last": stop - 1}[place]
    with torch.no_grad():
        head = torch.zeros_like(model.output.weight)
        head[chosen - 6 : chosen + 7] = 0.5 * model.output.weight[chosen]
        head[start + 1 : stop - 1] *= 0.9
        head[chosen] = model.output.weight[chosen]
        model.output.weight.copy_(head)
    found = generate(model, MINI, prompts, 2, num_new=12)
    assert any(chosen in generated.ids for generated in found)
    check(found, model, MINI, prompts, least=5)


def test_an_axis_of_one_number_has_that_number():
    """It is deterministic: half of these tokens go along with the token before (jump-forward)."""
    codec = mini_codec()
    (*words, place) = codec.schema.fields
    assert isinstance(place, NumberField)
    x, y, z = place.axes
    axes = (dataclasses.replace(x, grid=(0.35,)), y, dataclasses.replace(z, grid=(-1.25,)))
    fields = (*words, dataclasses.replace(place, axes=axes))
    fixed = dataclasses.replace(codec, schema=Schema("fixed", fields, decimals=3))
    automaton = endless("I-3", fixed)
    model, prompts = tiny_model(), prompts_of(MINI)
    found = generate(model, MINI, prompts, 3, automaton=automaton)
    check(found, model, MINI, prompts, automaton, least=5)
    for generated in found:
        scene, _ = fixed.read(generated.ids.tolist(), generated.values.tolist())
        whole = [item.position for item in scene.objects if item.position]
        assert {(x, z) for x, _, z in whole} == {(0.35, -1.25)}


def test_ids_are_those_without_values():
    codec = mini_codec()
    automaton = endless("I-3", codec)
    model, prompts = tiny_model(), prompts_of(MINI, count=7)
    found = generate(model, MINI, prompts, 3, automaton=automaton)
    settings = {"eos": MINI.eos, "max_new_tokens": 45, "automaton": automaton}
    best = dict(make_engine(model, prompts, 3, **settings).generate(prompts))
    assert [x.ids.tolist() for x in found] == [best[i].ids.tolist() for i in range(7)]
    assert all(generated.values is None for generated in best.values())


@pytest.mark.parametrize("steps", [1, 7])
def test_slots_that_have_ended_change_no_value(steps, monkeypatch):
    monkeypatch.setattr(engine_module, "STEPS_PER_SYNC", {"cpu": steps})
    model, prompts = model_of(MINI, number_scale=1.5), prompts_of(MINI, count=9)
    with torch.no_grad():
        model.output.weight[MINI.eos] *= 2
    found = generate(model, MINI, prompts, 4)
    assert len({len(generated.ids) for generated in found}) > 2
    check(found, model, MINI, prompts)


def test_of_prompts_with_pixels_each_image_gives_its_own_values():
    """In any slot, with and without an image; the reference is shown the image anew each time."""
    shape = {"num_tokens": 4, "image_size": 8, "kind": "pixels", "prefix": True}
    model, automaton = tiny_model(image_input=shape), endless("I-3", mini_codec())
    start, end = MINI.brackets("image")
    prompt = np.array([MINI.bos, start, *[MINI.image.start] * 4, end, 5, 6])
    prompts = [prompt, prompt, np.array([MINI.bos, 5, 6]), prompt, prompt[:8]]
    random = np.random.default_rng(1)
    images = [random.integers(256, size=(8, 8, 3), dtype=np.uint8) for _ in prompts]
    shown = [image if len(p) > 3 else None for image, p in zip(images, prompts, strict=True)]
    settings = {"eos": MINI.eos, "max_new_tokens": 30, "automaton": automaton}
    engine = make_engine(model, prompts, 2, numbers=number_values("expected", MINI), **settings)
    found = dict(engine.generate(prompts, images=shown))
    assert not np.array_equal(found[0].values, found[1].values, equal_nan=True)
    for place, prompt in enumerate(prompts):
        sees = partial(model, pixels_BHWC=torch.from_numpy(images[place][None]))
        ids = found[place].ids.tolist()
        expected = uncached_values(sees, prompt, ids, MINI, automaton)
        np.testing.assert_allclose(found[place].values, expected, **EXACT)
        assert np.isfinite(expected).sum() > 3


def test_outputs_without_numbers_have_no_values():
    automaton = output_automaton(get_task("3-I"), mini_codec(), CODES_PER_IMAGE)
    found = generate(tiny_model(), MINI, prompts_of(MINI), 3, automaton=automaton)
    assert all(generated.values is None for generated in found)


@pytest.mark.parametrize("task", ["I-3", "I+3+T-I+3"])
def test_values_reach_the_scenes_that_are_read(task):
    """Behind an image too; numbers have two decimals more than the grid's."""
    codec = mini_codec()
    automaton = endless(task, codec)
    model, prompts = tiny_model(), prompts_of(MINI)
    reader = OutputReader(get_task(task), codec, CODES_PER_IMAGE, "generated")
    num_numbers = 0
    for generated in generate(model, MINI, prompts, 5, num_new=80, automaton=automaton):
        scene = reader.read(generated.ids, generated.values).scene
        numbers = [x for item in scene.objects for x in item.position]
        values = generated.values[~np.isnan(generated.values)]
        assert numbers == [round(float(x), 5) for x in values[: len(numbers)]]
        assert len(values) - len(numbers) < 3  # of an object that was cut short
        on_grid = reader.read(generated.ids).scene
        for item, coarse in zip(scene.objects, on_grid.objects, strict=True):
            assert item.words == coarse.words
            assert np.abs(np.subtract(item.position, coarse.position)).max(initial=0) <= 0.2
        num_numbers += len(numbers)
    assert num_numbers > 20


def test_other_settings_than_the_two_are_refused():
    assert number_values("best", MINI) is None
    with pytest.raises(InputError, match="numbers: expected best or expected, found 'mean'"):
        number_values("mean", MINI)
