"""The plan of a VQGAN run: all that can be checked before its first step."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from kyvo.common.devices import resolve_device
from kyvo.common.errors import Problems
from kyvo.common.files import (
    check_free_space,
    check_output_name,
    check_outside,
    file_hash,
    format_bytes,
)
from kyvo.common.image_files import read_image
from kyvo.images.vqgan import VQGAN
from kyvo.training.vqgan.config import VQGANTrainingConfig
from kyvo.training.vqgan.data import split_images
from kyvo.training.vqgan.discriminator import PatchDiscriminator
from kyvo.training.vqgan.losses import load_perceptual_loss
from kyvo.training.vqgan.sources import FileSource, ImageSource, ImageStream, StreamSource

# Weights, and the running averages of their gradient and its square, in float32.
_BYTES_PER_WEIGHT = 3 * 4
# What a resumed run may change: none of it decides a weight, or the fingerprint holds its content.
_NOT_IN_FINGERPRINT = {
    "output",
    "data.train",
    "data.validation",
    "data.num_workers",
    "log_every",
    "validate_every",
    "save_every",
    "keep_checkpoints",
    "resume",
    "device",
    "compile",
    "compile_mode",
}


@dataclass(frozen=True)
class VQGANPlan:
    """A checked run.

    Attributes:
        config: as given, with the precision that ``auto`` means on the device.
        device: where the run computes.
        train: files of the images to train on; none where they are streamed.
        held_out: files of the images to validate on; likewise.
        stream: what makes the images; None where they are in files.
        num_parameters: weights of the model.
        num_trained: weights of the model and of the discriminator.
    """

    config: VQGANTrainingConfig
    device: torch.device
    train: Sequence[Path]
    held_out: Sequence[Path]
    stream: ImageStream | None
    num_parameters: int
    num_trained: int

    @property
    def disk_bytes(self) -> int:
        """Bytes that the checkpoints take, one of them while it is written."""
        return self.num_trained * _BYTES_PER_WEIGHT * (self.config.keep_checkpoints + 1)

    def summary(self) -> str:
        """The plan as lines of text."""
        config = self.config
        return (
            f"{self._images()}\n"
            f"{self.num_parameters:,} weights, {config.model.n_embed} codes of "
            f"{config.model.embed_dim} dimensions\n"
            f"{config.max_steps} steps of {config.batch_size} on {self.device} in "
            f"{config.precision}\ndisk: about {format_bytes(self.disk_bytes)} of checkpoints"
        )

    def source(self) -> ImageSource:
        """The images, ready to be read."""
        if self.stream is not None:
            return StreamSource(self.config, self.stream)
        return FileSource(self.config, self.train, self.held_out, self.device.type == "cuda")

    def _images(self) -> str:
        side, data = self.config.model.resolution, self.config.data
        if data.stream is not None:
            return (
                f"images of {side} pixels a side from {data.stream.path}, "
                f"{data.validation_images} held out"
            )
        return f"{len(self.train)} images of {side} pixels a side, {len(self.held_out)} held out"


def plan_vqgan(config: VQGANTrainingConfig) -> VQGANPlan:
    """Check device, images, names, weight files and disk of a run.

    Raises:
        InputError: listing every problem.
    """
    problems = Problems()
    device = problems.attempt(resolve_device, config.device)
    problems.attempt(check_output_name, config.name, "name")
    problems.attempt(check_outside, config.output, *config.input_folders)
    files, stream = _find_images(config, device, problems)
    problems.attempt(load_perceptual_loss, config.loss)
    device, files = problems.checked(device), problems.checked(files)
    plan = VQGANPlan(config.on(device), device, *files, stream, *_num_parameters(config))
    if not any(config.output.glob("step_*")):
        check_free_space(config.output, plan.disk_bytes, "disk")
    return plan


def vqgan_fingerprint(plan: VQGANPlan) -> dict[str, str]:
    """What a resumed run must share with the run that it goes on with, by the config's keys.

    Images and weight files are in it by what they are, not by where.
    """
    config = plan.config
    values = dict(_flat(dataclasses.asdict(config)))
    kept = {key: str(value) for key, value in values.items() if key not in _NOT_IN_FINGERPRINT}
    if config.data.stream is None:
        # So that a run from files, older than streams, can go on.
        del kept["data.stream"]
    for key in ("vgg16_weights", "lpips_weights"):
        path = getattr(config.loss, key)
        kept[f"loss.{key}"] = "None" if path is None else file_hash(path)[:16]
    if plan.stream is not None:
        return kept
    return {
        **kept,
        "data.train": _identity(plan.train),
        "data.validation": _identity(plan.held_out),
    }


def _find_images(
    config: VQGANTrainingConfig, device: torch.device | None, problems: Problems
) -> tuple[tuple[list[Path], list[Path]] | None, ImageStream | None]:
    """Files to train and to validate on (None: a problem), or the stream in their place."""
    if config.data.stream is not None:
        given = {"side": config.model.resolution, "batch_size": config.batch_size}
        build = partial(config.data.stream.build, **given, device=device or torch.device("cpu"))
        return ([], []), problems.attempt(build)
    files = problems.attempt(split_images, config.data, config.seed)
    if files is not None:
        problems.attempt(read_image, files[0][0], config.model.resolution)
    return files, None


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values of nested mappings by dotted keys."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _identity(paths: Sequence[Path]) -> str:
    """How many images, and a hash of their names and sizes in the order of training."""
    listing = "\n".join(f"{path.name} {path.stat().st_size}" for path in paths)
    return f"{len(paths)} images ({hashlib.sha256(listing.encode()).hexdigest()[:16]})"


def _num_parameters(config: VQGANTrainingConfig) -> tuple[int, int]:
    """Weights of the model, and those of the discriminator too where there is one."""
    with torch.device("meta"):
        model, discriminator = VQGAN(config.model), PatchDiscriminator(config.model.out_ch)
    count = sum(weight.numel() for weight in model.parameters())
    others = sum(weight.numel() for weight in discriminator.parameters())
    return count, count + (others if config.loss.discriminator else 0)
