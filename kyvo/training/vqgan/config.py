"""The keys of a VQGAN training config."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch

from kyvo.common.config import (
    Component,
    Count,
    From,
    NonNegative,
    Positive,
    Seed,
    Share,
    Whole,
)
from kyvo.common.devices import resolve_precision
from kyvo.common.errors import InputError, Problems
from kyvo.images.vqgan import VQGANConfig

CompileMode = Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"]

# Smaller images leave the discriminator's last convolution nothing to read.
_MIN_SIDE = 24


@dataclass(frozen=True)
class DataConfig:
    """Which images are read, and how.

    Attributes:
        train: folders of images to train on, FOLDER/images/*.png or FOLDER/*.png.
        stream: in place of ``train`` and ``validation``: what makes images while the model trains;
            the run gives it ``side``, ``batch_size`` and ``device``.
        validation: folder of held-out images; None holds back a share of ``train``.
        validation_share: share held back, where ``validation`` is None.
        validation_images: most images of a validation.
        crop_size: side of the squares that each image is cut into, pixels; None: whole images.
        crop_candidates: random squares of which the one with most contrast is taken.
        crop_until: share of the run after which whole images are taken.
        num_workers: processes that read images; 0 reads in the training process.
    """

    train: tuple[Path, ...] = ()
    stream: Annotated[Component, From(("kyvo.prepare.image_stream",))] | None = None
    validation: Path | None = None
    validation_share: Share = 0.05
    validation_images: Count = 256
    crop_size: Count | None = None
    crop_candidates: Count = 1
    crop_until: Share = 1.0
    num_workers: Whole = 0

    def __post_init__(self) -> None:
        if self.stream is None and not self.train:
            raise InputError("data.train: no folder of images; name one, or set data.stream")
        if self.stream is not None and (self.train or self.validation is not None):
            raise InputError(
                "data.stream makes all images itself: set data.train=[] and data.validation=null, "
                "or data.stream=null"
            )


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms; a weight of 0 turns the term off.

    Attributes:
        l1: of the mean absolute pixel error (pixels in [-1, 1]).
        l2: of the mean squared pixel error.
        commitment: of the term that pulls encoder outputs towards their code vectors.
        codebook: of the term that pulls code vectors towards encoder outputs, where the codebook's
            method is ``gradient``.
        perceptual: of the LPIPS distance; above 0 it needs both weight files.
        vgg16_weights: file of torchvision's VGG16 state dict.
        lpips_weights: file of LPIPS's linear heads for VGG16, lin0..4.model.1.weight.
        discriminator: of the adversarial term, on top of the adaptive weight.
        discriminator_start: step of the first adversarial update.
    """

    l1: NonNegative
    l2: NonNegative
    commitment: NonNegative
    codebook: NonNegative
    perceptual: NonNegative = 0.0
    vgg16_weights: Path | None = None
    lpips_weights: Path | None = None
    discriminator: NonNegative = 0.0
    discriminator_start: Whole = 0

    def __post_init__(self) -> None:
        if self.perceptual and not (self.vgg16_weights and self.lpips_weights):
            raise InputError(
                "loss.perceptual is on: give loss.vgg16_weights and loss.lpips_weights, or set it 0"
            )
        if self.l1 == self.l2 == 0:
            raise InputError("loss.l1 or loss.l2 must be above 0")


@dataclass(frozen=True)
class CodebookConfig:
    """How the code vectors are found.

    Attributes:
        method: ``ema``: moving averages of the vectors that take a code; ``gradient``: the
            optimizer.
        start_step: step until which the decoder sees features that are not quantised.
        start_images: images whose features the k-means start clusters.
        ema_decay: decay of the moving averages of counts and vectors, per step.
        revive_below: a code used less than this share of the mean use is dead.
        revive_every: steps between revivals of dead codes.
        revive_until: share of the run after which codes stay as they are.
    """

    method: Literal["ema", "gradient"]
    start_step: Whole
    start_images: Count
    ema_decay: Share
    revive_below: NonNegative
    revive_every: Count
    revive_until: Share


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, or Muon and Adam, with a linear warm-up and a cosine fall to zero.

    Attributes:
        learning_rate: of Adam, at its highest.
        muon_learning_rate: of Muon for inner convolutions, at its highest; None: Adam for all.
        warmup_steps: steps of the linear rise.
        betas: decay of Adam's moving averages of gradient and square, per step.
    """

    learning_rate: NonNegative
    muon_learning_rate: NonNegative | None
    warmup_steps: Whole
    betas: tuple[Share, Share]


@dataclass(frozen=True)
class VQGANTrainingConfig:
    """A training run.

    Attributes:
        output: folder of metrics.jsonl, codebook.npy, checkpoints and the model's folder NAME.
        name: name of the model's folder.
        seed: of weights, batches, crops and codebook.
        model: shape of the VQGAN.
        data: images, and how they are read.
        loss: weights of the loss terms.
        codebook: how the code vectors are found.
        optimizer: learning rates and their schedule.
        batch_size: images of a step.
        max_steps: steps of the run.
        max_seconds: seconds without compilation after which the run ends too, its learning rate
            having fallen likewise; None: no limit, so that the run is exactly repeatable.
        log_every: steps between lines of metrics.jsonl.
        validate_every: steps between validations.
        save_every: steps between checkpoints, each with the model's folder and the codebook.
        keep_checkpoints: newest checkpoints that are kept.
        resume: ``auto``: go on from the newest checkpoint in ``output``; ``never``: refuse a
            folder that holds one.
        device: ``auto`` means the GPU if there is one.
        precision: of the convolutions; ``auto``: bf16_mixed on a device that multiplies bfloat16
            numbers itself, else fp32.
        channels_last: memory layout of images and weights.
        compile: compile the forward and backward pass; the first steps then take a minute. Steps
            with the adversarial term run without.
        compile_mode: of ``torch.compile``: ``reduce-overhead`` launches whole passes at once, for
            small batches; ``max-autotune-no-cudagraphs`` times several kernels for each matmul.
    """

    output: Path
    name: str
    seed: Seed
    model: VQGANConfig
    data: DataConfig
    loss: LossConfig
    codebook: CodebookConfig
    optimizer: OptimizerConfig
    batch_size: Count
    max_steps: Count
    max_seconds: Positive | None
    log_every: Count
    validate_every: Count
    save_every: Count
    keep_checkpoints: Count = 2
    resume: Literal["auto", "never"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Literal["auto", "fp32", "bf16_mixed"] = "auto"
    channels_last: bool = False
    compile: bool = False
    compile_mode: CompileMode = "default"

    def __post_init__(self) -> None:
        problems = Problems()
        if self.model.quantizer != "nearest":
            problems.add("model.quantizer must be nearest: a Gumbel VQGAN cannot be trained")
        crop, factor = self.data.crop_size, self.model.downsampling_factor
        if crop is not None and (crop % factor or crop <= 0):
            problems.add(f"data.crop_size {crop} must be a positive multiple of {factor}")
        side = min(self.model.resolution, crop or self.model.resolution)
        if self.loss.discriminator and side < _MIN_SIDE:
            problems.add(
                f"loss.discriminator needs images of {_MIN_SIDE} pixels a side or more; found "
                f"{side} (data.crop_size, model.resolution)"
            )
        problems.raise_any()

    @property
    def input_folders(self) -> tuple[Path, ...]:
        """Folders that are read, in which nothing may be written."""
        held_out = self.data.validation
        return self.data.train if held_out is None else (*self.data.train, held_out)

    def on(self, device: torch.device) -> "VQGANTrainingConfig":
        """The same run with the precision that ``auto`` means on ``device``."""
        precision = resolve_precision(self.precision, device, "bf16_mixed", "fp32")
        return replace(self, precision=precision)
