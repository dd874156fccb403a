"""PNG files: nothing is lost, and they are no larger than those of more effort."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kyvo.common.image_files import encode_png
from kyvo.world import render, sample_scene
from kyvo.world.clevr.sampler import SceneOptions


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_any_image_is_read_as_it_was(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    noise = random.integers(0, 256, (height, width, 3), np.uint8)
    for image in (noise, noise // 255, noise[::-1, ::-1]):
        with Image.open(io.BytesIO(encode_png(image))) as found:
            assert found.mode == "RGB"
            assert np.array_equal(np.asarray(found), image)


@pytest.mark.parametrize(("side", "samples"), [(64, 2), (128, 1)])
def test_rendered_images_make_no_larger_files_than_before(side: int, samples: int) -> None:
    scenes = [sample_scene(index, "train", 0, SceneOptions()) for index in range(3)]
    for image in render(scenes, side, side, samples):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG", compress_level=3)
        assert len(encode_png(image)) < 1.05 * len(stream.getvalue())
