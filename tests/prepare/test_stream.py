"""Samples from the world itself: against images rendered and encoded one by one, and by place."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from vqgan_fixtures import SMALL, with_named_weights

from kyvo.common.errors import InputError
from kyvo.data.batches import BatchSettings
from kyvo.images.checkpoint import load_vqgan, save_vqgan
from kyvo.images.codec import ImageCodec
from kyvo.images.vqgan import VQGAN
from kyvo.prepare.stream import WorldStream, world_stream
from kyvo.tokens.sequences import IGNORED_LABEL
from kyvo.tokens.vocabulary import OUTPUT_START, get_vocabulary
from kyvo.world import tasks as world_tasks
from kyvo.world.render.tracer import render

VOCABULARY = get_vocabulary("mini")
SIZE = 16
EASY = {"min_objects": 1, "max_objects": 3, "min_visible_share": 0.0}
TASKS = {"I-3": 1, "3-I": 1, "I+3+T-I+3": 1, "I+3+Q-A": 1}
SETTINGS = BatchSettings(3, seed=0)


@pytest.fixture(scope="module")
def vqgan(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vqgan")
    shape = replace(SMALL, resolution=SIZE, n_embed=VOCABULARY.num_image_codes)
    save_vqgan(with_named_weights(VQGAN(shape)), folder, "small")
    return folder


@pytest.fixture
def make(vqgan):
    def stream(**choices) -> WorldStream:
        values = {
            "vocabulary": VOCABULARY,
            "scene_schema": "clevr",
            "tasks": TASKS,
            "num_samples": 24,
            "options": {**EASY, "min_objects": 2},
            "image_size": SIZE,
            "vqgan": str(vqgan),
        }
        return world_stream(**{**values, **choices})

    return stream


def rows(batches):
    """Tokens of every sample by key, without padding."""
    found = {}
    for batch in batches:
        for key, tokens in zip(batch.keys, batch.tokens_BL, strict=True):
            found[key] = tokens.tolist()
    return found


@pytest.mark.parametrize("pixel_tokens", [None, 4])
def test_a_placed_batch_is_what_its_images_say_one_by_one(make, vqgan, pixel_tokens):
    """Render and encode every scene alone, and build the sample from its codes."""
    stream = make(pixel_tokens=pixel_tokens)
    codec = ImageCodec(load_vqgan(vqgan), precision="fp32")
    maker, num_images = stream.maker, 0
    for batch in stream.batches(0, 0, SETTINGS):
        placed = stream.place(batch, torch.device("cpu"))
        assert int(placed.tokens_BL.max()) < VOCABULARY.size
        assert int(placed.labels_N.max()) < VOCABULARY.size
        for row, key in enumerate(batch.keys):
            (streamed,) = maker.make([int(key.split("/")[1])])
            images = [render([scene], SIZE, SIZE, 2, seed=batch.noise) for scene in streamed.coded]
            codes = [codec.encode(image).reshape(-1) for image in images]
            expected = streamed.sample.tokens.copy()
            is_code = expected >= VOCABULARY.size
            if images:
                flat = np.concatenate(codes) + VOCABULARY.image.start
                expected[is_code] = flat[expected[is_code] - VOCABULARY.size]
            length = min(len(expected), placed.tokens_BL.shape[1])
            assert placed.tokens_BL[row, :length].tolist() == expected[:length].tolist()
            num_images += len(images)
            if streamed.read is not None:
                (image,) = render([streamed.read], SIZE, SIZE, 2, seed=batch.noise)
                assert (placed.pixels_BHWC[row].numpy() == image).all()
        width = placed.tokens_BL.shape[1]
        for position, label in zip(placed.positions_N, placed.labels_N, strict=True):
            line, column = divmod(int(position), width)
            if column + 1 < width:
                assert placed.tokens_BL[line, column + 1] == label
    assert num_images > 8
    assert (pixel_tokens is None) == (num_images > 24)


@pytest.mark.parametrize("workers", [0, 2])
def test_any_part_of_a_stream_is_had_from_its_place(make, workers, monkeypatch):
    monkeypatch.setattr("kyvo.prepare.stream.DRAWN_TOGETHER", 48)
    stream = make(num_samples=150)
    settings = BatchSettings(3, seed=0, num_workers=workers)
    whole = [batch.keys for batch in stream.batches(0, 0, SETTINGS)]
    assert sorted(key for keys in whole for key in keys) == sorted(f"train/{i}" for i in range(150))
    for first in (1, 17, 48):
        rest = [batch.keys for batch in stream.batches(0, first, settings)]
        assert rest == whole[first:]


def test_a_sample_does_not_depend_on_its_company(make):
    maker = make().maker
    together = maker.make(range(12))
    for index in (11, 3):
        (alone,) = maker.make([index])
        assert alone.sample.tokens.tolist() == together[index].sample.tokens.tolist()


def test_epochs_splits_and_seeds_share_no_sample(make):
    streams = [make(), make(split="val"), make(seed=1)]
    found = [tuple(rows([b])[b.keys[0]]) for s in streams for b in s.batches(0, 0, SETTINGS)]
    found += [tuple(rows([b])[b.keys[0]]) for b in streams[0].batches(1, 0, SETTINGS)]
    assert len(set(found)) == len(found)
    epochs = [streams[0].batches(epoch, 0, SETTINGS) for epoch in (0, 1)]
    assert len({key for batches in epochs for b in batches for key in b.keys}) == 48


def test_batches_differ_in_their_noise_and_keep_it(make):
    noises = [batch.noise for batch in make(num_samples=60).batches(0, 0, SETTINGS)]
    assert len(set(noises)) > 15
    assert min(noises) > 1000
    assert noises == [batch.noise for batch in make(num_samples=60).batches(0, 0, SETTINGS)]


def test_remainders_give_back_the_true_numbers(make):
    """Grid value plus remainder is the scene's own coordinate, off the grid."""
    stream = make(tasks={"I-3": 1}, num_samples=6)
    for batch in stream.batches(0, 0, SETTINGS):
        is_number = (batch.labels_N >= VOCABULARY.number.start) & (
            batch.labels_N < VOCABULARY.number.stop
        )
        width = batch.tokens_BL.shape[1]
        for row, key in enumerate(batch.keys):
            mine = is_number & (batch.positions_N // width == row)
            strings = [VOCABULARY.token_string(int(i)) for i in batch.labels_N[mine]]
            found = np.array([float(s) for s in strings]) + batch.remainders_N[mine].numpy()
            index, options = int(key.split("/")[1]), stream.maker.options
            (item,) = world_tasks.TASKS["scenes"].sample_many([index], "train", 0, options)
            true = [x for o in item.scenes[""].to_json()["objects"] for x in o["3d_coords"]]
            np.testing.assert_allclose(sorted(found), sorted(true), atol=1e-5)


def test_shares_are_kept(make):
    made = make(tasks={"I-3": 3, "3-I": 1}).maker.make(range(400))
    is_image = [bool((item.sample.labels >= VOCABULARY.image.start).any()) for item in made]
    assert 70 < sum(is_image) < 130


def test_no_vqgan_is_needed_where_no_image_is_code(make):
    stream = make(tasks={"I-3": 1}, vqgan=None, pixel_tokens=4)
    assert stream.codes_per_image == 0
    (batch, *_) = stream.batches(0, 0, SETTINGS)
    placed = stream.place(batch, torch.device("cpu"))
    assert placed.pixels_BHWC.shape == (3, SIZE, SIZE, 3)
    assert (placed.labels_N != IGNORED_LABEL).all()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"tasks": {}}, "expected task: share"),
        ({"tasks": {"I-3": 0}}, "shares above 0"),
        ({"tasks": {"I-4": 1}}, "no task 'I-4'"),
        ({"split": "test"}, "expected train or val"),
        ({"num_samples": 0}, "numbers of 1 or more"),
        ({"vqgan": None}, "give vqgan"),
        ({"image_size": 32}, "for images of 16 pixels"),
        ({"options": {"colour": "red"}}, "have no colour"),
        ({"tasks": {"3+I+T-3+I": 1}, "pixel_tokens": 4}, "needs the image first"),
    ],
)
def test_what_cannot_be_streamed_is_refused(make, choices, message):
    with pytest.raises(InputError, match=message):
        make(**choices)


def test_a_sample_asks_several_questions_about_its_scene(make):
    """One question is the sample without further ones; every answer is the scene's own."""
    tasks = {"I+3+Q-A": 1}
    (one,) = make(tasks=tasks).maker.make([3])
    (three,) = make(tasks=tasks, questions_per_scene=3).maker.make([3])
    assert three.sample.num_turns == 3
    assert three.sample.tokens[: len(one.sample.tokens) - 1].tolist() == (
        one.sample.tokens[:-1].tolist()
    )
    assert np.count_nonzero(three.sample.labels == VOCABULARY.eos) == 3
    asked = np.count_nonzero(three.sample.tokens == VOCABULARY.marker_id(OUTPUT_START))
    assert asked == 3
    assert make(tasks={"I-3": 1}, questions_per_scene=3).maker.make([3])[0].sample.num_turns == 1
