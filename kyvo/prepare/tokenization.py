"""From files of a world to the released data set's pretokenised layout.

A world is FOLDER/SPLIT/{images/*.png, scenes/*.json} and, where there are texts,
FOLDER/SPLIT/texts/NAME.json ({key: text}). Everything streams: memory holds a batch of images.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import torch
from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, copy_file, list_files, read_json
from kyvo.common.image_files import list_images
from kyvo.common.inherited import Inherited
from kyvo.images.codebook import codebook_record, record_codebook
from kyvo.images.codec import ImageCodec
from kyvo.prepare.layout import ReleasedLayout
from kyvo.prepare.readers import Readers, chunked, start_readers
from kyvo.scenes import Scene, SceneCodec
from kyvo.tokens.vocabulary import BRACKETS

ObjectOrder = Literal["file", "far-to-near", "near-to-far"]
_SCENES_AT_ONCE = 128
"""Scenes that a worker takes at a time."""
_IMAGES_AT_ONCE, _PIXELS_AT_ONCE = 32, 1 << 22
"""Images that are encoded at a time on the CPU, and pixels on a GPU: 256 images of 128 x 128."""


@dataclass(frozen=True)
class WorldTokenizer:
    """Turns the splits of a world into pretokenised files.

    Attributes:
        codec: schema, vocabulary and text tokenizer.
        vqgan: encodes the images, a batch at a time; None: they have no codes, for a model that
            reads their pixels and writes none.
        image_size: images are resized to this side (pixels) before encoding.
        object_order: objects as the scene file lists them, or sorted by distance from the
            camera, which makes the order of a scene's tokens predictable from its image.
        workers: processes that read images and write scenes as tokens; 0: this one does.
    """

    codec: SceneCodec
    vqgan: ImageCodec | None
    image_size: int
    object_order: ObjectOrder = "file"
    workers: int = 0

    def tokenize_split(self, world: Path, split: str, layout: ReleasedLayout) -> dict[str, int]:
        """Write the split's image, scene and text files; how many entries of each."""
        folder = world / split
        counts = self.tokenize_scenes(folder, split, layout)
        for path in list_files(folder / "texts", (".json",)):
            texts = _read_texts(path)
            counts[path.stem] = self.tokenize_texts(texts, layout.text_file(split, path.stem))
        return counts

    def tokenize_scenes(
        self,
        folder: Path,
        split: str,
        layout: ReleasedLayout,
        keys: Mapping[str, str] | None = None,
    ) -> dict[str, int]:
        """Write the image and the scene file of ``folder``; how many entries of each.

        ``keys`` are those of the wanted images, by file name; None: all, under their names.
        """
        found = list_images(folder)
        wanted = {path.name: path.name for path in found} if keys is None else keys
        images = {wanted[path.name]: path for path in found if path.name in wanted}
        scenes = {key: folder / "scenes" / f"{path.stem}.json" for key, path in images.items()}
        counts = {}
        tokenizer = Inherited(self)
        num_batches = -(-len(images) // (self._batch_shape[0] or _SCENES_AT_ONCE))
        with start_readers(self.workers, num_batches, self._batch_shape) as readers:
            if self.vqgan is not None:
                target = layout.image_file(split)
                counts["images"] = self._tokenize_images(self.vqgan, images, target, readers)
            chunks = chunked(list(scenes.items()), _SCENES_AT_ONCE)
            written = readers.ordered(partial(_scene_lines, tokenizer), chunks)
            bar = tqdm(written, "scenes", len(chunks), unit="batch", disable=None)
            lines = chain.from_iterable(bar)
            counts["scenes"] = _write_lines(layout.scene_file(split), lines)
        return counts

    @property
    def _batch_shape(self) -> tuple[int, int, int, int]:
        batch_size = self.vqgan.batch_size if self.vqgan is not None else 0
        return batch_size, self.image_size, self.image_size, 3

    def _tokenize_images(
        self, vqgan: ImageCodec, images: Mapping[str, Path], target: Path, readers: Readers
    ) -> int:
        """Write the images' codes, and the record of their codebook; how many images."""
        self._check_codes(vqgan)
        # In this order, an interruption leaves no record rather than a wrong one.
        codebook_record(target).unlink(missing_ok=True)
        count = _write_lines(target, self._images(vqgan, images, readers))
        record_codebook(target, vqgan.codebook)
        return count

    def tokenize_texts(self, texts: Mapping[str, str], target: Path) -> int:
        """Write texts by key to ``target``; how many."""
        return _write_lines(target, self._texts(texts))

    def _check_codes(self, vqgan: ImageCodec) -> None:
        found, expected = vqgan.config.n_embed, self.codec.vocabulary.num_image_codes
        if found != expected:
            raise InputError(
                f"VQGAN: it has {found} codes, but vocabulary '{self.codec.vocabulary.name}' has "
                f"ids for {expected}. Choose the vocabulary or the VQGAN to match."
            )

    def _images(
        self, vqgan: ImageCodec, images: Mapping[str, Path], readers: Readers
    ) -> Iterator[bytes]:
        keys, paths = chunked(list(images), vqgan.batch_size), list(images.values())
        batches = readers.images(chunked(paths, vqgan.batch_size))
        bar = tqdm(keys, desc="images", unit="batch", disable=None)
        for part, codes_Bhw in zip(bar, vqgan.encode_batches(batches), strict=True):
            yield from map(_line, part, codes_Bhw.reshape(len(part), -1))

    def scene_line(self, key: str, path: Path) -> bytes:
        """The entry of a scene's file."""
        scene = read_json(path, "scene")
        if not isinstance(scene, dict) or not isinstance(scene.get("objects"), list):
            raise InputError(f"scene: {path}: expected an object with a list 'objects'.")
        objects = self.codec.schema.parse_scene(scene["objects"], str(path))
        objects = in_order(objects, self.object_order, scene.get("directions"), str(path))
        ids = self.codec.encode(objects, str(path))
        return _line(key, {"token_ids": ids, "string": self.codec.string(objects, str(path))})

    def _texts(self, texts: Mapping[str, str]) -> Iterator[bytes]:
        vocabulary = self.codec.vocabulary
        start, end = vocabulary.brackets("text")
        opening, closing = BRACKETS["text"]
        for key, text in texts.items():
            ids = [start, *self.codec.tokenizer.encode(text), end]
            yield _line(key, {"token_ids": ids, "string": f"{opening}{text}{closing}"})


def fast_batch_size(device: torch.device, image_size: int) -> int:
    """How many images of this side (pixels) are best encoded at a time."""
    if device.type == "cpu":
        return _IMAGES_AT_ONCE
    return max(1, min(_PIXELS_AT_ONCE // image_size**2, 4 * _SCENES_AT_ONCE))


def copy_originals(folder: Path, target: Path, stems: Collection[str] | None = None) -> None:
    """Copy images and scenes of ``folder`` to ``target``; of some stems only, or None: all."""
    images, scenes = list_images(folder), list_files(folder / "scenes", (".json",))
    for path in (*images, *scenes):
        if stems is None or path.stem in stems:
            copy_file(path, target / path.parent.name / path.name)


def in_order(scene: Scene, order: ObjectOrder, directions: Any, where: str) -> Scene:
    """The scene with its objects as listed, or sorted by their distance from the camera.

    Raises:
        InputError: naming ``where``: there are no positions, or nothing says what is behind.
    """
    if order == "file":
        return scene
    try:
        behind = directions["behind"]
        places = np.array([item.position[: len(behind)] for item in scene.objects], dtype=float)
        distance = (places.reshape(len(scene.objects), len(behind)) @ behind).tolist()
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"scene: {where}: {order} needs 'directions.behind' and positions: {error}. "
            "Use the order of the file."
        ) from None
    sign = -1 if order == "far-to-near" else 1
    numbers = sorted(range(len(distance)), key=lambda i: sign * distance[i])
    return Scene(tuple(scene.objects[i] for i in numbers))


def _read_texts(path: Path) -> dict[str, str]:
    texts = read_json(path, "texts")
    if not isinstance(texts, dict) or not all(isinstance(t, str) for t in texts.values()):
        raise InputError(f"texts: {path}: expected one object of texts by key.")
    return texts


def _scene_lines(
    tokenizer: Inherited["WorldTokenizer"], scenes: Sequence[tuple[str, Path]]
) -> list[bytes]:
    return [tokenizer.value.scene_line(key, path) for key, path in scenes]


def _line(key: str, value: Any) -> bytes:
    """An entry of a file, without what separates it from others."""
    return orjson.dumps(key) + b": " + orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _write_lines(path: Path, lines: Iterable[bytes]) -> int:
    """Write entries as they come, one a line, all or nothing; the number of entries."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        for line in lines:
            stream.write((b",\n" if count else b"{\n") + line)
            count += 1
        stream.write(b"\n}\n" if count else b"{}\n")
    return count
