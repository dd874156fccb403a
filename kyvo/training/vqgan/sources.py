"""Where the images of a VQGAN run come from: files, or a stream that makes them on the device.

Shape legend: B batch, C channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from torch import Tensor

from kyvo.images.preprocessing import to_model_range
from kyvo.training.vqgan.config import VQGANTrainingConfig
from kyvo.training.vqgan.data import (
    ImageBatch,
    ImageDataset,
    TrainingBatches,
    ordered_batches,
    random_batches,
)


class ImageStream(Protocol):
    """What a config's ``data.stream`` builds: uint8 images (B, H, W, 3) on the run's device."""

    def batch(self, number: int) -> Tensor:
        """The training batch with this number, from 0; the arguments of the stream decide it."""
        ...

    def validation(self, count: int) -> Tensor:
        """The first ``count`` held-out images, the same ones always."""
        ...


class Batches(Protocol):
    """Training batches without an end; the attributes, set on a fresh object, let it go on."""

    epoch_seed: int | None
    num_done: int

    def __iter__(self) -> Iterator[ImageBatch]: ...


class ImageSource(Protocol):
    """Images of a run."""

    batches: Batches

    def start_batches(self, count: int) -> Iterator[Tensor]:
        """At most ``count`` batches for the start of the codebook."""
        ...

    def validation_batches(self) -> Iterator[Tensor]:
        """Batches of the held-out images."""
        ...


class FileSource:
    """Images in files; see ``TrainingBatches`` for their order."""

    batches: Batches

    def __init__(
        self,
        config: VQGANTrainingConfig,
        train: Sequence[Path],
        held_out: Sequence[Path],
        pin_memory: bool,
    ) -> None:
        self._config = config
        self._pin_memory = pin_memory
        self._train = ImageDataset(train, config.model.resolution)
        self._held_out = ImageDataset(held_out, config.model.resolution)
        self.batches = TrainingBatches(
            self._train, config.batch_size, config.data.num_workers, pin_memory
        )

    def start_batches(self, count: int) -> Iterator[Tensor]:
        """Random ones, chosen by torch's global generator."""
        size = min(self._config.batch_size, len(self._train))
        return self._load(self._train, random_batches(len(self._train), size, count))

    def validation_batches(self) -> Iterator[Tensor]:
        """In the order of the files' names; the last may be short."""
        batches = ordered_batches(len(self._held_out), self._config.batch_size)
        return self._load(self._held_out, iter(batches))

    def _load(self, dataset: ImageDataset, batches: Iterator[list[int]]) -> Iterator[Tensor]:
        workers = self._config.data.num_workers
        for batch in dataset.load(batches, workers, self._pin_memory):
            yield batch.images_BCHW


class StreamBatches:
    """Batches of a stream in the order of their numbers; ``num_done`` is the next number."""

    def __init__(self, stream: ImageStream) -> None:
        self.epoch_seed: int | None = None
        self.num_done = 0
        self._stream = stream

    def __iter__(self) -> Iterator[ImageBatch]:
        while True:
            images_BHWC = self._stream.batch(self.num_done)
            name = f"batch {self.num_done} of the stream"
            self.num_done += 1
            yield ImageBatch((name,), to_model_range(images_BHWC))


class StreamSource:
    """Images that a stream makes: no image comes twice in training."""

    batches: Batches

    def __init__(self, config: VQGANTrainingConfig, stream: ImageStream) -> None:
        self._config = config
        self._stream = stream
        self.batches = StreamBatches(stream)

    def start_batches(self, count: int) -> Iterator[Tensor]:
        """The next ones, which the run trains on afterwards."""
        next_one = self.batches.num_done
        for number in range(next_one, next_one + count):
            yield to_model_range(self._stream.batch(number))

    def validation_batches(self) -> Iterator[Tensor]:
        """The same images in every call; the last batch may be short."""
        return map(to_model_range, self._held_out_BHWC.split(self._config.batch_size))

    @cached_property
    def _held_out_BHWC(self) -> Tensor:
        return self._stream.validation(self._config.data.validation_images)
