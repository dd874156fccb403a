"""Preflight of a training run: all that can be known before its weights are loaded.

Every problem is told at once, in seconds; what stands is printed as a plan.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from kyvo.data.batches import Batch, LossWeighting, collate
from kyvo.data.dataset import KyvoDataset
from kyvo.data.inspection import check_scenes
from kyvo.errors import Problems
from kyvo.files import check_free_space, format_bytes
from kyvo.images.codebook import load_codebook
from kyvo.models import KyvoModel, num_parameters, outline
from kyvo.scenes import ParseReport, SceneCodec, get_schema
from kyvo.text import load_text_tokenizer
from kyvo.training.config import TrainingConfig
from kyvo.training.memory import (
    TrainingMemory,
    check_gpu_memory,
    checkpoint_bytes,
    estimate_memory,
)
from kyvo.training.setup import build_optimizer, check_codebook, check_lengths, load_start
from kyvo.vocabulary import Vocabulary, get_vocabulary


@dataclass(frozen=True)
class TrainingPlan:
    """A checked run: its data, its length, and what it needs.

    Attributes:
        scenes: what reading some of the scenes back gave; None where it was not asked for.
        disk_bytes: what checkpoints and exported weights will take at most.
    """

    dataset: KyvoDataset
    validation: KyvoDataset | None
    steps_per_epoch: int
    total_steps: int
    num_parameters: int
    num_trained: int
    memory: TrainingMemory
    disk_bytes: int
    scenes: ParseReport | None

    def summary(self, device: torch.device) -> str:
        """The plan as lines of text."""
        lengths = self.dataset.lengths
        held_out = f", {len(self.validation)} held out" if self.validation else ""
        lines = [
            f"{len(self.dataset)} samples of {lengths.min()} to {lengths.max()} tokens{held_out}",
            f"{self.num_parameters:,} weights, {self.num_trained:,} of them trained",
            f"{self.total_steps} steps on {device}, {self.steps_per_epoch} an epoch",
            f"memory: about {self.memory}",
            f"disk: up to {format_bytes(self.disk_bytes)}",
        ]
        if device.type == "cuda" and self.memory.total > torch.cuda.mem_get_info(device)[0]:
            lines.append("this may not fit the GPU: lower batch_size, raise accumulation")
        if self.scenes and self.scenes.reasons:
            listed = ", ".join(f"{n} x {why}" for why, n in self.scenes.reasons.most_common(3))
            lines.append(f"some scenes of the data cannot be read back: {listed}")
        return "\n".join(lines)


def plan_training(config: TrainingConfig, device: torch.device) -> TrainingPlan:
    """Check files, keys, ids, shapes, codebook, vocabulary, disk and GPU memory of a run.

    Raises:
        InputError: listing every problem.
    """
    vocabulary = get_vocabulary(config.vocabulary)
    problems = Problems()
    codebook = problems.attempt(load_codebook, config.codebook, vocabulary.num_image_codes)
    training_set = config.dataset.with_defaults(seed=config.seed)
    dataset = problems.attempt(training_set.build, vocabulary=vocabulary)
    validation = None
    if config.validation_dataset is not None:
        validation = problems.attempt(config.validation_dataset.build, vocabulary=vocabulary)
    model = problems.attempt(outline, config.model, vocabulary)
    problems.attempt(_check_optimizer, config, device)
    scenes = problems.attempt(_read_scenes, config, vocabulary, dataset)
    if model is not None:
        _check_model(model, config, codebook, [dataset, validation], problems)
    problems.raise_any()
    assert model is not None
    assert dataset is not None
    plan = _plan(config, model, dataset, validation, scenes)
    problems.attempt(check_free_space, config.output_dir, _missing_bytes(config, plan), "disk")
    problems.attempt(check_gpu_memory, plan.memory, device)
    problems.raise_any()
    return plan


def _check_model(
    model: KyvoModel,
    config: TrainingConfig,
    codebook: np.ndarray | None,
    datasets: list[KyvoDataset | None],
    problems: Problems,
) -> None:
    """The weights, the codebook and the samples fit the model."""
    problems.attempt(load_start, model, config)
    if codebook is not None:
        problems.attempt(check_codebook, model, codebook, config.codebook)
    for dataset in datasets:
        if dataset is not None:
            problems.attempt(check_lengths, dataset, model.max_seq_len)


def _check_optimizer(config: TrainingConfig, device: torch.device) -> None:
    """Optimizer and schedule can be built with the config's keys."""
    sample = {"layers.0": nn.Parameter(torch.zeros(2, 2, device=device))}
    optimizer = build_optimizer(config, sample)
    if config.lr_scheduler is not None:
        config.lr_scheduler.build(optimizer, num_training_steps=1)


def _read_scenes(
    config: TrainingConfig, vocabulary: Vocabulary, dataset: KyvoDataset | None
) -> ParseReport | None:
    """Read some scenes back, if the config says how they are written."""
    if config.scene_schema is None:
        return None
    if config.tokenizer is None and vocabulary.shipped_tokenizer is None:
        return None
    tokenizer = load_text_tokenizer(config.tokenizer, vocabulary)
    codec = SceneCodec(get_schema(config.scene_schema), vocabulary, tokenizer)
    return check_scenes(dataset, codec) if dataset is not None else None


def _plan(
    config: TrainingConfig,
    model: KyvoModel,
    dataset: KyvoDataset,
    validation: KyvoDataset | None,
    scenes: ParseReport | None,
) -> TrainingPlan:
    num_batches = math.ceil(len(dataset) / config.batch_size)
    steps_per_epoch = math.ceil(num_batches / config.gradient_accumulation_steps)
    planned = steps_per_epoch * config.epochs
    saved, exported = checkpoint_bytes(model, config)
    num_exports = {"never": 0, "last": 1, "every_epoch": config.epochs}[config.export_released]
    batch = _heaviest_batch(dataset, config.batch_size)
    return TrainingPlan(
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


def _heaviest_batch(dataset: KyvoDataset, batch_size: int) -> Batch:
    """The batch of the longest samples."""
    longest = np.argsort(dataset.lengths)[-batch_size:]
    return collate([dataset[int(index)] for index in longest], LossWeighting())


def _missing_bytes(config: TrainingConfig, plan: TrainingPlan) -> int:
    """What the disk must still have: a resumed run's files are there already."""
    there = sum(f.stat().st_size for f in config.output_dir.glob("step_*/*") if f.is_file())
    return max(0, plan.disk_bytes - there)
