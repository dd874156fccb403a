"""The plan of a generation run: all that can be known before its weights are loaded.

Every problem is reported at once, in seconds; the plan that is left is printed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from kyvo.common.config import Component, load_config
from kyvo.common.devices import check_float8, check_memory, resolve_device
from kyvo.common.errors import InputError, Problems
from kyvo.common.files import (
    check_free_space,
    check_outside,
    file_hash,
    format_bytes,
    require_folder,
)
from kyvo.data.dataset import KyvoDataset
from kyvo.data.inspection import DATA_REMEDY, check_image_codes, check_scenes
from kyvo.decoding.config import GenerationConfig
from kyvo.decoding.engine import PREFILL_TOKENS
from kyvo.decoding.outputs import OutputReader
from kyvo.decoding.results import ResultFiles, check_log
from kyvo.images.codebook import codebook_hash, load_codebook
from kyvo.models import (
    KyvoModel,
    build_on_meta,
    check_codebook,
    find_weights,
    load_released,
    num_parameters,
    read_codebook,
    resolve_dtype,
)
from kyvo.models.description import (
    ModelDescription,
    describe_text_tokenizer,
    open_text_tokenizer,
    read_description,
)
from kyvo.scenes import SceneCodec, Schema, get_schema
from kyvo.tokens.text_tokenizer import TextTokenizer, load_text_tokenizer
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
        builder: what builds it with weights.
        weights: file of its weights; None: random ones of the config's seed.
    """

    config: GenerationConfig
    device: torch.device
    dataset: KyvoDataset
    indices: range
    codec: SceneCodec
    codebook: np.ndarray
    model: KyvoModel
    builder: Component
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
        # A log that says nothing of it, as all did once, is of the best bins.
        numbers = {} if config.numbers == "best" else {"numbers": config.numbers}
        return {
            "weights": file_hash(self.weights) if self.weights else untrained,
            "model": f"{self.builder.path} {dict(self.builder.arguments)}",
            "vocabulary": self.codec.vocabulary.name,
            "codebook": codebook_hash(self.codebook),
            "data": stores,
            "task": self.reader.task.name,
            "centre_first": self.reader.centre_first,
            "max_new_tokens": config.max_new_tokens,
            "sampling": str(config.sampling),
            "constrained": config.constrained,
            "precision": config.precision,
            "quantization": config.quantization,
            **numbers,
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
        # Gate, its activation, up and both multiplied; the stream, its norm and q, k, v.
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
    problems = Problems()
    problems.attempt(require_folder, config.data_root, "data_root", DATA_REMEDY)
    device = problems.attempt(resolve_device, config.device)
    if device is not None and config.quantization == "float8":
        problems.attempt(check_float8, device, "Set quantization to int8 or none.")
    weights, stored = _find_checkpoint(config, problems)
    parts = _find_parts(config, stored, problems)
    vocabulary = parts.vocabulary
    model = problems.attempt(build_on_meta, parts.model, vocabulary)
    dataset = problems.attempt(_build_dataset, config, vocabulary, model)
    indices = problems.attempt(_wanted, config, dataset)
    tokenizer = problems.attempt(_open_tokenizer, config, stored, vocabulary)
    codebook = problems.attempt(_find_codebook, config, weights, vocabulary)
    if stored is not None and dataset is not None:
        problems.attempt(_compare, config, stored, parts, dataset)
    if weights is not None and model is not None:
        problems.attempt(load_released, model, weights)
    trained_with = stored.codebook_sha256 if stored is not None else None
    if config.codebook is not None and codebook is not None and model is not None:
        problems.attempt(check_codebook, model, codebook, config.codebook, weights, trained_with)
    if dataset is not None:
        problems.attempt(_check_image_codes, config, dataset, codebook, trained_with)
    device = problems.checked(device)
    codec = SceneCodec(parts.schema, vocabulary, problems.checked(tokenizer))
    plan = GenerationPlan(
        config.on(device),
        device,
        problems.checked(dataset),
        problems.checked(indices),
        codec,
        problems.checked(codebook),
        problems.checked(model),
        parts.model,
        weights,
    )
    problems.attempt(check_outside, plan.files.three_d_folder, *config.input_folders)
    problems.attempt(check_outside, plan.files.image_folder, *config.input_folders)
    problems.attempt(plan.files.check_names, plan.indices)
    problems.attempt(check_scenes, plan.dataset, codec)
    problems.attempt(check_log, plan.log_path, plan.description)
    problems.attempt(_check_prompts, plan)
    problems.attempt(check_free_space, plan.files.image_folder, plan.missing_bytes, "disk")
    problems.attempt(check_memory, device, plan.memory_bytes, "Lower batch_size or max_new_tokens.")
    problems.raise_any()
    return plan


@dataclass(frozen=True)
class _Parts:
    """What gives the weights their meaning: of the config, else of the checkpoint."""

    model: Component
    vocabulary: Vocabulary
    schema: Schema


def _find_checkpoint(
    config: GenerationConfig, problems: Problems
) -> tuple[Path | None, ModelDescription | None]:
    """The weights' file and what is said of them beside it."""
    if config.checkpoint is None:
        return None, None
    weights = problems.attempt(find_weights, config.checkpoint)
    stored = problems.attempt(read_description, weights.parent) if weights is not None else None
    return weights, stored


def _find_parts(
    config: GenerationConfig, stored: ModelDescription | None, problems: Problems
) -> _Parts:
    """Raises all problems if a part is neither in the config nor in the checkpoint."""
    model = config.model or (stored.model if stored else None)
    vocabulary, schema = (stored.vocabulary, stored.schema) if stored else (None, None)
    if config.vocabulary is not None:
        vocabulary = get_vocabulary(config.vocabulary)
    if config.scene_schema is not None:
        schema = get_schema(config.scene_schema)
    if model is None or vocabulary is None or schema is None:
        found = {"model": model, "vocabulary": vocabulary, "scene_schema": schema}
        missing = [name for name, value in found.items() if value is None]
        problems.add(
            f"{', '.join(missing)}: missing; add to the config what no kyvo.json beside the "
            f"weights says (checkpoint: {config.checkpoint})"
        )
        problems.raise_any()
    return _Parts(problems.checked(model), problems.checked(vocabulary), problems.checked(schema))


def _open_tokenizer(
    config: GenerationConfig, stored: ModelDescription | None, vocabulary: Vocabulary
) -> TextTokenizer:
    if stored is None or config.tokenizer is not None:
        return load_text_tokenizer(config.tokenizer, vocabulary)
    return open_text_tokenizer(stored)


def _find_codebook(
    config: GenerationConfig, weights: Path | None, vocabulary: Vocabulary
) -> np.ndarray:
    """Code vectors, float32 (num_image_codes, C): the config's, else those in the weights."""
    if config.codebook is not None:
        return load_codebook(config.codebook, vocabulary.num_image_codes)
    if weights is None:
        raise InputError("codebook: missing; there is no checkpoint to take it from")
    return read_codebook(weights)


def _check_image_codes(
    config: GenerationConfig,
    dataset: KyvoDataset,
    codebook: np.ndarray | None,
    trained_with: str | None,
) -> None:
    """The data's image codes are of the config's codebook, else of the checkpoint's.

    The codebook in the weights is not asked: it may have been rounded with them.
    """
    if config.codebook is None and trained_with is not None:
        check_image_codes(dataset, trained_with, f"checkpoint {config.checkpoint}")
    elif config.codebook is not None and codebook is not None:
        check_image_codes(dataset, codebook_hash(codebook), f"codebook {config.codebook}")


def _compare(
    config: GenerationConfig, stored: ModelDescription, parts: _Parts, dataset: KyvoDataset
) -> None:
    """Refuse data and settings that are not the checkpoint's."""
    builder = dataset.builders[0]
    text = stored.text_tokenizer
    if config.tokenizer is not None:
        text = describe_text_tokenizer(config.tokenizer, parts.vocabulary)
    given = replace(
        stored,
        model=parts.model,
        vocabulary=parts.vocabulary,
        schema=parts.schema,
        tasks=(builder.task.name,),
        codes_per_image=dataset.codes_per_image or stored.codes_per_image,
        centre_first=builder.centre_first,
        text_tokenizer=text,
    )
    if differences := stored.differences(given):
        listed = "\n    ".join(differences)
        raise InputError(
            f"checkpoint: {config.checkpoint} is of another kind than the config:\n    {listed}\n"
            "    Give the config of this model, or leave out what the checkpoint says itself."
        )


def _build_dataset(
    config: GenerationConfig, vocabulary: Vocabulary, model: KyvoModel | None
) -> KyvoDataset:
    extra = model.image_input.options.for_data if model is not None and model.image_input else {}
    dataset: KyvoDataset = config.dataset.build(vocabulary=vocabulary, **extra)
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
