"""Preflight of a generation run: all that can be known before its weights are loaded.

Every problem is told at once, in seconds; what stands is printed as a plan.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kyvo.config import load_config
from kyvo.data.dataset import KyvoDataset
from kyvo.decoding.config import GenerationConfig
from kyvo.decoding.outputs import OutputReader
from kyvo.decoding.results import ResultFiles
from kyvo.errors import InputError, Problems
from kyvo.files import check_free_space, format_bytes
from kyvo.images.codebook import load_codebook
from kyvo.models import (
    KyvoModel,
    find_weights,
    load_released,
    num_parameters,
    outline,
    resolve_dtype,
)
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tensors import resolve_device
from kyvo.text import load_text_tokenizer
from kyvo.vocabulary import Vocabulary, get_vocabulary


@dataclass(frozen=True)
class GenerationPlan:
    """A checked run.

    Attributes:
        indices: the wanted samples.
        model: the model's outline.
        weights: file of its weights; None: random ones of the config's seed.
    """

    config: GenerationConfig
    device: torch.device
    dataset: KyvoDataset
    indices: range
    codec: SceneCodec
    codebook: np.ndarray
    model: KyvoModel
    weights: Path | None

    @cached_property
    def reader(self) -> OutputReader:
        """Reads the outputs of the run's task."""
        builder = self.dataset.builders[0]
        stores = self.dataset.stores.items()
        lengths = [
            int(store.lengths[0]) for segment, store in stores if segment.modality == "image"
        ]
        return OutputReader(
            builder.task, self.codec, lengths[0] if lengths else 0, builder.centre_first
        )

    @cached_property
    def files(self) -> ResultFiles:
        """Where the results go."""
        config = self.config
        return ResultFiles(
            config.run_identifier,
            config.three_d_json_folder / config.run_identifier,
            config.image_embeddings_folder / config.run_identifier,
            self.reader,
            self.dataset,
            self.codebook,
        )

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return int(self.dataset.prompt_lengths[self.indices].max())

    @property
    def memory_bytes(self) -> int:
        """Weights, the embedding as one table, the key-value cache, and logits."""
        item = resolve_dtype(self.config.precision).itemsize
        attention = self.model.layers[0].attn
        rows = min(self.config.batch_size, len(self.indices))
        length = min(self.longest_prompt + self.config.max_new_tokens, self.model.max_seq_len)
        per_token = 2 * len(self.model.layers) * attention.num_kv_heads * attention.head_dim
        size, width = self.model.output.weight.shape
        logits = rows * size * (item + 4)
        return (
            item * (num_parameters(self.model) + size * width + rows * length * per_token) + logits
        )

    def summary(self) -> str:
        """The plan as lines of text."""
        weights = self.weights or f"none: random ones of seed {self.config.seed}"
        return "\n".join(
            [
                f"{len(self.indices)} of {len(self.dataset)} samples, prompts of up to "
                f"{self.longest_prompt} tokens",
                f"{num_parameters(self.model):,} weights: {weights}",
                f"memory: about {format_bytes(self.memory_bytes)}",
                f"disk: about {format_bytes(self.files.size(len(self.indices)))}",
            ]
        )


def plan_generations(
    paths: Sequence[Path | str], overrides: Sequence[str] = ()
) -> list[GenerationPlan]:
    """``plan_generation`` of every config file, each with the same overrides.

    Raises:
        InputError: listing every problem of every config.
    """
    problems = Problems()
    configs = [problems.attempt(load_config, GenerationConfig, path, overrides) for path in paths]
    plans = [problems.attempt(plan_generation, config) for config in configs if config is not None]
    problems.raise_any()
    return plans


def plan_generation(config: GenerationConfig) -> GenerationPlan:
    """Check files, keys, ids, shapes, codebook, vocabulary, disk and GPU memory of a run.

    Raises:
        InputError: listing every problem.
    """
    vocabulary = get_vocabulary(config.vocabulary)
    problems = Problems()
    device = problems.attempt(resolve_device, config.device)
    dataset = problems.attempt(_build_dataset, config, vocabulary)
    indices: Any = None
    if dataset is not None:
        indices = problems.attempt(_wanted, config, len(dataset))
    tokenizer = problems.attempt(load_text_tokenizer, config.tokenizer, vocabulary)
    codebook = problems.attempt(load_codebook, config.codebook, vocabulary.num_image_codes)
    model = problems.attempt(outline, config.model, vocabulary)
    weights = None
    if config.checkpoint is not None:
        weights = problems.attempt(find_weights, config.checkpoint)
    if weights is not None and model is not None:
        problems.attempt(load_released, model, weights)
    problems.raise_any()
    codec = SceneCodec(get_schema(config.scene_schema), vocabulary, tokenizer)
    plan = GenerationPlan(config, device, dataset, indices, codec, codebook, model, weights)
    problems.attempt(plan.files.check_names, indices)
    problems.attempt(_check_prompts, plan)
    size = plan.files.size(len(indices))
    problems.attempt(check_free_space, plan.files.image_folder, size, "disk")
    problems.attempt(_check_memory, plan)
    problems.raise_any()
    return plan


def _build_dataset(config: GenerationConfig, vocabulary: Vocabulary) -> KyvoDataset:
    dataset: KyvoDataset = config.dataset.build(vocabulary=vocabulary)
    if len(dataset.builders) != 1:
        raise InputError("dataset: generation needs one task, not UNIFIED.")
    return dataset


def _wanted(config: GenerationConfig, size: int) -> range:
    count = size if config.num_samples is None else config.num_samples
    chosen = range(size)[config.first_sample : config.first_sample + count]
    if not chosen:
        raise InputError(
            f"first_sample {config.first_sample}: the data set has {size} samples. "
            "Choose a smaller first_sample, and num_samples of 1 or more."
        )
    return chosen


def _check_prompts(plan: GenerationPlan) -> None:
    most = plan.model.max_seq_len
    if plan.longest_prompt >= most:
        raise InputError(
            f"a prompt has {plan.longest_prompt} tokens, but max_seq_len is {most}. Raise it."
        )


def _check_memory(plan: GenerationPlan) -> None:
    if plan.device.type != "cuda":
        return
    free, _ = torch.cuda.mem_get_info(plan.device)
    if plan.memory_bytes > free:
        raise InputError(
            f"GPU memory: the run needs about {format_bytes(plan.memory_bytes)}, but "
            f"{format_bytes(free)} are free. Lower batch_size or max_new_tokens."
        )
