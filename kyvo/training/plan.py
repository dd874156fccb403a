"""The plan of a training run: all that can be checked before its weights are loaded.

Every problem is reported at once, in seconds; a run without problems is printed as a plan.
"""

import math
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import nn

from kyvo.common.devices import check_float8, check_memory, free_memory, resolve_device
from kyvo.common.errors import Problems
from kyvo.common.files import (
    check_free_space,
    check_outside,
    format_bytes,
    require_folder,
)
from kyvo.data.batches import BatchSource, LossWeighting, collate
from kyvo.data.dataset import KyvoDataset
from kyvo.data.inspection import DATA_REMEDY, check_image_codes, check_scenes
from kyvo.images.codebook import codebook_hash, load_codebook
from kyvo.models import KyvoModel, build_on_meta, check_codebook, num_parameters
from kyvo.models.description import read_description
from kyvo.scenes import ParseReport, SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.training.config import TrainingConfig
from kyvo.training.memory import TrainingMemory, checkpoint_bytes, estimate_memory
from kyvo.training.runtime import length_multiple
from kyvo.training.setup import (
    build_optimizer,
    build_source,
    check_lengths,
    check_logger,
    describe_run,
    find_start,
    load_start,
)


@dataclass(frozen=True)
class TrainingPlan:
    """A checked run: its data, its length, and what it needs.

    Attributes:
        config: as given, with the precision that ``auto`` means on the device.
        device: where the run computes.
        dataset: samples to train on.
        validation: held-out samples, or None.
        steps_per_epoch: optimizer steps of one pass over the data.
        total_steps: optimizer steps of the run.
        num_parameters: weights of the model.
        num_trained: weights that get a gradient.
        memory: bytes that a step takes at its peak.
        disk_bytes: bytes that checkpoints and exported weights take at most.
        scenes: what reading some of the scenes back gave; None where it was not asked for.
    """

    config: TrainingConfig
    device: torch.device
    dataset: BatchSource
    validation: BatchSource | None
    steps_per_epoch: int
    total_steps: int
    num_parameters: int
    num_trained: int
    memory: TrainingMemory
    disk_bytes: int
    scenes: ParseReport | None

    def summary(self) -> str:
        """The plan as lines of text."""
        shortest, longest = self.dataset.length_range
        held_out = f", {len(self.validation)} held out" if self.validation else ""
        lines = [
            f"{len(self.dataset)} samples of {shortest} to {longest} tokens{held_out}",
            *self.dataset.excluded,
            f"{self.num_parameters:,} weights, {self.num_trained:,} of them trained",
            f"{self.total_steps} steps on {self.device} in {self.config.precision}, "
            f"{self.steps_per_epoch} an epoch",
            f"memory: about {self.memory}",
            f"disk: up to {format_bytes(self.disk_bytes)}",
        ]
        free = free_memory(self.device)
        if free is not None and self.memory.total > free:
            lines.append("this may not fit the GPU: lower batch_size, raise accumulation")
        if self.scenes and self.scenes.reasons:
            listed = ", ".join(f"{n} x {why}" for why, n in self.scenes.reasons.most_common(3))
            lines.append(f"some scenes of the data cannot be read back: {listed}")
        return "\n".join(lines)


def plan_training(config: TrainingConfig) -> TrainingPlan:
    """Check files, keys, ids, shapes, codebook, vocabulary, disk and GPU memory of a run.

    Raises:
        InputError: listing every problem.
    """
    vocabulary = get_vocabulary(config.vocabulary)
    problems = Problems()
    problems.attempt(require_folder, config.data_root, "data_root", DATA_REMEDY)
    problems.attempt(check_outside, config.output_dir, *config.input_folders)
    device = problems.attempt(resolve_device, config.device)
    model = problems.attempt(build_on_meta, config.model, vocabulary)
    component = config.dataset.with_defaults(seed=config.seed)
    dataset = problems.attempt(build_source, component, vocabulary, model)
    validation = None
    if config.validation_dataset is not None:
        validation = problems.attempt(build_source, config.validation_dataset, vocabulary, model)
    if config.metric_logger is not None:
        problems.attempt(check_logger, config.metric_logger)
    if device is not None:
        config = config.on(device)
        problems.attempt(_check_optimizer, config, device)
        if config.float8:
            problems.attempt(check_float8, device, "Set float8=false.")
    scenes = problems.attempt(_read_scenes, config, dataset)
    if dataset is not None:
        problems.attempt(describe_run, config, dataset)
    codebook = _check_weights(model, config, problems)
    for samples in (dataset, validation):
        if samples is not None and codebook is not None:
            owner = f"codebook {config.codebook}"
            problems.attempt(check_image_codes, samples, codebook_hash(codebook), owner)
        if samples is not None and model is not None:
            multiple = length_multiple(device) if device is not None else 1
            problems.attempt(check_lengths, samples, model.max_seq_len, multiple)
    device, model = problems.checked(device), problems.checked(model)
    plan = _plan(config, device, model, problems.checked(dataset), validation, scenes)
    problems.attempt(check_free_space, config.output_dir, _missing_bytes(config, plan), "disk")
    problems.attempt(check_memory, device, plan.memory.fixed, _MEMORY_REMEDY)
    problems.raise_any()
    return plan


_MEMORY_REMEDY = (
    "Use precision=bf16 with torchao.optim.AdamW8bit, a smaller model, or a larger GPU."
)


def _check_weights(
    model: KyvoModel | None, config: TrainingConfig, problems: Problems
) -> np.ndarray | None:
    """The codebook; it and the weights are there, and fit the model."""
    num_codes = get_vocabulary(config.vocabulary).num_image_codes
    codebook = problems.attempt(load_codebook, config.codebook, num_codes)
    found = Problems()
    start = found.attempt(find_start, config)
    stored = found.attempt(read_description, start.parent) if start is not None else None
    problems.messages += found.messages
    if model is not None and not found.messages:
        problems.attempt(load_start, model, config)
    if model is not None and codebook is not None:
        trained_with = stored.codebook_sha256 if stored is not None else None
        problems.attempt(check_codebook, model, codebook, config.codebook, start, trained_with)
    return codebook


def _check_optimizer(config: TrainingConfig, device: torch.device) -> None:
    """Optimizer and schedule can be built with the config's keys."""
    sample = {"layers.0": nn.Parameter(torch.zeros(2, 2, device=device))}
    optimizer = build_optimizer(config, sample)
    if config.lr_scheduler is not None:
        config.lr_scheduler.build(optimizer, num_training_steps=1)


def _read_scenes(config: TrainingConfig, dataset: BatchSource | None) -> ParseReport | None:
    """Read some scenes of files back, if the config says how they are written."""
    vocabulary = get_vocabulary(config.vocabulary)
    if config.scene_schema is None or not isinstance(dataset, KyvoDataset):
        return None
    if config.tokenizer is None and vocabulary.shipped_tokenizer is None:
        return None
    tokenizer = load_text_tokenizer(config.tokenizer, vocabulary)
    codec = SceneCodec(get_schema(config.scene_schema), vocabulary, tokenizer)
    return check_scenes(dataset, codec) if dataset is not None else None


def _plan(
    config: TrainingConfig,
    device: torch.device,
    model: KyvoModel,
    dataset: BatchSource,
    validation: BatchSource | None,
    scenes: ParseReport | None,
) -> TrainingPlan:
    num_batches = math.ceil(len(dataset) / config.batch_size)
    steps_per_epoch = math.ceil(num_batches / config.gradient_accumulation_steps)
    planned = steps_per_epoch * config.epochs
    saved, exported = checkpoint_bytes(model, config)
    num_exports = {"never": 0, "last": 1, "every_epoch": config.epochs}[config.export_released]
    longest = dataset.longest(config.batch_size)
    batch = collate(longest, LossWeighting(), length_multiple(device))
    return TrainingPlan(
        config,
        device,
        dataset,
        validation,
        steps_per_epoch,
        min(planned, config.max_steps or planned),
        num_parameters(model),
        num_parameters(model, trainable_only=True),
        estimate_memory(model, config, batch.tokens_BL.numel(), len(batch.labels_N)),
        # A new checkpoint is whole before an old one goes.
        saved * (config.keep_checkpoints + 1) + exported * num_exports,
        scenes,
    )


def _missing_bytes(config: TrainingConfig, plan: TrainingPlan) -> int:
    """What the disk must still have: a resumed run's files are there already."""
    patterns = ("step_*/*", "meta_model_*.pt")
    files = chain.from_iterable(config.output_dir.glob(pattern) for pattern in patterns)
    return max(0, plan.disk_bytes - sum(path.stat().st_size for path in files))
