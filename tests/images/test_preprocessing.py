from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kyvo.common.errors import InputError
from kyvo.images.preprocessing import (
    list_images,
    load_image,
    load_images,
    to_model_range,
    to_uint8,
)


def test_every_value_survives_the_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    images = to_model_range(levels)
    assert images.shape == (1, 3, 16, 16)
    assert (images.min(), images.max()) == (-1, 1)
    assert np.array_equal(to_uint8(images), levels)


def test_values_outside_the_range_are_clipped() -> None:
    images = torch.tensor([-1.7, 0.0, 3.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    assert to_uint8(images)[0, 0, :, 0].tolist() == [0, 128, 255]


def test_the_whole_frame_is_squeezed(tmp_path: Path) -> None:
    wide = np.zeros((60, 160, 3), np.uint8)
    wide[:, :80, 0], wide[:, 80:, 2] = 200, 100
    Image.fromarray(wide).save(tmp_path / "wide.png")
    small = load_image(tmp_path / "wide.png", 40)
    assert small.shape == (40, 40, 3)
    assert (small[:, :17] == [200, 0, 0]).all()
    assert (small[:, 23:] == [0, 0, 100]).all()


def test_right_size_is_not_touched(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "b.png")
    Image.fromarray(noise[::-1].copy()).convert("RGBA").save(tmp_path / "a.png")
    (tmp_path / "note.txt").write_text("no image")
    loaded = load_images(list_images(tmp_path), 8)
    assert np.array_equal(loaded, np.stack([noise[::-1], noise]))


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no \.png files"):
        list_images(tmp_path)


def test_unreadable_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.png"
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(InputError, match=r"p\.png: not readable"):
        load_image(path, 8)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(path)
    with pytest.raises(InputError, match="8 bits per channel"):
        load_image(path, 8)
    with pytest.raises(InputError, match="no such file"):
        load_image(tmp_path / "missing.png", 8)
