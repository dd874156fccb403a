"""A data set whose input images are read as pixels: no codes of them are needed."""

import json
from pathlib import Path

import numpy as np
import pytest
from kyvo_stand_ins import sources, write_data
from PIL import Image

from kyvo.common.errors import InputError
from kyvo.data.batches import BatchSettings
from kyvo.data.dataset import kyvo_dataset
from kyvo.tokens.vocabulary import get_vocabulary

VOCABULARY = get_vocabulary("mini")
PIXELS = {"pixel_tokens": 4, "image_size": 8}


@pytest.fixture
def paths(tmp_path):
    paths = write_data(tmp_path, num_samples=5)
    keys = json.loads(Path(paths["three_d_source"]).read_text())
    (tmp_path / "pictures").mkdir()
    for i, key in enumerate(keys):
        image = np.full((8, 8, 3), 10 * i, dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "pictures" / f"{key}", format="png")
    return {**paths, "image_folder": str(tmp_path / "pictures")}


def make(paths, task, *names, **choices):
    chosen = {**sources(paths, *names), **PIXELS, "codes_per_image": 16, **choices}
    return kyvo_dataset(
        vocabulary=VOCABULARY, task=task, image_folder=paths["image_folder"], **chosen
    )


def test_the_image_has_its_places_and_its_pixels(paths):
    dataset = make(paths, "I-3", "three_d_source")
    start, end = VOCABULARY.brackets("image")
    for index in range(5):
        key, sample = dataset[index]
        assert sample.tokens[1] == start
        assert (sample.tokens[2:6] == VOCABULARY.image.start).all()
        assert sample.tokens[6] == end
        expected = np.asarray(Image.open(Path(paths["image_folder"]) / key))
        np.testing.assert_array_equal(sample.pixels, expected)
        assert dataset.lengths[index] == len(sample.tokens)
        assert dataset.prompt_lengths[index] == sample.prompt_length
    assert len({sample.pixels.mean() for _, sample in map(dataset.__getitem__, range(5))}) == 5


def test_a_batch_has_the_pixels_of_its_rows(paths):
    dataset = make(paths, "I-3", "three_d_source")
    (batch,) = dataset.batches(0, 0, BatchSettings(5))
    wanted = {key: sample.pixels for key, sample in map(dataset.__getitem__, range(5))}
    for key, pixels in zip(batch.keys, batch.pixels_BHWC.numpy(), strict=True):
        np.testing.assert_array_equal(pixels, wanted[key])


def test_an_image_that_is_written_keeps_its_codes(paths):
    dataset = make(paths, "3-I", "image_source", "three_d_source")
    _, sample = dataset[0]
    assert sample.pixels is None
    assert (sample.tokens >= VOCABULARY.image.start).sum() == 16


def test_the_folder_is_asked_for(paths):
    with pytest.raises(InputError, match="give image_folder"):
        make({**paths, "image_folder": None}, "I-3", "three_d_source")


def test_a_missing_image_is_named(paths):
    dataset = make(paths, "I-3", "three_d_source")
    (Path(paths["image_folder"]) / dataset.keys[2].decode()).unlink()
    with pytest.raises(InputError, match=dataset.keys[2].decode()):
        dataset[2]


def test_other_inputs_before_the_image_are_refused(paths):
    names = ("image_source", "three_d_source", "text_source", "image_target", "three_d_target")
    with pytest.raises(InputError, match="needs the image first"):
        make(paths, "3+I+T-3+I", *names)
