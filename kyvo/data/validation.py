"""Checks of own data before a GPU hour is spent: every problem, with file, key and place.

A world of pictures and scenes (see ``kyvo.data.tokenization``) and the pretokenised files made of
it are checked alike: problems go to ``Findings``, figures come back as a summary. Everything
streams.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from kyvo.data.layout import ReleasedLayout
from kyvo.data.statistics import SceneStatistics
from kyvo.data.store import TokenStore, common_keys, open_store
from kyvo.errors import InputError, Problems
from kyvo.files import read_json
from kyvo.images.preprocessing import load_picture
from kyvo.scenes import NumberField, SceneCodec, WordField
from kyvo.sequences import Segment, SequenceBuilder, get_task
from kyvo.vocabulary import TEXT_END, TEXT_START

Sizes = defaultdict[str, list[Path]]  # pictures by size


class Findings(Problems):
    """Problems of data: the first ``limit`` in words, all of them counted."""

    def __init__(self, limit: int = 50) -> None:
        super().__init__()
        self.limit = limit
        self.count = 0

    def add(self, message: str) -> None:
        """Note a problem."""
        self.count += 1
        if len(self.messages) < self.limit:
            super().add(message)

    def raise_any(self, source: str | None = "in the data") -> None:
        """Raise InputError with the list, and how many more there are."""
        if not self.count:
            return
        lines = [f"  - {message}" for message in self.messages]
        if self.count > len(lines):
            lines.append(f"  and {self.count - len(lines)} more")
        noun = "problem" if self.count == 1 else "problems"
        raise InputError("\n".join([f"{self.count} {noun} {source}:", *lines]))


def check_codec(codec: SceneCodec, findings: Findings) -> None:
    """Schema, vocabulary and text tokenizer fit each other.

    Every marker and number has an id; every word reads back, and none begins another one, which
    a model's output could not tell apart.
    """
    schema, vocabulary = codec.schema, codec.vocabulary
    for fld in schema.fields:
        place = f"schema {schema.name}: {fld.marker}"
        findings.attempt(vocabulary.marker_id, fld.marker)
        if isinstance(fld, WordField):
            for fault in _word_faults(fld.words, codec):
                findings.add(f"{place}: {fault}")
        else:
            missing = sorted(_number_strings(fld, codec) - set(vocabulary.numbers), key=float)
            if missing:
                findings.add(
                    f"{place}: {len(missing)} of its numbers, such as {missing[0]}, are not in "
                    f"vocabulary {vocabulary.name}. Add their range to its numbers."
                )


def _number_strings(fld: NumberField, codec: SceneCodec) -> set[str]:
    return {codec.schema.number_string(value) for axis in fld.axes for value in axis.grid}


def _word_faults(words: Sequence[str], codec: SceneCodec) -> Iterator[str]:
    for word in words:
        spelt = codec.word_ids[word]
        if codec.tokenizer.decode(spelt).strip() != word:
            yield f"the text tokenizer cannot write {word!r}. Choose another word."
        for other in words:
            if other != word and codec.word_ids[other][: len(spelt)] == spelt:
                yield f"the ids of {word!r} begin those of {other!r}. Rename one."


def check_world(
    world: Path, splits: Sequence[str], codec: SceneCodec, findings: Findings
) -> list[str]:
    """Check FOLDER/SPLIT/{images,scenes,texts}; a summary as lines of text."""
    lines = []
    sizes: Sizes = defaultdict(list)
    for split in splits:
        folder = world / split
        pictures = _files(folder / "images", ".png", findings)
        scenes = _files(folder / "scenes", ".json", findings)
        _check_partners(pictures, scenes, findings)
        for path in tqdm(pictures.values(), desc=f"{split}: pictures", disable=None):
            _read_picture(path, sizes, findings)
        statistics, longest = _read_scenes(split, scenes, codec, findings)
        lines.append(f"{split}: {len(pictures)} pictures, {statistics.num_scenes} scenes")
        lines += [f"  {line}" for line in (*statistics.lines(), f"longest scene: {longest} tokens")]
        for path in sorted((folder / "texts").glob("*.json")):
            count = _check_texts(path, pictures, findings)
            lines.append(f"  {path.stem}: texts of {count} of {len(pictures)} pictures")
    return [*lines, f"pictures of {_check_sizes(sizes, findings)} pixels"]


def _files(folder: Path, suffix: str, findings: Findings) -> dict[str, Path]:
    """The files of ``folder`` by name without ``suffix``; other files are problems."""
    if not folder.is_dir():
        findings.add(f"{folder}: no such folder. Expected files NAME{suffix} there.")
        return {}
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    for path in paths:
        if path.suffix != suffix:
            findings.add(f"{path}: expected only files NAME{suffix} there. Convert or remove it.")
    found = {path.stem: path for path in paths if path.suffix == suffix}
    if not found:
        findings.add(f"{folder}: no files NAME{suffix} there.")
    return found


def _check_partners(
    pictures: Mapping[str, Path], scenes: Mapping[str, Path], findings: Findings
) -> None:
    for name, path in pictures.items():
        if name not in scenes:
            findings.add(f"{path}: no scene scenes/{name}.json. Add it, or remove the picture.")
    for name, path in scenes.items():
        if name not in pictures:
            findings.add(f"{path}: no picture images/{name}.png. Add it, or remove the scene.")


def _read_picture(path: Path, sizes: Sizes, findings: Findings) -> None:
    """Decode the whole picture and note its size."""
    if findings.attempt(load_picture, path, size=1) is not None:
        with Image.open(path) as picture:
            sizes[f"{picture.width} x {picture.height}"].append(path)


def _check_sizes(sizes: Sizes, findings: Findings) -> str:
    """The size that most pictures have; each of another size is a problem."""
    usual = max(sizes, key=lambda size: len(sizes[size]), default="no")
    for size in sorted(sizes.keys() - {usual}):
        for path in sizes[size]:
            findings.add(f"{path}: {size} pixels, most have {usual}. Crop or resize it.")
    return usual


def _read_scenes(
    split: str, scenes: Mapping[str, Path], codec: SceneCodec, findings: Findings
) -> tuple[SceneStatistics, int]:
    """Figures of the scenes that fit the schema, and the ids of the longest."""
    statistics, longest = SceneStatistics(codec.schema), 0
    for name, path in tqdm(scenes.items(), desc=f"{split}: scenes", disable=None):
        objects = _check_scene(name, path, codec, findings)
        if objects is not None:
            statistics.add(objects)
            ids = findings.attempt(codec.encode, objects, str(path))
            longest = max(longest, len(ids or ()))
    return statistics, longest


def _check_scene(
    name: str, path: Path, codec: SceneCodec, findings: Findings
) -> list[dict[str, Any]] | None:
    """The scene's objects if all of them fit the schema."""
    scene = findings.attempt(_read_object, path, "scene")
    if scene is None:
        return None
    if not isinstance(scene.get("objects"), list):
        findings.add(f"{path}: expected a list 'objects', found {scene.get('objects')!r:.60}.")
        return None
    before = findings.count
    key = scene.get("image_filename", f"{name}.png")
    if key != f"{name}.png":
        findings.add(f"{path}: image_filename is {key!r}, expected '{name}.png'.")
    for index, item in enumerate(scene["objects"]):
        for fault in codec.schema.faults(item):
            findings.add(f"{path}: objects[{index}]: {fault}")
    return scene["objects"] if findings.count == before else None


def _check_texts(path: Path, pictures: Mapping[str, Path], findings: Findings) -> int:
    """Texts by the names of pictures; how many pictures have one."""
    texts = findings.attempt(_read_object, path, "texts") or {}
    names = {picture.name for picture in pictures.values()}
    for key, text in texts.items():
        if key not in names:
            findings.add(f"{path}: key {key!r}: the split has no picture of that name.")
        if not isinstance(text, str) or not text.strip():
            findings.add(f"{path}: key {key!r}: expected a text, found {text!r:.60}.")
    return len(names & texts.keys())


def _read_object(path: Path, purpose: str) -> dict[str, Any]:
    value = read_json(path, purpose)
    if not isinstance(value, dict):
        raise InputError(f"{purpose}: {path}: expected one object {{...}}, found {value!r:.60}.")
    return value


def check_tokens(
    layout: ReleasedLayout,
    splits: Sequence[str],
    codec: SceneCodec,
    findings: Findings,
    codes_per_image: int | None = None,
) -> list[str]:
    """Check pretokenised images, scenes and texts; a summary as lines of text.

    Args:
        codes_per_image: codes that every image must have; None: as many as most have.
    """
    lines = []
    for split in splits:
        images = findings.attempt(open_store, layout.image_file(split), "images")
        scenes = findings.attempt(open_store, layout.scene_file(split), "scenes")
        if images is not None:
            _check_codes(images, codes_per_image, codec, findings)
        if scenes is not None:
            statistics = _read_stored_scenes(scenes, codec, findings)
            lines.append(f"{split}: {len(scenes)} tokenised scenes")
            lines += [f"  {line}" for line in statistics.lines()]
        if images is not None and scenes is not None:
            lines.append(f"  {_check_keys(images, scenes, codec, findings)}")
        for path in sorted(layout.texts.glob(f"{split}_*.json")):
            store = findings.attempt(open_store, path, "texts")
            if store is not None:
                _check_stored_texts(store, codec, findings)
                longest = int(store.lengths.max())
                lines.append(f"  {path.name}: {len(store)} texts of up to {longest} tokens")
    return lines


def _entries(store: TokenStore) -> Iterator[tuple[np.ndarray, str]]:
    """Ids and place of every entry."""
    for index in tqdm(range(len(store)), desc=store.path.name, disable=None):
        yield store[index], f"{store.path}: key {store.keys[index].decode()!r}"


def _check_codes(
    store: TokenStore, expected: int | None, codec: SceneCodec, findings: Findings
) -> None:
    limit = codec.vocabulary.num_image_codes
    count = int(np.bincount(store.lengths).argmax()) if expected is None else expected
    for codes, place in _entries(store):
        if len(codes) != count:
            findings.add(f"{place}: {len(codes)} codes, expected {count}.")
        for index in np.flatnonzero(codes >= limit):
            findings.add(f"{place}: [{index}]: code {codes[index]}, expected 0..{limit - 1}.")


def _read_stored_scenes(
    store: TokenStore, codec: SceneCodec, findings: Findings
) -> SceneStatistics:
    """Figures of the scenes that read back whole."""
    statistics = SceneStatistics(codec.schema)
    for ids, place in _entries(store):
        objects, report = codec.read(ids.tolist())
        for reason, count in report.reasons.items():
            findings.add(f"{place}: {reason}" + (f" ({count} times)" if count > 1 else ""))
        if report.reasons:
            continue
        faults = [
            f"{place}: objects[{index}]: {fault}"
            for index, item in enumerate(objects)
            for fault in codec.schema.faults(item)
        ]
        for fault in faults:
            findings.add(fault)
        if not faults:
            statistics.add(objects)
    return statistics


def _check_stored_texts(store: TokenStore, codec: SceneCodec, findings: Findings) -> None:
    vocabulary = codec.vocabulary
    start, end = vocabulary.marker_id(TEXT_START), vocabulary.marker_id(TEXT_END)
    special = (vocabulary.bos, vocabulary.eos)
    for ids, place in _entries(store):
        if len(ids) < 2 or ids[0] != start or ids[-1] != end:
            findings.add(f"{place}: expected {TEXT_START}, ids of the text, {TEXT_END}.")
        for index, token in enumerate(ids[1:-1].tolist(), start=1):
            if token not in vocabulary.text or token in special:
                findings.add(f"{place}: [{index}]: id {token} is no text.")


def _check_keys(
    images: TokenStore, scenes: TokenStore, codec: SceneCodec, findings: Findings
) -> str:
    """Each key of one file alone is a problem; how many samples there are, and the longest."""
    for store, other in ((images, scenes), (scenes, images)):
        for key in np.setdiff1d(store.keys, other.keys, assume_unique=True):
            findings.add(f"{store.path}: key {key.decode()!r} is not in {other.path}.")
    shared = common_keys([images, scenes])
    if not len(shared):
        return "no samples"
    builder = SequenceBuilder(codec.vocabulary, get_task("I-3"))
    stores = {Segment("image", "source"): images, Segment("three_d", "source"): scenes}
    lengths = builder.length(
        {s: store.lengths[np.searchsorted(store.keys, shared)] for s, store in stores.items()}
    )
    key = shared[int(lengths.argmax())].decode()
    return f"{len(shared)} samples, the longest {lengths.max()} tokens ({key})"
