"""Images of a VQGAN run: which are trained on, in which order, and cut how.

Shape legend: B batch, C channels, H height, W width.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from kyvo.common import workers
from kyvo.common.errors import InputError
from kyvo.common.image_files import list_images, read_image
from kyvo.images.preprocessing import to_model_range
from kyvo.training.vqgan.config import DataConfig


class ImageBatch(NamedTuple):
    """Images (B, 3, H, W) in [-1, 1], and what names them in errors, such as their files."""

    names: tuple[str, ...]
    images_BCHW: Tensor


class ImageDataset(Dataset[tuple[str, Tensor]]):
    """Images by index: name, and float32 (3, size, size) in [-1, 1]."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths = paths
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[str, Tensor]:
        path = self.paths[index]
        return path.name, to_model_range(read_image(path, self.size)[None])[0]

    def load(
        self,
        batches: Iterable[list[int]],
        num_workers: int,
        pin_memory: bool,
        generator: torch.Generator | None = None,
    ) -> Iterator[ImageBatch]:
        """The the batches with these indices.

        It draws a seed for its workers from ``generator``, or else from torch's global one.
        """
        return workers.load(
            self,
            batch_sampler=batches,
            collate_fn=_collate,
            num_workers=num_workers,
            pin_memory=pin_memory,
            generator=generator,
        )


class TrainingBatches:
    """Shuffled batches of one size, epoch after epoch without an end.

    ``epoch_seed`` decides the order of the epoch under way, and ``num_done`` counts its batches;
    set on a fresh object, they let it go on inside that epoch.
    """

    def __init__(
        self, dataset: ImageDataset, batch_size: int, num_workers: int, pin_memory: bool
    ) -> None:
        self.epoch_seed: int | None = None
        self.num_done = 0
        self._dataset = dataset
        self._size = min(batch_size, len(dataset))
        self._num_workers = num_workers
        self._pin_memory = pin_memory

    def __iter__(self) -> Iterator[ImageBatch]:
        while True:
            # A loader draws a seed when it starts. That of an interrupted epoch was drawn before
            # the checkpoint, so that it must not be drawn again.
            generator = None if self.epoch_seed is None else torch.Generator()
            for batch in self._dataset.load(
                self._rest_of_epoch(), self._num_workers, self._pin_memory, generator
            ):
                self.num_done += 1
                yield batch
            self.epoch_seed, self.num_done = None, 0

    def _rest_of_epoch(self) -> Iterator[list[int]]:
        """Indices of each batch left; draws the order of an epoch that begins."""
        if self.epoch_seed is None:
            self.epoch_seed = int(torch.empty((), dtype=torch.int64).random_())
        generator = torch.Generator().manual_seed(self.epoch_seed)
        order = torch.randperm(len(self._dataset), generator=generator).tolist()
        last = len(order) - self._size
        for start in range(self.num_done * self._size, last + 1, self._size):
            yield order[start : start + self._size]


def ordered_batches(count: int, size: int) -> list[list[int]]:
    """Indices 0..count-1 in order, ``size`` a batch; the last may be short."""
    return [list(range(start, min(start + size, count))) for start in range(0, count, size)]


def random_batches(count: int, size: int, num_batches: int) -> Iterator[list[int]]:
    """At most ``num_batches`` of one pass over 0..count-1, shuffled by torch's global generator."""
    seed = int(torch.empty((), dtype=torch.int64).random_())
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    for start in range(0, min(count, num_batches * size), size):
        yield order[start : start + size]


def split_images(config: DataConfig, seed: int) -> tuple[list[Path], list[Path]]:
    """Paths of the training and of the validation images.

    Raises:
        InputError: a folder has no images, or none are left to train or validate on.
    """
    train = [path for folder in config.train for path in list_images(folder)]
    if config.validation is not None:
        held_out = list_images(config.validation)
    else:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
        num_held = round(len(train) * config.validation_share)
        held_out = sorted(train[i] for i in order[:num_held])
        train = sorted(train[i] for i in order[num_held:])
    if not train or not held_out:
        raise InputError(
            f"images: {len(train)} to train on and {len(held_out)} to validate on. "
            "Give more images, data.validation, or another data.validation_share."
        )
    return train, held_out[: config.validation_images]


def cut_into_crops(
    images_BCHW: Tensor, size: int, candidates: int, generator: torch.Generator
) -> Tensor:
    """As many busy squares of side ``size`` as would tile the images, one after another."""
    per_image = (images_BCHW.shape[-1] // size) ** 2
    crops = [
        busiest_crop(image_CHW, size, candidates, generator)
        for image_CHW in images_BCHW
        for _ in range(per_image)
    ]
    return torch.stack(crops)


def busiest_crop(
    image_CHW: Tensor, size: int, candidates: int, generator: torch.Generator
) -> Tensor:
    """The square of side ``size`` with most contrast among ``candidates`` random ones.

    The choice is made on the image's device, without waiting for it.
    """
    height, width = image_CHW.shape[1:]
    crops = []
    for _ in range(candidates):
        top = int(torch.randint(height - size + 1, (), generator=generator))
        left = int(torch.randint(width - size + 1, (), generator=generator))
        crops.append(image_CHW[:, top : top + size, left : left + size])
    if candidates == 1:
        return crops[0]
    contrasts = torch.stack([crop.var(dim=(1, 2)).sum() for crop in crops])
    return torch.stack(crops).index_select(0, contrasts.argmax()[None])[0]


def _collate(items: Sequence[tuple[str, Tensor]]) -> ImageBatch:
    names, images = zip(*items, strict=True)
    return ImageBatch(names, torch.stack(images))
