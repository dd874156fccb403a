"""The plan of a generation run: all that can be known before its weights are loaded.

Every problem is reported at once, in seconds; the plan that is left is printed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from kyvo.common.config import load_config
from kyvo.common.devices import check_float8, check_memory, resolve_device
from kyvo.common.errors import InputError, Problems
from kyvo.common.files import check_free_space, file_hash, format_bytes, require_folder
from kyvo.data.dataset import KyvoDataset
from kyvo.data.inspection import DATA_REMEDY, check_scenes
from kyvo.decoding.config import GenerationConfig
from kyvo.decoding.engine import PREFILL_TOKENS
from kyvo.decoding.outputs import OutputReader
from kyvo.decoding.results import ResultFiles, check_log
from kyvo.images.codebook import load_codebook
from kyvo.models import (
    KyvoModel,
    build_on_meta,
    check_codebook,
    find_weights,
    load_released,
    num_parameters,
    resolve_dtype,
)
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import Vocabulary, get_vocabulary

# The cache's length is a multiple of so many positions.
_LENGTH_STEP = 64


@dataclass(frozen=True)
class GenerationPlan:
    """A checked run.

    Attributes:
        config: as given, with the precision that ``auto`` means on the device.
        indices: the chosen samples.
        model: the model on the meta device.
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
        codes = self.dataset.codes_per_image
        return OutputReader(builder.task, self.codec, codes, builder.centre_first)

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
    def log_path(self) -> Path:
        """Where generated ids are written as they come."""
        return self.files.three_d_folder / "results.jsonl"

    @cached_property
    def description(self) -> dict[str, object]:
        """What results must share to be in one log; files by their content."""
        config = self.config
        untrained = f"random, seed {config.seed}"
        stores = {s.source_name: file_hash(store.path) for s, store in self.dataset.stores.items()}
        return {
            "weights": file_hash(self.weights) if self.weights else untrained,
            "model": f"{config.model.path} {dict(config.model.arguments)}",
            "vocabulary": config.vocabulary,
            "codebook": file_hash(config.codebook),
            "data": stores,
            "task": self.reader.task.name,
            "centre_first": self.reader.centre_first,
            "max_new_tokens": config.max_new_tokens,
            "sampling": str(config.sampling),
            "constrained": config.constrained,
            "precision": config.precision,
            "quantization": config.quantization,
        }

    @cached_property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return int(self.dataset.prompt_lengths[self.indices].max())

    @property
    def num_slots(self) -> int:
        """Samples that are decoded together."""
        return min(self.config.batch_size, len(self.indices))

    @property
    def max_length(self) -> int:
        """Positions of each slot of the cache, rounded up so that like runs share an engine."""
        wanted = self.longest_prompt + self.config.max_new_tokens
        return min(-(-wanted // _LENGTH_STEP) * _LENGTH_STEP, self.model.max_seq_len)

    @property
    def memory_bytes(self) -> int:
        """Weights and their fused copies, the embedding as one table, cache, logits, a prefill."""
        item = resolve_dtype(self.config.precision).itemsize
        attention, layers = self.model.blocks[0].attn, len(self.model.blocks)
        slots, inner = self.num_slots, self.model.blocks[0].mlp.w1.out_features
        of_a_key = attention.num_kv_heads * attention.head_dim
        size, width = self.model.output.weight.shape
        logits = slots * size * (item + 4)
        # Gate, its activation, the other branch and the product; the stream, its norm and q, k, v.
        per_prompt_token = 4 * inner + 6 * width
        prompt_tokens = min(slots * self.longest_prompt, PREFILL_TOKENS)
        fused = layers * width * (width + 2 * of_a_key + 2 * inner)
        cached = slots * self.max_length * 2 * layers * of_a_key
        numbers = num_parameters(self.model) + fused + size * width + cached
        return item * (numbers + prompt_tokens * per_prompt_token) + logits

    @property
    def missing_bytes(self) -> int:
        """What the disk must still have for the results: an earlier attempt's are there already."""
        folders = (self.files.three_d_folder, self.files.image_folder)
        there = sum(path.stat().st_size for folder in folders for path in folder.glob("*.*"))
        return max(0, self.files.size(len(self.indices)) - there)

    def summary(self) -> str:
        """The plan as lines of text."""
        weights = self.weights or f"none: random ones of seed {self.config.seed}"
        return "\n".join(
            [
                f"{self.config.run_identifier}: {len(self.indices)} of {len(self.dataset)} "
                f"samples, prompts of up to {self.longest_prompt} tokens",
                *self.dataset.excluded,
                f"{num_parameters(self.model):,} weights: {weights}",
                f"memory: about {format_bytes(self.memory_bytes)}",
                f"disk: about {format_bytes(self.files.size(len(self.indices)))}",
            ]
        )


def plan_generations(runs: Iterable[tuple[Path | str, Sequence[str]]]) -> list[GenerationPlan]:
    """``plan_generation`` of every (config file, its ``key=value`` overrides).

    Raises:
        InputError: listing every problem of every config.
    """
    problems = Problems()
    plans = [problems.attempt(_plan_file, path, overrides) for path, overrides in runs]
    problems.raise_any()
    return [plan for plan in plans if plan is not None]


def _plan_file(path: Path | str, overrides: Sequence[str]) -> GenerationPlan:
    config = load_config(GenerationConfig, path, overrides)
    problems = Problems()
    plan = problems.attempt(plan_generation, config)
    problems.raise_any(config.run_identifier)
    return problems.checked(plan)


def plan_generation(config: GenerationConfig) -> GenerationPlan:
    """Check files, keys, ids, shapes, codebook, vocabulary, disk and GPU memory of a run.

    Raises:
        InputError: listing every problem.
    """
    vocabulary = get_vocabulary(config.vocabulary)
    problems = Problems()
    problems.attempt(require_folder, config.data_root, "data_root", DATA_REMEDY)
    device = problems.attempt(resolve_device, config.device)
    if device is not None and config.quantization == "float8":
        problems.attempt(check_float8, device, "Set quantization to int8 or none.")
    dataset = problems.attempt(_build_dataset, config, vocabulary)
    indices = problems.attempt(_wanted, config, dataset)
    tokenizer = problems.attempt(load_text_tokenizer, config.tokenizer, vocabulary)
    codebook = problems.attempt(load_codebook, config.codebook, vocabulary.num_image_codes)
    model = problems.attempt(build_on_meta, config.model, vocabulary)
    weights = None
    if config.checkpoint is not None:
        weights = problems.attempt(find_weights, config.checkpoint)
    if weights is not None and model is not None:
        problems.attempt(load_released, model, weights)
    if codebook is not None and model is not None:
        problems.attempt(check_codebook, model, codebook, config.codebook, weights)
    device = problems.checked(device)
    codec = SceneCodec(get_schema(config.scene_schema), vocabulary, problems.checked(tokenizer))
    plan = GenerationPlan(
        config.on(device),
        device,
        problems.checked(dataset),
        problems.checked(indices),
        codec,
        problems.checked(codebook),
        problems.checked(model),
        weights,
    )
    problems.attempt(plan.files.check_names, plan.indices)
    problems.attempt(check_scenes, plan.dataset, codec)
    problems.attempt(check_log, plan.log_path, plan.description)
    problems.attempt(_check_prompts, plan)
    problems.attempt(check_free_space, plan.files.image_folder, plan.missing_bytes, "disk")
    problems.attempt(check_memory, device, plan.memory_bytes, "Lower batch_size or max_new_tokens.")
    problems.raise_any()
    return plan


def _build_dataset(config: GenerationConfig, vocabulary: Vocabulary) -> KyvoDataset:
    dataset: KyvoDataset = config.dataset.build(vocabulary=vocabulary)
    if len(dataset.builders) != 1:
        raise InputError("dataset: generation needs one task, not UNIFIED.")
    return dataset


def _wanted(config: GenerationConfig, dataset: KyvoDataset | None) -> range:
    if dataset is None:
        return range(0)
    size = len(dataset)
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
