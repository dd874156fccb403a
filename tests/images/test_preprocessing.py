from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kyvo.images.preprocessing import (
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


def test_images_of_one_size_in_one_array(tmp_path: Path) -> None:
    for name, level in (("b.png", 20), ("a.png", 10)):
        Image.fromarray(np.full((6, 9, 3), level, np.uint8)).save(tmp_path / name)
    loaded = load_images([tmp_path / "b.png", tmp_path / "a.png"], 4)
    assert loaded.shape == (2, 4, 4, 3)
    assert loaded[:, 0, 0, 0].tolist() == [20, 10]
