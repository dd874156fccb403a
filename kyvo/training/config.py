"""The keys of a training config. The yaml files comment every one of them."""

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
    Whole,
    check_ranges,
)
from kyvo.common.devices import resolve_precision
from kyvo.common.errors import Problems
from kyvo.models.weights import LmHeadInit
from kyvo.scenes import get_schema
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.training.loss import Normalization

SOURCES = ("kyvo.data.dataset", "kyvo.prepare.stream")
"""Where the builders of samples are."""
Precision = Literal["auto", "fp32", "bf16_mixed", "bf16"]


@dataclass(frozen=True)
class LossConfig:
    """First-token weighting and normalisation of the loss.

    Attributes:
        weight_first_positions: labels after [IMAGE-START] that count ``weight`` times; 0: none.
        weight: how much those labels count.
        normalization: ``valid``: mean over labels; ``sample``: every sample counts alike;
            ``reference``: the released code's scale (see ``kyvo.training.loss.loss_weight``).
        head_chunk: labels whose logits are held at a time; 0: all. Fewer need less memory.
        number_sigma: spreads the label of a number over its neighbours by so much, in the unit of
            the numbers; 0: one label.
    """

    weight_first_positions: Whole = 0
    weight: Positive = 1.0
    normalization: Normalization = "valid"
    head_chunk: Whole = 0
    number_sigma: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Attributes:
        data_root: folder of the data, which the config's other values read as ``${data_root}``.
        output_dir: folder of checkpoints and metrics.jsonl.
        vocabulary: name or file of the vocabulary.
        codebook: file of the image codes' vectors (.npy).
        model: builder of the model, and its sizes.
        dataset: builder of the samples to train on, and their files.
        optimizer: class of the optimizer, and its arguments.
        validation_dataset: builder of held-out samples; None: no validation.
        lr_scheduler: torchtune's schedule of the learning rate; None: constant.
        metric_logger: torchtune's logger, written to beside metrics.jsonl; None: none.
        scene_schema: name or file of the schema with which the plan reads some scenes back; None:
            they are not read.
        tokenizer: file of the text tokenizer; None: the vocabulary's own, if it ships one.
        llama_weights: Llama's weights to start from, a folder or a file; None: random weights.
        checkpoint: trained Kyvo to start from in place of Llama: a run's folder or a file.
        lm_head_init: start of the output head with Llama's weights: from them, or random.
        loss: weighting and normalisation of the loss.
        device: ``auto`` means the GPU if there is one.
        precision: ``bf16_mixed``: bfloat16 matmuls over float32 weights; ``bf16``:
            bfloat16 weights; ``auto``: bf16_mixed where the device multiplies bfloat16 numbers
            itself, else fp32.
        compile: compile the layers and the loss.
        float8: make the layers' large matmuls in float8; needs ``compile``.
        batch_size: sequences of a batch.
        gradient_accumulation_steps: batches whose gradients make one step.
        epochs: passes over the data.
        max_steps: steps after which the run ends early; None: after the epochs.
        clip_grad_norm: largest norm of the gradient; None: no clipping.
        num_workers: processes that load batches; 0: none beside the training itself.
        seed: of the weights, the order of samples and the tasks that they draw.
        log_every_n_steps: steps between log lines.
        validate_every_n_steps: steps between validations; None: at the start and the end only.
        validation_batches: most batches of a validation; None: all.
        save_every_n_steps: steps between checkpoints, beside one at the end of each epoch; None:
            only those.
        keep_checkpoints: newest checkpoints that are kept.
        export_released: epochs whose weights are written as meta_model_EPOCH.pt too.
        resume: ``auto``: go on from the newest checkpoint in ``output_dir``; ``never``: refuse a
            folder that holds one.
    """

    data_root: Path
    output_dir: Path
    vocabulary: str
    codebook: Path
    model: Annotated[Component, From(("kyvo.models",))]
    dataset: Annotated[Component, From(SOURCES)]
    optimizer: Annotated[Component, From(("torch.optim", "torchao.optim", "kyvo.training.muon"))]
    validation_dataset: Annotated[Component, From(SOURCES)] | None = None
    lr_scheduler: Annotated[Component, From(("torchtune.training.lr_schedulers",))] | None = None
    metric_logger: Annotated[Component, From(("torchtune.training.metric_logging",))] | None = None
    scene_schema: str | None = None
    tokenizer: Path | None = None
    llama_weights: Path | None = None
    checkpoint: Path | None = None
    lm_head_init: LmHeadInit = "llama"
    loss: LossConfig = LossConfig()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"
    compile: bool = False
    float8: bool = False
    batch_size: Count = 32
    gradient_accumulation_steps: Count = 1
    epochs: Count = 10
    max_steps: Count | None = None
    clip_grad_norm: Positive | None = 1.0
    num_workers: Whole = 0
    seed: Seed = 0
    log_every_n_steps: Count = 10
    validate_every_n_steps: Count | None = None
    validation_batches: Count | None = None
    save_every_n_steps: Count | None = None
    keep_checkpoints: Count = 2
    export_released: Literal["never", "last", "every_epoch"] = "last"
    resume: Literal["auto", "never"] = "auto"

    def __post_init__(self) -> None:
        problems = Problems()
        problems.attempt(get_vocabulary, self.vocabulary)
        if self.scene_schema is not None:
            problems.attempt(get_schema, self.scene_schema)
        problems.raise_any()
        check_ranges(self)
        warm_up = self.lr_scheduler.arguments.get("num_warmup_steps", 0) if self.lr_scheduler else 0
        if type(warm_up) is not int or warm_up < 0:
            raise ValueError(
                f"lr_scheduler.num_warmup_steps: expected a whole number of 0 or more, found "
                f"{warm_up!r}"
            )
        if self.float8 and (self.precision == "fp32" or not self.compile):
            raise ValueError(
                "float8: needs compile: true, without which its casts cost more than its matmuls "
                f"save, and precision bf16_mixed or bf16; found compile {self.compile}, "
                f"precision {self.precision}"
            )
        rounding = self.optimizer.arguments.get("bf16_stochastic_round", False)
        if self.precision == "bf16" and not rounding:
            # Plain bf16 updates round most small steps away.
            raise ValueError(
                "precision: bf16 weights need an optimizer with bf16_stochastic_round: true "
                "(torchao.optim.AdamW8bit), or use bf16_mixed, which keeps float32 weights"
            )

    @property
    def input_folders(self) -> tuple[Path, ...]:
        """Folders that are read, in which nothing may be written."""
        held_out = self.validation_dataset.folders() if self.validation_dataset else ()
        return (*self.dataset.folders(), *held_out)

    def on(self, device: torch.device) -> "TrainingConfig":
        """The same run with the precision that ``auto`` means on ``device``."""
        precision = resolve_precision(self.precision, device, "bf16_mixed", "fp32")
        return replace(self, precision=precision)
