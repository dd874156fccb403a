"""Pretokenised data of realistic lengths for the training benchmark, with something to learn.

The ids of a scene are a fixed function of the codes of its image, and an image's codes come from
few families, so recognition, rendering and instructions can all be learned. The store and the
data set are the project's own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kyvo.common.files import write_json
from kyvo.data.dataset import KyvoDataset, kyvo_dataset
from kyvo.tokens.vocabulary import Vocabulary

IDS_PER_OBJECT = 14
# Marker ids around a scene, and around a text.
_BRACKETS = 2
_WORDS = (8, 24)
_FAMILIES = 64


@dataclass(frozen=True)
class Shape:
    """Sizes of the data.

    Attributes:
        codes_per_image: codes of an image.
        objects: fewest and most objects of a scene.
    """

    codes_per_image: int
    objects: tuple[int, int]


def write_data(
    folder: Path, vocabulary: Vocabulary, shape: Shape, num_samples: int
) -> Mapping[str, str]:
    """Write every kind of file for ``num_samples`` samples; the paths by source name."""
    paths = {}
    for index, side in enumerate(("source", "target")):
        images, scenes = {}, {}
        for sample, (codes, scene) in enumerate(_samples(vocabulary, shape, num_samples, index)):
            key = f"sample_{sample:06d}.png"
            images[key], scenes[key] = codes.tolist(), _entry(scene)
        paths[f"image_{side}"] = _write(folder / f"image_{side}.json", images)
        paths[f"three_d_{side}"] = _write(folder / f"three_d_{side}.json", scenes)
    random = np.random.default_rng(2)
    texts = {key: _entry(_text(vocabulary, random)) for key in images}
    paths["text_source"] = _write(folder / "text_source.json", texts)
    return paths


def open_task(
    paths: Mapping[str, str], vocabulary: Vocabulary, shape: Shape, task: str
) -> KyvoDataset:
    """The project's data set of ``task`` over the files of ``write_data``."""
    return kyvo_dataset(
        vocabulary=vocabulary, task=task, codes_per_image=shape.codes_per_image, **paths
    )


def _samples(
    vocabulary: Vocabulary, shape: Shape, count: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Codes of an image and ids of its scene."""
    random = np.random.default_rng(seed)
    families = random.integers(vocabulary.num_image_codes, size=(_FAMILIES, shape.codes_per_image))
    first, span = vocabulary.number.start, vocabulary.marker.stop - vocabulary.number.start
    least, most = shape.objects
    for _ in range(count):
        codes = families[random.integers(_FAMILIES)].copy()
        num_objects = int(random.integers(least, most + 1))
        size = _BRACKETS + IDS_PER_OBJECT * num_objects
        # One code in ten is the sample's own, and so is one id of the scene.
        own = random.random(len(codes)) < 0.1
        codes[own] = random.integers(vocabulary.num_image_codes, size=int(own.sum()))
        yield codes, first + np.resize(codes * 7, size) % span


def _text(vocabulary: Vocabulary, random: np.random.Generator) -> np.ndarray:
    return random.integers(2, vocabulary.num_text // 2, size=int(random.integers(*_WORDS)))


def _entry(ids: np.ndarray) -> dict[str, Any]:
    return {"token_ids": ids.tolist(), "string": ""}


def _write(path: Path, value: Any) -> str:
    write_json(path, value, durable=False)
    return str(path)
