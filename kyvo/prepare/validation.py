"""Checks of own data before a GPU hour is spent: every problem, with file, key and place.

A world of images and scenes (see ``kyvo.prepare.tokenization``), what is said about them (see
``kyvo.world.records``) and the pretokenised files made of it are checked alike: problems go to
``Findings``, statistics come back as a summary. Everything streams.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kyvo.common.errors import InputError, Problems
from kyvo.common.files import list_files, list_visible, read_json
from kyvo.common.image_files import image_size, read_image
from kyvo.data.store import TokenStore, common_keys, open_store
from kyvo.prepare.layout import ReleasedLayout
from kyvo.prepare.statistics import SceneStatistics
from kyvo.prepare.world_tasks import EVALUATION, find_task
from kyvo.scenes import NumberField, Scene, SceneCodec, WordField
from kyvo.tokens.sequences import Segment, SequenceBuilder, get_task
from kyvo.tokens.vocabulary import BRACKETS
from kyvo.world.records import Record, check_record, read_record
from kyvo.world.tasks import WorldTask

Files = Mapping[str, Path]
"""Files of a folder by name without suffix."""
Sizes = defaultdict[str, list[Path]]
"""Images by size."""

_TEXTS: Mapping[str, tuple[str, ...]] = {
    "for_vqa": ("vqa_questions", "vqa_answers"),
    "source": ("text_instructions",),
    "target": ("text_instructions",),
}
"""The texts of a suffix's task, one for every sample; other texts may leave samples out."""


class Findings(Problems):
    """Problems of data: the first ``limit`` in words, all of them counted."""

    def __init__(self, limit: int = 50) -> None:
        super().__init__()
        self.limit = limit
        self.count = 0

    def add(self, message: str) -> None:
        """Record a problem."""
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
    could not be distinguished in a model's output.
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
    """Check the splits of a world, whatever its task; a summary as lines of text.

    FOLDER/SPLIT has images, scenes and texts, or these under source and target; instructions or
    questions are beside (see ``kyvo.world.writer``).
    """
    task = findings.attempt(find_task, world)
    if task is None:
        return []
    sizes: Sizes = defaultdict(list)
    lines = [line for s in splits for line in _check_split(world / s, task, codec, sizes, findings)]
    return [*lines, f"images of {_check_sizes(sizes, findings)} pixels"]


def _check_split(
    folder: Path, task: WorldTask, codec: SceneCodec, sizes: Sizes, findings: Findings
) -> list[str]:
    sides = [folder / side for side in task.scene_folders]
    images = [_files(side / "images", ".png", findings) for side in sides]
    scenes = [_files(side / "scenes", ".json", findings) for side in sides]
    records = {name: _files(folder / name, ".json", findings) for name in task.text_folders}
    _check_partners(folder, [*images, *scenes, *records.values()], findings)
    lines, good = [], []
    for side, shown, described in zip(sides, images, scenes, strict=True):
        name = str(side.relative_to(folder.parent))
        for path in tqdm(shown.values(), desc=f"{name}: images", disable=None):
            _read_image(path, sizes, findings)
        statistics, longest, whole = _read_scenes(name, described, codec, findings)
        good.append(whole)
        lines.append(f"{name}: {len(shown)} images, {statistics.num_scenes} scenes")
        lines += [f"  {line}" for line in (*statistics.lines(), f"longest scene: {longest} tokens")]
    for name, paths in records.items():
        counts = _check_records(name, paths, good, findings)
        groups = ", ".join(f"{group} x {counts[group]}" for group in sorted(counts))
        lines.append(f"  {name}: {groups or 'none'}")
    for path in list_files(folder / "texts", (".json",)):
        count = _check_texts(path, images[0], findings)
        lines.append(f"  {path.stem}: texts of {count} of {len(images[0])} images")
    return lines


def _files(folder: Path, suffix: str, findings: Findings) -> Files:
    """The files of ``folder`` by name without ``suffix``; other files are problems."""
    if not folder.is_dir():
        findings.add(f"{folder}: no such folder. Expected files NAME{suffix} there.")
        return {}
    paths = findings.attempt(list_visible, folder)
    if paths is None:
        return {}
    for path in paths:
        if path.suffix != suffix:
            findings.add(f"{path}: expected only files NAME{suffix} there. Convert or remove it.")
    found = {path.stem: path for path in paths if path.suffix == suffix}
    if not found:
        findings.add(f"{folder}: no files NAME{suffix} there.")
    return found


def _check_partners(folder: Path, groups: Sequence[Files], findings: Findings) -> None:
    """A name in one group must be in all; a group without files has been reported already."""
    filled = [group for group in groups if group]
    for name in sorted({name for group in filled for name in group}):
        missing = [_sibling(group, name) for group in filled if name not in group]
        if missing:
            present = next(group[name] for group in filled if name in group)
            listing = ", ".join(str(path.relative_to(folder)) for path in missing)
            findings.add(f"{present}: no {listing}. Add what is missing, or remove the rest.")


def _sibling(group: Files, name: str) -> Path:
    """The path that ``name`` would have in a group."""
    other = next(iter(group.values()))
    return other.with_name(name + other.suffix)


def _check_records(
    kind: str, paths: Files, scenes: Sequence[Files], findings: Findings
) -> Counter[str]:
    """Hold what is said against its scenes, if these are good; how many records of each group."""
    counts: Counter[str] = Counter()
    for name, path in tqdm(paths.items(), desc=kind, disable=None):
        record = findings.attempt(_read_record, kind, path)
        if record is None:
            continue
        counts[record.group] += 1
        if all(name in side for side in scenes):
            described = [_read_object(side[name], "scene") for side in scenes]
            findings.attempt(check_record, record, described, str(path))
    return counts


def _read_image(path: Path, sizes: Sizes, findings: Findings) -> None:
    """Decode the whole image and record its size."""
    if findings.attempt(read_image, path, 1) is not None:
        width, height = image_size(path)
        sizes[f"{width} x {height}"].append(path)


def _check_sizes(sizes: Sizes, findings: Findings) -> str:
    """The size that most images have; each of another size is a problem."""
    usual = max(sizes, key=lambda size: len(sizes[size]), default="no")
    for size in sorted(sizes.keys() - {usual}):
        for path in sizes[size]:
            findings.add(f"{path}: {size} pixels, most have {usual}. Crop or resize it.")
    return usual


def _read_scenes(
    side: str, scenes: Files, codec: SceneCodec, findings: Findings
) -> tuple[SceneStatistics, int, Files]:
    """Statistics of the scenes that fit the schema, the ids of the longest, and these scenes."""
    statistics, longest, good = SceneStatistics(codec.schema), 0, {}
    for name, path in tqdm(scenes.items(), desc=f"{side}: scenes", disable=None):
        scene = _check_scene(name, path, codec, findings)
        if scene is not None:
            good[name] = path
            statistics.add(scene)
            ids = findings.attempt(codec.encode, scene, str(path))
            longest = max(longest, len(ids or ()))
    return statistics, longest, good


def _check_scene(name: str, path: Path, codec: SceneCodec, findings: Findings) -> Scene | None:
    """The scene if all of its objects fit the schema."""
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
    if findings.count > before:
        return None
    return codec.schema.parse_scene(scene["objects"], str(path))


def _check_texts(path: Path, images: Files, findings: Findings) -> int:
    """Texts by the names of images; how many images have one."""
    texts = findings.attempt(_read_object, path, "texts") or {}
    names = {image.name for image in images.values()}
    for key, text in texts.items():
        if key not in names:
            findings.add(f"{path}: key {key!r}: the split has no image of that name.")
        if not isinstance(text, str) or not text.strip():
            findings.add(f"{path}: key {key!r}: expected a text, found {text!r:.60}.")
    return len(names & texts.keys())


def _read_record(kind: str, path: Path) -> Record:
    return read_record(kind, _read_object(path, kind), str(path))


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
    return [
        line
        for split in splits
        for files in _file_sets(layout, split)
        for line in _check_set(files, split, codec, findings, codes_per_image)
    ]


@dataclass(frozen=True)
class _FileSet:
    """Images, scenes and texts with the same keys.

    Attributes:
        layout: names the files of images and scenes.
        texts: files that go with them.
        is_task: whether a task reads these texts, so that every sample needs them.
    """

    layout: ReleasedLayout
    texts: tuple[Path, ...]
    is_task: bool = True


def _file_sets(layout: ReleasedLayout, split: str) -> list[_FileSet]:
    """The files that ``layout`` names; one set a kind where instructions are for evaluation."""
    folder, beside = f"{EVALUATION}-{layout.suffix}", replace(layout, subfolder=EVALUATION)
    starts = {layout.images: f"{split}_vqgan_indices_", layout.scenes: f"{split}_tokenized_scenes_"}
    kinds = {
        path.stem.removeprefix(start)
        for place, start in starts.items()
        for path in (place / folder).glob(f"{start}*.json")
    }
    if kinds:
        texts = {kind: beside.text_file(split, f"text_instructions_{kind}") for kind in kinds}
        places = {kind: replace(layout, suffix=kind, subfolder=folder) for kind in kinds}
        return [_FileSet(places[kind], (texts[kind],)) for kind in sorted(kinds)]
    if names := _TEXTS.get(layout.suffix):
        return [_FileSet(layout, tuple(layout.text_file(split, name) for name in names))]
    return [_FileSet(layout, tuple(sorted(layout.texts.glob(f"{split}_*.json"))), is_task=False)]


def _check_set(
    files: _FileSet,
    split: str,
    codec: SceneCodec,
    findings: Findings,
    codes_per_image: int | None,
) -> list[str]:
    layout, lines = files.layout, []
    images = findings.attempt(open_store, layout.image_file(split), "images")
    scenes = findings.attempt(open_store, layout.scene_file(split), "scenes")
    if images is not None:
        _check_codes(images, codes_per_image, codec, findings)
    if scenes is not None:
        statistics = _read_stored_scenes(scenes, codec, findings)
        lines.append(f"{layout.scene_file(split).name}: {len(scenes)} scenes")
        lines += [f"  {line}" for line in statistics.lines()]
    if images is not None and scenes is not None:
        lines.append(f"  {_check_keys(images, scenes, codec, findings)}")
    for path in files.texts:
        store = findings.attempt(open_store, path, "texts")
        if store is not None:
            _check_stored_texts(store, codec, findings)
            lines.append(f"  {path.name}: {len(store)} texts of up to {store.lengths.max()} tokens")
        if store is not None and images is not None:
            _check_text_keys(store, images, files, split, findings)
    return lines


def _check_text_keys(
    store: TokenStore, images: TokenStore, files: _FileSet, split: str, findings: Findings
) -> None:
    others = {f"{split}_{name}.json" for names in _TEXTS.values() for name in names}
    if files.is_task or store.path.name not in others:
        _find_alone(store, images, findings)
    if files.is_task:
        _find_alone(images, store, findings)


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
    """Statistics of the scenes that read back whole."""
    statistics = SceneStatistics(codec.schema)
    for ids, place in _entries(store):
        scene, report = codec.read(ids.tolist())
        for reason, count in report.reasons.items():
            findings.add(f"{place}: {reason}" + (f" ({count} times)" if count > 1 else ""))
        if report.reasons:
            continue
        faults = [
            f"{place}: objects[{index}]: {fault}"
            for index, item in enumerate(codec.schema.scene_to_json(scene))
            for fault in codec.schema.faults(item)
        ]
        for fault in faults:
            findings.add(fault)
        if not faults:
            statistics.add(scene)
    return statistics


def _check_stored_texts(store: TokenStore, codec: SceneCodec, findings: Findings) -> None:
    vocabulary = codec.vocabulary
    start, end = vocabulary.brackets("text")
    opening, closing = BRACKETS["text"]
    special = (vocabulary.bos, vocabulary.eos)
    for ids, place in _entries(store):
        if len(ids) < 2 or ids[0] != start or ids[-1] != end:
            findings.add(f"{place}: expected {opening}, ids of the text, {closing}.")
        for index, token in enumerate(ids[1:-1].tolist(), start=1):
            if token not in vocabulary.text or token in special:
                findings.add(f"{place}: [{index}]: id {token} is no text.")


def _check_keys(
    images: TokenStore, scenes: TokenStore, codec: SceneCodec, findings: Findings
) -> str:
    """Each key of one file alone is a problem; how many samples there are, and the longest."""
    _find_alone(images, scenes, findings)
    _find_alone(scenes, images, findings)
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


def _find_alone(store: TokenStore, other: TokenStore, findings: Findings) -> None:
    for key in np.setdiff1d(store.keys, other.keys, assume_unique=True):
        findings.add(f"{store.path}: key {key.decode()!r} is not in {other.path}.")
