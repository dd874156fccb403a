"""The keys of a generation (eval) config. The yaml files comment every one of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch

from kyvo.common.config import Component, From
from kyvo.common.devices import resolve_precision
from kyvo.common.errors import Problems
from kyvo.decoding.quantization import Quantization
from kyvo.decoding.sampling import GREEDY, Sampling
from kyvo.scenes import get_schema
from kyvo.tokens.vocabulary import get_vocabulary

_LEAST = {"max_new_tokens": 1, "batch_size": 1, "num_samples": 1, "first_sample": 0}


@dataclass(frozen=True)
class GenerationConfig:
    """A generation run."""

    data_root: Path
    output_dir: Path
    run_identifier: str
    three_d_json_folder: Path
    image_embeddings_folder: Path
    checkpoint: Path | None
    vocabulary: str
    scene_schema: str
    codebook: Path
    model: Annotated[Component, From(("kyvo.models",))]
    dataset: Annotated[Component, From(("kyvo.data.dataset",))]
    tokenizer: Path | None = None
    subtask: str | None = None  # part of the test set; the config reads it, as ${subtask}
    max_new_tokens: int = 1024
    batch_size: int = 32
    first_sample: int = 0
    num_samples: int | None = None
    sampling: Sampling = GREEDY
    constrained: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    quantization: Quantization = "none"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        problems = Problems()
        problems.attempt(get_vocabulary, self.vocabulary)
        problems.attempt(get_schema, self.scene_schema)
        problems.raise_any()
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"{name}: expected {least} or more, found {value}")
        if "/" in self.run_identifier or self.run_identifier in ("", ".", ".."):
            raise ValueError(f"run_identifier: {self.run_identifier!r} cannot be a folder name")

    def on(self, device: torch.device) -> "GenerationConfig":
        """The same run with the precision that ``auto`` means on ``device``."""
        return replace(self, precision=resolve_precision(self.precision, device, "bf16", "fp32"))
