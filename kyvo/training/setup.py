"""From a training config to its parts, with every check that can be made before the first step."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torchao.float8 import Float8LinearConfig, convert_to_float8_training

from kyvo.common.config import Component
from kyvo.common.errors import InputError, MissingDependencyError
from kyvo.common.files import file_hash
from kyvo.data.batches import Batch, BatchSource, padded_length
from kyvo.images.codebook import load_codebook
from kyvo.models import KyvoModel, find_llama, find_weights, load_llama, load_released
from kyvo.models.description import ModelDescription, describe_model
from kyvo.scenes import get_schema
from kyvo.tokens.vocabulary import Vocabulary, get_vocabulary
from kyvo.training.config import TrainingConfig
from kyvo.training.loss import SoftNumbers
from kyvo.training.runtime import weight_dtype

_LOGGER_PACKAGES = {
    "TensorBoardLogger": "tensorboard",
    "WandBLogger": "wandb",
    "CometLogger": "comet_ml",
    "MLFlowLogger": "mlflow",
}
"""What torchtune's loggers import when they are built."""
# The matrices between embedding and head, which Muon may train.
_HIDDEN = ("layers.", "image_input.encoder.")
# Nine tenths of a layer's matmuls. Queries, keys and values stay bfloat16: two of them are too
# narrow to gain, and in bfloat16 all three are one matmul.
_FLOAT8_LINEARS = ("mlp.w1", "mlp.w2", "mlp.w3", "attn.output_proj")


def build_model(config: TrainingConfig, device: torch.device) -> KyvoModel:
    """The model at its start: the config's size, the weights that it names, the codebook."""
    vocabulary = get_vocabulary(config.vocabulary)
    model: KyvoModel = config.model.build(vocabulary=vocabulary)
    load_start(model, config)
    codebook = load_codebook(config.codebook, vocabulary.num_image_codes)
    model.tok_embeddings.set_codebook(torch.from_numpy(codebook))
    return model.to(device, weight_dtype(config.precision))


def build_source(
    component: Component, vocabulary: Vocabulary, model: KyvoModel | None
) -> BatchSource:
    """The samples of a config, as the model reads them; None: its images enter as their codes."""
    extra = model.image_input.options.for_data if model is not None and model.image_input else {}
    source: BatchSource = component.build(vocabulary=vocabulary, **extra)
    return source


def describe_run(config: TrainingConfig, dataset: BatchSource) -> ModelDescription:
    """What the run's checkpoints say of themselves.

    Raises:
        InputError: a tokenizer or the codebook that the config names is missing or unreadable.
    """
    return describe_model(
        config.model,
        get_vocabulary(config.vocabulary),
        get_schema(config.scene_schema) if config.scene_schema else None,
        config.tokenizer,
        config.codebook,
        tuple(dict.fromkeys(builder.task.name for builder in dataset.builders)),
        dataset.codes_per_image,
        dataset.builders[0].centre_first,
    )


def apply_compile_and_float8(model: KyvoModel, config: TrainingConfig) -> None:
    """Switch to float8 matmuls and compiled layers, as ``config`` asks; names stay."""
    if config.float8:
        to_float8(model)
    if config.compile:
        model.compile_layers()


def to_float8(model: KyvoModel, emulate: bool = False) -> None:
    """Make the layers' large matmuls in float8, scaled anew for every tensor (torchao).

    ``emulate`` rounds alike and multiplies in float32, on any device.
    """
    # The last layer works at labelled positions alone, whose number is no multiple of 16 as float8
    # asks for.
    last = f"{len(model.layers) - 1}.mlp."
    convert_to_float8_training(
        model.layers,
        module_filter_fn=lambda _, name: name.endswith(_FLOAT8_LINEARS) and last not in name,
        config=Float8LinearConfig(emulate=emulate),
    )


def find_start(config: TrainingConfig) -> Path | None:
    """The trained Kyvo that training starts from, or None; InputError if it is missing."""
    if config.checkpoint is not None:
        return find_weights(config.checkpoint)
    if config.llama_weights is not None:
        find_llama(config.llama_weights)
    return None


def load_start(model: KyvoModel, config: TrainingConfig) -> None:
    """Load what training starts from: a trained Kyvo, else Llama, else nothing (random weights).

    With a model on the meta device only names and shapes are compared.

    Raises:
        InputError: no such weights, or they do not fit.
    """
    if config.checkpoint is not None:
        load_released(model, find_weights(config.checkpoint))
    elif config.llama_weights is not None:
        load_llama(model, config.llama_weights, config.lm_head_init)


def check_logger(component: Component) -> None:
    """Refuse a logger that could not be built; building it may already write or call a server.

    Raises:
        InputError: its package is not installed, or a key is missing.
    """
    package = _LOGGER_PACKAGES.get(component.path.rpartition(".")[2])
    if package is not None and find_spec(package) is None:
        extra = {"tensorboard", "wandb"} & {package}
        raise MissingDependencyError(package, component.path, *extra)
    component.check_complete()


def check_lengths(dataset: BatchSource, max_seq_len: int, multiple: int = 1) -> None:
    """Refuse samples that are longer than the model can read, in whichever task they are drawn.

    ``multiple``: what lengths will be padded to a multiple of.
    """
    key, sample = dataset.longest(1)[-1]
    # The last token is only ever predicted.
    longest = len(sample.tokens) - 1
    padded = padded_length(longest, multiple)
    if padded > max_seq_len:
        rounded = f", {padded} with padding" if padded > longest else ""
        raise InputError(
            f"dataset: sample {key!r} has {longest} input tokens{rounded}, but the model's "
            f"max_seq_len is {max_seq_len}. Raise model.max_seq_len."
        )


def check_width(batch: Batch, max_seq_len: int) -> None:
    """Refuse a batch that the model cannot read: a stream knows its longest sample by probing."""
    width = batch.tokens_BL.shape[1]
    if width > max_seq_len:
        raise InputError(
            f"dataset: a batch with {batch.keys[0]} has {width} input tokens, but the model's "
            f"max_seq_len is {max_seq_len}. Raise model.max_seq_len."
        )


def build_optimizer(config: TrainingConfig, parameters: dict[str, nn.Parameter]) -> Optimizer:
    """The config's optimizer over the layers' matrices, the tables, and the vectors.

    Weight decay spares vectors (norms and biases); ``is_hidden`` is for ``kyvo.training.muon``.
    """
    vectors = [p for p in parameters.values() if p.dim() <= 1]
    matrices = {name: p for name, p in parameters.items() if p.dim() > 1}
    hidden = [p for name, p in matrices.items() if name.startswith(_HIDDEN)]
    tables = [p for name, p in matrices.items() if not name.startswith(_HIDDEN)]
    groups: list[dict[str, Any]] = [
        {"params": hidden, "is_hidden": True},
        {"params": tables},
        {"params": vectors, "weight_decay": 0.0},
    ]
    optimizer: Optimizer = config.optimizer.build([g for g in groups if g["params"]])
    return optimizer


def build_soft_numbers(config: TrainingConfig, device: torch.device) -> SoftNumbers | None:
    """What spreads the labels of numbers, where the config wants that."""
    sigma = config.loss.number_sigma
    return SoftNumbers(get_vocabulary(config.vocabulary), sigma, device) if sigma else None


def fingerprint(config: TrainingConfig, dataset: BatchSource) -> dict[str, str]:
    """What a resumed run must share with the run that it goes on with.

    Files are in it by what they hold, not by where they are.
    """
    files = dataset.files()
    options = {k: v for k, v in config.dataset.arguments.items() if k not in files}
    return {
        "vocabulary": config.vocabulary,
        "model": f"{config.model.path} {dict(config.model.arguments)}",
        "dataset": f"{options}",
        **{f"dataset.{name}": file_hash(path)[:16] for name, path in sorted(files.items())},
        "samples": str(len(dataset)),
        "codebook": file_hash(config.codebook)[:16],
        "optimizer": f"{config.optimizer.path} {dict(config.optimizer.arguments)}",
        "lr_scheduler": f"{config.lr_scheduler}",
        "loss": f"{config.loss}",
        "precision": config.precision,
        "float8": str(config.float8),
        "batch_size": str(config.batch_size),
        "gradient_accumulation_steps": str(config.gradient_accumulation_steps),
        "epochs": str(config.epochs),
        "max_steps": str(config.max_steps),
        "clip_grad_norm": str(config.clip_grad_norm),
        "seed": str(config.seed),
    }
