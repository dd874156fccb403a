"""The data set: token stores joined by key into the samples of a task."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from kyvo.common.errors import InputError, Problems
from kyvo.common.image_files import read_image
from kyvo.data.batches import Batch, BatchSettings, length_buckets, make_loader
from kyvo.data.store import TokenStore, common_keys, open_store
from kyvo.images.codebook import recorded_codebook
from kyvo.tokens.sequences import CentreFirst, Sample, Segment, SequenceBuilder, get_task
from kyvo.tokens.vocabulary import Vocabulary

UNIFIED = "UNIFIED"


class KyvoDataset(Dataset[tuple[str, Sample]]):
    """Samples of one task, or of several of which each sample draws one anew every epoch.

    Item i is (key, sample). Samples are the keys present in every file that the tasks read, in
    sorted order; ``excluded`` says, a line a file, how many others there are.

    Args:
        image_folder: input images by key, read as ``image_size`` x ``image_size`` pixels, where a
            builder writes places for pixels.
    """

    def __init__(
        self,
        builders: Sequence[SequenceBuilder],
        stores: dict[Segment, TokenStore],
        max_samples: int | None = None,
        seed: int = 0,
        image_folder: Path | None = None,
        image_size: int = 0,
    ) -> None:
        self.builders = tuple(builders)
        self.stores = stores
        self._image_folder, self._image_size = image_folder, image_size
        shared = common_keys(list(stores.values()))
        self.excluded = [
            f"{segment.source_name}: {len(store) - len(shared)} of {len(store)} keys are not in "
            "every file: left out"
            for segment, store in stores.items()
            if len(store) > len(shared)
        ]
        self.keys = shared[:max_samples]
        self._rows = {s: np.searchsorted(store.keys, self.keys) for s, store in stores.items()}
        self._seed = seed
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> tuple[str, Sample]:
        builder = self.builders[self._drawn[index]]
        contents = {s: self.content(s, index) for s in builder.tokenized}
        sample = builder.build(contents)
        if builder.reads_pixels:
            sample = replace(sample, pixels=self.pixels(index))
        return self.keys[index].decode(), sample

    def pixels(self, index: int) -> np.ndarray:
        """The input image of sample ``index``, uint8 (H, W, 3).

        Raises:
            InputError: the image is missing or damaged.
        """
        assert self._image_folder is not None, "kyvo_dataset asks for it"
        return read_image(self._image_folder / self.keys[index].decode(), self._image_size)

    def content(self, segment: Segment, index: int) -> np.ndarray:
        """The stored ids (for images: codes, raster order) of sample ``index``, int64."""
        return self.stores[segment][self._rows[segment][index]]

    def string(self, segment: Segment, index: int) -> object:
        """The stored ``string`` of sample ``index``; None where the file has none."""
        return self.stores[segment].string(self._rows[segment][index])

    def set_epoch(self, epoch: int) -> None:
        """Draw the task of every sample for ``epoch``: the same draw for the same seed."""
        random = np.random.default_rng((self._seed, epoch))
        self._drawn = random.integers(len(self.builders), size=len(self))

    @property
    def codes_per_image(self) -> int:
        """Image codes of every image; 0 where no task has one."""
        images = [store for segment, store in self.stores.items() if segment.modality == "image"]
        return int(images[0].lengths[0]) if images else 0

    def files(self) -> dict[str, Path]:
        """The files of tokens, by the argument that names them."""
        return {segment.source_name: store.path for segment, store in self.stores.items()}

    def codebooks(self) -> dict[str, str | None]:
        """SHA-256 of the codebook that image codes are of, as recorded, by their file.

        Raises:
            InputError: a record cannot be read.
        """
        return {
            f"{segment.source_name}: {store.path}": recorded_codebook(store.path)
            for segment, store in self.stores.items()
            if segment.modality == "image"
        }

    @property
    def length_range(self) -> tuple[int, int]:
        """Tokens of the shortest and the longest sample of the current epoch."""
        return int(self.lengths.min()), int(self.lengths.max())

    def longest(self, count: int) -> list[tuple[str, Sample]]:
        """The samples with most tokens, each in its longest task, the longest last."""
        lengths = self.lengths_by_task
        order = np.argsort(lengths.max(axis=0), kind="stable")[-count:]
        drawn, self._drawn = self._drawn, lengths.argmax(axis=0)
        samples = [self[int(index)] for index in order]
        self._drawn = drawn
        return samples

    def batches(self, epoch: int, first: int, settings: BatchSettings) -> Iterable[Batch]:
        """The batches of ``epoch`` from number ``first`` on, on the host."""
        self.set_epoch(epoch)
        plan = length_buckets(self.lengths, settings.batch_size, settings.seed, epoch)
        return make_loader(self, plan[first:], settings)

    def place(self, batch: Batch, device: torch.device) -> Batch:
        """The batch on ``device``."""
        return batch.to(device)

    @property
    def lengths(self) -> np.ndarray:
        """Sequence length of every sample in the current epoch, int64 (N,)."""
        return self.lengths_by_task[self._drawn, np.arange(len(self))]

    @property
    def lengths_by_task(self) -> np.ndarray:
        """Sequence length of every sample in every task, int64 (tasks, N)."""
        stored = self._stored_lengths
        return np.stack([builder.length(stored) for builder in self.builders])

    @property
    def prompt_lengths(self) -> np.ndarray:
        """Length of every sample's prompt in the current epoch, int64 (N,)."""
        stored = self._stored_lengths
        lengths = np.stack(
            [np.broadcast_to(b.prompt_length(stored), len(self)) for b in self.builders]
        )
        return lengths[self._drawn, np.arange(len(self))]

    @property
    def _stored_lengths(self) -> dict[Segment, np.ndarray]:
        return {s: store.lengths[self._rows[s]] for s, store in self.stores.items()}


def kyvo_dataset(
    *,
    vocabulary: Vocabulary,
    task: str,
    unified_tasks: Sequence[str] = (),
    image_source: str | None = None,
    three_d_source: str | None = None,
    text_source: str | None = None,
    image_target: str | None = None,
    three_d_target: str | None = None,
    text_target: str | None = None,
    codes_per_image: int = 256,
    centre_first: CentreFirst = "generated",
    no_loss_on_input: bool = True,
    max_samples: int | None = None,
    max_length: int | None = None,
    seed: int = 0,
    image_folder: str | None = None,
    pixel_tokens: int | None = None,
    image_size: int = 0,
) -> KyvoDataset:
    """The data set of a config: pretokenised JSON files (``DATA.md``) joined for ``task``.

    Args:
        vocabulary: the recipe's vocabulary.
        task: a task string such as ``I-3``, or ``UNIFIED``: each sample draws one of
            ``unified_tasks`` in every epoch.
        image_source .. text_target: paths; those that the task reads must be given.
        codes_per_image: every image must have exactly so many codes.
        centre_first: which images are written centre-first.
        no_loss_on_input: no loss up to and including OUTPUT-START.
        max_samples: use only the first so many keys.
        max_length: refuse data with longer sequences (tokens).
        image_folder: input images by key, for a model that reads pixels.
        pixel_tokens, image_size: what such a model makes of an image; the recipe gives them.

    Raises:
        InputError: a missing path or file, an id outside the vocabulary, an image of another
            size, no common key, a sequence that is too long.
    """
    paths = {
        "image_source": image_source,
        "three_d_source": three_d_source,
        "text_source": text_source,
        "image_target": image_target,
        "three_d_target": three_d_target,
        "text_target": text_target,
    }
    names = unified_tasks if task == UNIFIED else (task,)
    if not names:
        raise InputError(f"dataset: task {UNIFIED} needs unified_tasks, such as [I-3, 3-I]")
    builders = [
        SequenceBuilder(vocabulary, get_task(name), centre_first, no_loss_on_input, pixel_tokens)
        for name in names
    ]
    segments = list(dict.fromkeys(s for builder in builders for s in builder.tokenized))
    missing = [s.source_name for s in segments if paths[s.source_name] is None]
    if missing:
        raise InputError(f"dataset: task {task} reads {', '.join(missing)}: give the path(s)")
    problems = Problems()
    stores = {}
    for segment in segments:
        path = Path(str(paths[segment.source_name]))
        store = problems.attempt(open_store, path, segment.source_name)
        if store is not None:
            problems.attempt(_check_ids, segment, store, vocabulary, codes_per_image)
            stores[segment] = store
    problems.raise_any()
    folder = Path(image_folder) if image_folder is not None else None
    if folder is None and any(builder.reads_pixels for builder in builders):
        raise InputError(
            "dataset: the model reads the pixels of input images: give image_folder, where they "
            "are under the keys of the samples."
        )
    dataset = KyvoDataset(builders, stores, max_samples, seed, folder, image_size)
    _check_samples(dataset, max_length)
    return dataset


def _check_ids(
    segment: Segment, store: TokenStore, vocabulary: Vocabulary, codes_per_image: int
) -> None:
    is_image = segment.modality == "image"
    limit = vocabulary.num_image_codes if is_image else vocabulary.size
    bad, fault = store.first_outside(0, limit), f"outside 0..{limit - 1}"
    if not is_image and bad is None:
        # Rows between the markers and the image codes mean nothing; shape codes have no table.
        spare = store.first_inside(vocabulary.marker.stop, vocabulary.image.start)
        bad = spare or store.first_inside(vocabulary.shape.start, limit)
        fault = "in no block that is embedded"
    if bad is not None:
        raise InputError(
            f"{segment.source_name}: {store.path}: key {bad[0]!r}: id {bad[1]} is {fault} "
            f"of vocabulary '{vocabulary.name}'. Was it tokenised for another one?"
        )
    wrong = np.flatnonzero(is_image & (store.lengths != codes_per_image))
    if len(wrong):
        first = int(wrong[0])
        raise InputError(
            f"{segment.source_name}: {store.path}: key {store.keys[first].decode()!r} has "
            f"{store.lengths[first]} codes, expected codes_per_image = {codes_per_image}."
        )


def _check_samples(dataset: KyvoDataset, max_length: int | None) -> None:
    if len(dataset) == 0:
        files = ", ".join(str(store.path) for store in dataset.stores.values())
        raise InputError(f"dataset: no key is present in all of: {files}. Check that they match.")
    # Over all tasks: a later epoch may draw a longer one than the first does.
    lengths = dataset.lengths_by_task.max(axis=0)
    longest = int(lengths.max())
    if max_length is not None and longest > max_length:
        key = dataset.keys[int(lengths.argmax())].decode()
        raise InputError(
            f"dataset: sample {key!r} has {longest} tokens, but max_length is {max_length}. "
            "Raise max_length or leave the sample out."
        )
