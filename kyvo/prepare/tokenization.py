"""From files of a world to the released data set's pretokenised layout.

A world is FOLDER/SPLIT/{images/*.png, scenes/*.json} and, where there are texts,
FOLDER/SPLIT/texts/NAME.json ({key: text}). Everything streams: memory holds a batch of images.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, copy_file, list_files, read_json
from kyvo.common.image_files import list_images
from kyvo.images.codebook import codebook_record, record_codebook
from kyvo.images.codec import ImageCodec
from kyvo.images.preprocessing import load_images
from kyvo.prepare.layout import ReleasedLayout
from kyvo.scenes import Scene, SceneCodec
from kyvo.tokens.vocabulary import BRACKETS

ObjectOrder = Literal["file", "far-to-near", "near-to-far"]


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
    """

    codec: SceneCodec
    vqgan: ImageCodec | None
    image_size: int
    object_order: ObjectOrder = "file"

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
        if self.vqgan is not None:
            counts["images"] = self._tokenize_images(self.vqgan, images, layout.image_file(split))
        counts["scenes"] = _write_entries(layout.scene_file(split), self._scenes(scenes))
        return counts

    def _tokenize_images(self, vqgan: ImageCodec, images: Mapping[str, Path], target: Path) -> int:
        """Write the images' codes, and the record of their codebook; how many images."""
        self._check_codes(vqgan)
        # In this order, an interruption leaves no record rather than a wrong one.
        codebook_record(target).unlink(missing_ok=True)
        count = _write_entries(target, self._images(vqgan, images))
        record_codebook(target, vqgan.codebook)
        return count

    def tokenize_texts(self, texts: Mapping[str, str], target: Path) -> int:
        """Write texts by key to ``target``; how many."""
        return _write_entries(target, self._texts(texts))

    def _check_codes(self, vqgan: ImageCodec) -> None:
        found, expected = vqgan.config.n_embed, self.codec.vocabulary.num_image_codes
        if found != expected:
            raise InputError(
                f"VQGAN: it has {found} codes, but vocabulary '{self.codec.vocabulary.name}' has "
                f"ids for {expected}. Choose the vocabulary or the VQGAN to match."
            )

    def _images(self, vqgan: ImageCodec, images: Mapping[str, Path]) -> Iterator[tuple[str, Any]]:
        keys, paths = list(images), list(images.values())
        starts = range(0, len(paths), vqgan.batch_size)
        for start in tqdm(starts, desc="images", unit="batch", disable=None):
            part = slice(start, start + vqgan.batch_size)
            batch = load_images(paths[part], self.image_size)
            codes = vqgan.encode(batch)
            yield from zip(keys[part], codes.reshape(len(batch), -1), strict=True)

    def _scenes(self, scenes: Mapping[str, Path]) -> Iterator[tuple[str, Any]]:
        for key, path in tqdm(scenes.items(), desc="scenes", unit="scene", disable=None):
            scene = read_json(path, "scene")
            if not isinstance(scene, dict) or not isinstance(scene.get("objects"), list):
                raise InputError(f"scene: {path}: expected an object with a list 'objects'.")
            objects = self.codec.schema.parse_scene(scene["objects"], str(path))
            objects = in_order(objects, self.object_order, scene.get("directions"), str(path))
            ids = self.codec.encode(objects, str(path))
            yield key, {"token_ids": ids, "string": self.codec.string(objects, str(path))}

    def _texts(self, texts: Mapping[str, str]) -> Iterator[tuple[str, Any]]:
        vocabulary = self.codec.vocabulary
        start, end = vocabulary.brackets("text")
        opening, closing = BRACKETS["text"]
        for key, text in texts.items():
            ids = [start, *self.codec.tokenizer.encode(text), end]
            yield key, {"token_ids": ids, "string": f"{opening}{text}{closing}"}


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


def _write_entries(path: Path, entries: Iterable[tuple[str, Any]]) -> int:
    """Write {key: value} as it comes, one entry a line, all or nothing; the number of entries."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        for key, value in entries:
            stream.write(b",\n" if count else b"{\n")
            stream.write(orjson.dumps(key) + b": ")
            stream.write(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
            count += 1
        stream.write(b"\n}\n" if count else b"{}\n")
    return count
