"""The keys of a generation (eval) config. The yaml files comment every one of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch

from kyvo.common.config import Component, Count, From, Seed, Whole, check_ranges
from kyvo.common.devices import resolve_precision
from kyvo.common.errors import Problems
from kyvo.decoding.numbers import Numbers
from kyvo.decoding.quantization import Quantization
from kyvo.decoding.sampling import GREEDY, Sampling
from kyvo.scenes import get_schema
from kyvo.tokens.vocabulary import get_vocabulary


@dataclass(frozen=True)
class GenerationConfig:
    """A generation run.

    A checkpoint of this project says itself what its weights are; a released one does not, and
    then ``vocabulary``, ``scene_schema``, ``codebook`` and ``model`` have to be given.

    Attributes:
        data_root: folder of the data; other paths of the config begin with it.
        output_dir: folder of the results; other paths of the config begin with it.
        run_identifier: names the result folder and files.
        three_d_json_folder, image_embeddings_folder: where scenes and images are written.
        checkpoint: a run's folder (its newest), a checkpoint folder or a file; None: random
            weights.
        dataset: the samples, of one task.
        vocabulary: preset or yaml file of the id space; None: the checkpoint's.
        scene_schema: preset or yaml file of an object's fields; None: the checkpoint's.
        codebook: file of the VQGAN's code vectors; None: the checkpoint's.
        model: builder and size of the model; None: the checkpoint's.
        tokenizer: file or folder of the text tokenizer; None: the checkpoint's or the
            vocabulary's own.
        subtask: part of the test set; the config reads it, as ``${subtask}``.
        max_new_tokens: ids generated at most, per sample.
        batch_size: samples decoded together.
        first_sample: index of the first sample, in the order of the keys.
        num_samples: how many from there; None: all.
        sampling: how ids are chosen.
        constrained: only outputs that the task's grammar allows.
        numbers: of scenes: those of the chosen tokens (best), or the means over the bins around
            them (expected), which are finer than the grid.
        device: where to compute.
        precision: of the weights.
        quantization: of the layers' weights.
        compile: compile the layers.
        seed: of the random weights.
    """

    data_root: Path
    output_dir: Path
    run_identifier: str
    three_d_json_folder: Path
    image_embeddings_folder: Path
    checkpoint: Path | None
    dataset: Annotated[Component, From(("kyvo.data.dataset",))]
    vocabulary: str | None = None
    scene_schema: str | None = None
    codebook: Path | None = None
    model: Annotated[Component, From(("kyvo.models",))] | None = None
    tokenizer: Path | None = None
    subtask: str | None = None
    max_new_tokens: Count = 1024
    batch_size: Count = 32
    first_sample: Whole = 0
    num_samples: Count | None = None
    sampling: Sampling = GREEDY
    constrained: bool = True
    numbers: Numbers = "best"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    quantization: Quantization = "none"
    compile: bool = False
    seed: Seed = 0

    def __post_init__(self) -> None:
        problems = Problems()
        if self.vocabulary is not None:
            problems.attempt(get_vocabulary, self.vocabulary)
        if self.scene_schema is not None:
            problems.attempt(get_schema, self.scene_schema)
        problems.raise_any()
        check_ranges(self)
        if "/" in self.run_identifier or self.run_identifier in ("", ".", ".."):
            raise ValueError(f"run_identifier: {self.run_identifier!r} cannot be a folder name")

    @property
    def input_folders(self) -> tuple[Path, ...]:
        """Folders that are read, in which nothing may be written."""
        return self.dataset.folders()

    def on(self, device: torch.device) -> "GenerationConfig":
        """The same run with the precision that ``auto`` means on ``device``."""
        return replace(self, precision=resolve_precision(self.precision, device, "bf16", "fp32"))
