"""The plan of a VQGAN run: all that can be checked before its first step."""

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kyvo.common.devices import resolve_device
from kyvo.common.errors import Problems
from kyvo.common.files import check_free_space, check_output_name, file_hash, format_bytes
from kyvo.images.preprocessing import load_image
from kyvo.images.vqgan import VQGAN
from kyvo.training.vqgan.config import VQGANTrainingConfig
from kyvo.training.vqgan.data import split_images
from kyvo.training.vqgan.discriminator import PatchDiscriminator
from kyvo.training.vqgan.losses import load_perceptual_loss

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
}


@dataclass(frozen=True)
class VQGANPlan:
    """A checked run.

    Attributes:
        config: as given, with the precision that ``auto`` means on the device.
        device: where the run computes.
        train: files of the images to train on.
        held_out: files of the images to validate on.
        num_parameters: weights of the model.
        num_trained: weights of the model and of the discriminator.
    """

    config: VQGANTrainingConfig
    device: torch.device
    train: Sequence[Path]
    held_out: Sequence[Path]
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
            f"{len(self.train)} images of {config.model.resolution} pixels a side, "
            f"{len(self.held_out)} held out\n"
            f"{self.num_parameters:,} weights, {config.model.n_embed} codes of "
            f"{config.model.embed_dim} dimensions\n"
            f"{config.max_steps} steps of {config.batch_size} on {self.device} in "
            f"{config.precision}\ndisk: about {format_bytes(self.disk_bytes)} of checkpoints"
        )


def plan_vqgan(config: VQGANTrainingConfig) -> VQGANPlan:
    """Check device, images, names, weight files and disk of a run.

    Raises:
        InputError: listing every problem.
    """
    problems = Problems()
    device = problems.attempt(resolve_device, config.device)
    problems.attempt(check_output_name, config.name, "name")
    images = problems.attempt(split_images, config.data, config.seed)
    if images is not None:
        problems.attempt(load_image, images[0][0], config.model.resolution)
    problems.attempt(load_perceptual_loss, config.loss)
    device, (train, held_out) = problems.checked(device), problems.checked(images)
    plan = VQGANPlan(config.on(device), device, train, held_out, *_num_parameters(config))
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
    for key in ("vgg16_weights", "lpips_weights"):
        path = getattr(config.loss, key)
        kept[f"loss.{key}"] = "None" if path is None else file_hash(path)[:16]
    return {
        **kept,
        "data.train": _identity(plan.train),
        "data.validation": _identity(plan.held_out),
    }


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
