"""Training: speed, memory and loss curves, lever by lever, beside the reference's step.

    python3 benchmarks/training.py --device cuda --model llama3_2_1b --output training.json

Steps are the recipe's, over the project's own loader and data of realistic lengths; the reference
is a step as the released code takes it (``training_reference.py``), in the same run.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench import (
    Row,
    argument_parser,
    ceilings,
    clear,
    device_of,
    kernel_table,
    peak_memory,
    reset_peak_memory,
    save,
    wait_for,
)
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from training_data import Shape, open_task, write_data
from training_reference import dense_labels, reference_loss, use_torchtunes_attention

import kyvo.common.cli
from kyvo.common.config import Component
from kyvo.common.errors import InputError
from kyvo.data.batches import Batch, BatchSettings, length_buckets, make_loader
from kyvo.data.dataset import KyvoDataset
from kyvo.models import KyvoModel
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.training import (
    LossConfig,
    TrainingConfig,
    apply_compile_and_float8,
    apply_gradients,
    autocast,
    build_optimizer,
    language_loss,
    length_multiple,
    loss_weight,
)
from kyvo.training.runtime import weight_dtype

FORMULA = (
    "FLOPs of a step: 6 x matrix parameters of the layers x real tokens, of the last layer's "
    "feed-forward block and of the head x labelled positions alone, + 6 x layers x width x tokens "
    "of a sequence x real tokens (causal attention); the same for every case, whatever it computes "
    "besides. MFU: that over the seconds, over the measured ceiling of a bfloat16 matmul (on a "
    "CPU float32)."
)
WARMUP_STEPS = 5
Step = Callable[[Batch], Tensor]


@dataclass(frozen=True)
class Model:
    """A model and the sizes of its data."""

    vocabulary: str
    component: Component
    shape: Shape


@dataclass(frozen=True)
class Workload:
    """A task and the batch size that the paper trains it with."""

    task: str
    batch_size: int


@dataclass(frozen=True)
class Case:
    """What is switched on: changes of the config, and levers of the code that are undone.

    ``undone``: "all" (the reference's step), "attention" (torchtune's), "labels" (the head sees
    every position), "asking" (the host waits for the gradient's norm in every step), "buckets"
    (batches of samples as they come, padded to the longest). ``kernels``: of attention, in order of
    preference; none: PyTorch's choice.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    undone: str = ""
    kernels: tuple[SDPBackend, ...] = ()

    def attention(self) -> AbstractContextManager[None]:
        """The context in which PyTorch chooses the kernel of attention."""
        return sdpa_kernel(list(self.kernels), set_priority=True) if self.kernels else nullcontext()


ADAMW = Component("torch.optim.AdamW", {"lr": 1e-4, "fused": True})
EIGHT_BIT = Component("torchao.optim.AdamW8bit", {"lr": 1e-4, "bf16_stochastic_round": True})
COMPILED = {"compile": True}
ROUNDED = {**COMPILED, "precision": "bf16", "optimizer": EIGHT_BIT}
ALL = {**ROUNDED, "float8": True}
CASES: dict[str, Case] = {
    "reference": Case(undone="all"),
    # One lever after the other.
    "labels": Case(),
    "compiled": Case(COMPILED),
    "bfloat16": Case(ROUNDED),
    "all": Case(ALL),
    # One lever alone taken off, or changed.
    "all-but-bfloat16": Case({**COMPILED, "float8": True}),
    "all-but-compiled": Case({**ROUNDED, "compile": False}),
    "all-but-attention": Case(ALL, "attention"),
    "all-but-labels": Case(ALL, "labels"),
    "all-but-asking": Case(ALL, "asking"),
    "all-but-buckets": Case(ALL, "buckets"),
    "all-chunked": Case({**ALL, "loss": LossConfig(head_chunk=1024)}),
    "all-cudnn": Case(ALL, kernels=(SDPBackend.CUDNN_ATTENTION, SDPBackend.MATH)),
    "all-flash": Case(ALL, kernels=(SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)),
}
CURVES: dict[str, Mapping[str, Any]] = {
    "float32": {"precision": "fp32"},
    "bf16_mixed": {},
    "bf16_mixed, compiled": COMPILED,
    "bfloat16 weights, 8-bit AdamW": ROUNDED,
    "all": ALL,
    "all, bf16_mixed weights": {**COMPILED, "float8": True},
}
WORKLOADS = {
    "recognition": Workload("I-3", 32),
    "rendering": Workload("3-I", 32),
    "instruction": Workload("I+3+T-I+3", 16),
}
MINI = {
    "num_layers": 2,
    "num_heads": 4,
    "num_kv_heads": 2,
    "embed_dim": 64,
    "intermediate_dim": 128,
    "max_seq_len": 512,
    "codebook_dim": 16,
    "initial_std": 0.05,
}
MODELS = {
    "llama3_2_1b": Model(
        "clevr", Component("kyvo.models.llama3_2_1b", {"max_seq_len": 1024}), Shape(256, (3, 10))
    ),
    "mini": Model("mini", Component("kyvo.models.kyvo_model", MINI), Shape(64, (1, 2))),
}


@dataclass(frozen=True)
class Measured:
    """Measurements of one case; rates are medians over the rounds.

    Attributes:
        samples, tokens: a second; tokens are real ones.
        flops: a second, by ``FORMULA``.
        loading: share of the time in which the host makes batches.
        memory: peak in bytes.
    """

    samples: float
    tokens: float
    flops: float
    loading: float
    memory: int


class Bench:
    """Measures cases of one model on one device, over data in ``folder``."""

    def __init__(self, model: Model, device: torch.device, folder: Path, samples: int) -> None:
        self.model, self.device = model, device
        self.vocabulary = get_vocabulary(model.vocabulary)
        self.paths = write_data(folder, self.vocabulary, model.shape, samples)

    def open(self, workload: Workload) -> KyvoDataset:
        """The workload's data set."""
        return open_task(self.paths, self.vocabulary, self.model.shape, workload.task)

    def batches(self, dataset: KyvoDataset, case: Case, batch_size: int) -> Iterator[Batch]:
        """Batches of the real loader, without end."""
        is_plain = case.undone in ("all", "buckets")
        multiple = 1 if case.undone == "all" else length_multiple(self.device)
        for epoch in count():
            dataset.set_epoch(epoch)
            # Of equal lengths, buckets are plain shuffled batches.
            lengths = dataset.lengths * 0 if is_plain else dataset.lengths
            plan = length_buckets(lengths, batch_size, 0, epoch)
            full = [batch for batch in plan if len(batch) == min(batch_size, len(dataset))]
            is_cuda = self.device.type == "cuda"
            settings = BatchSettings(batch_size, multiple=multiple, pin_memory=is_cuda)
            yield from make_loader(dataset, full, settings)

    def step(self, case: Case) -> tuple[Step, KyvoModel]:
        """A function that takes one training step and returns its loss, and its model."""
        if case.undone == "all":
            return self._reference_step()
        config = self.config(case.changes)
        loss = config.loss
        model = self._build(weight_dtype(config.precision))
        if case.undone == "attention":
            use_torchtunes_attention(model)
        parameters = model.trainable_parameters()
        optimizer = build_optimizer(config, parameters)
        apply_compile_and_float8(model, config)

        def step(batch: Batch) -> Tensor:
            weight = loss_weight(batch, loss.normalization)
            if case.undone == "labels":
                batch = with_every_position(batch)
            batch = batch.to(self.device)
            with case.attention():
                with autocast(config.precision, self.device):
                    sums = language_loss(
                        model, batch, loss.normalization, loss.head_chunk, config.compile
                    )
                mean = sums.total / weight
                mean.backward()
            norm = apply_gradients(parameters.values(), optimizer, None, config.clip_grad_norm)
            if case.undone == "asking":
                assert norm.isfinite()
            return mean.detach()

        return step, model

    def _reference_step(self) -> tuple[Step, KyvoModel]:
        model = self._build(torch.bfloat16)
        use_torchtunes_attention(model)
        parameters = model.trainable_parameters().values()
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)

        def step(batch: Batch) -> Tensor:
            labels_BL = dense_labels(batch).to(self.device)
            loss, _ = reference_loss(model, self.vocabulary, batch.to(self.device), labels_BL)
            loss.backward()
            apply_gradients(parameters, optimizer, None, 1.0)
            return loss.detach()

        return step, model

    def config(self, changes: Mapping[str, Any]) -> TrainingConfig:
        """The recipe's config with ``changes``; the files that it names are not read."""
        base = TrainingConfig(
            data_root=Path(),
            output_dir=Path(),
            vocabulary=self.model.vocabulary,
            codebook=Path(),
            model=self.model.component,
            dataset=Component("kyvo.data.dataset.kyvo_dataset"),
            optimizer=ADAMW,
            precision="bf16_mixed",
        )
        return dataclasses.replace(base, **changes)

    def _build(self, dtype: torch.dtype) -> KyvoModel:
        torch.manual_seed(0)
        with self.device:
            model: KyvoModel = self.model.component.build(vocabulary=self.vocabulary)
            codebook = model.tok_embeddings.vqgan_codebook.weight
            model.tok_embeddings.set_codebook(torch.randn_like(codebook))
        return model.to(self.device, dtype)

    def measure(self, case: Case, workload: Workload, steps: int, rounds: int) -> Measured:
        """Rates of ``rounds`` times ``steps`` steps after a warm-up."""
        step, model = self.step(case)
        batches = self.batches(self.open(workload), case, workload.batch_size)
        for batch in islice(batches, WARMUP_STEPS):
            step(batch)
        reset_peak_memory(self.device)
        found = [self._round(step, model, batches, steps) for _ in range(rounds)]
        samples, tokens, flops, loading = (
            statistics.median(values) for values in zip(*found, strict=True)
        )
        return Measured(samples, tokens, flops, loading, peak_memory(self.device))

    def _round(
        self, step: Step, model: KyvoModel, batches: Iterator[Batch], steps: int
    ) -> tuple[float, float, float, float]:
        """Samples, tokens and FLOPs a second, and the share of the time that loading takes."""
        samples = tokens = flops = loading = 0.0
        wait_for(self.device)
        begun = time.perf_counter()
        for _ in range(steps):
            asked = time.perf_counter()
            batch = next(batches)
            loading += time.perf_counter() - asked
            step(batch)
            samples += len(batch.keys)
            tokens += batch.num_tokens
            flops += flops_of(model, batch)
        wait_for(self.device)
        seconds = time.perf_counter() - begun
        return samples / seconds, tokens / seconds, flops / seconds, loading / seconds

    def kernels(self, case: Case, workload: Workload, steps: int = 3) -> list[dict[str, Any]]:
        """Where the device's time goes."""
        step, _ = self.step(case)
        batches = self.batches(self.open(workload), case, workload.batch_size)
        for batch in islice(batches, WARMUP_STEPS):
            step(batch)
        wait_for(self.device)
        kinds = [ProfilerActivity.CPU]
        kinds += [ProfilerActivity.CUDA] if self.device.type == "cuda" else []
        with profile(activities=kinds) as recorded:
            for batch in islice(batches, steps):
                step(batch)
            wait_for(self.device)
        return kernel_table(recorded)

    def curve(self, changes: Mapping[str, Any], workload: Workload, steps: int) -> list[float]:
        """The loss of every step, from the same start over the same batches."""
        case = Case(changes)
        step, _ = self.step(case)
        batches = self.batches(self.open(workload), case, workload.batch_size)
        losses = [step(batch) for batch in islice(batches, steps)]
        return torch.stack(losses).tolist()


def with_every_position(batch: Batch) -> Batch:
    """The same loss, with labels of no weight wherever there are none."""
    size = batch.tokens_BL.numel()
    labels, weights = torch.zeros(size, dtype=torch.int64), torch.zeros(size)
    labels[batch.positions_N], weights[batch.positions_N] = batch.labels_N, batch.weights_N
    every = dataclasses.replace(
        batch, positions_N=torch.arange(size), labels_N=labels, weights_N=weights
    )
    return every.pin_memory() if torch.cuda.is_available() else every


def flops_of(model: KyvoModel, batch: Batch) -> float:
    """See ``FORMULA``."""
    layers = sum(p.numel() for layer in model.layers for p in layer.parameters() if p.dim() > 1)
    at_labels = sum(p.numel() for p in model.layers[-1].mlp.parameters())
    width = model.output.weight.shape[1]
    length = batch.num_tokens / len(batch.keys)
    per_token = layers - at_labels + len(model.layers) * width * length
    per_label = at_labels + model.output.weight.numel()
    return 6 * (per_token * batch.num_tokens + per_label * len(batch.labels_N))


def is_possible(changes: Mapping[str, Any], device: torch.device) -> bool:
    """Whether the device can do it: float8 matmuls need a GPU."""
    return device.type == "cuda" or not changes.get("float8")


def rows_of(
    name: str, found: Measured, reference: Measured | None, measured: Mapping[str, float]
) -> list[Row]:
    """The rows of a case beside the reference's."""
    compared = (None, "") if reference is None else (reference.samples, "the reference's step")
    beside = (None, "") if reference is None else (reference.tokens, "the reference's step")
    peak = None if reference is None else reference.memory / 2**30
    ceiling = measured["matmul_flops_per_s"]
    return [
        Row(f"{name}: samples", found.samples, "samples/s", *compared),
        Row(f"{name}: real tokens", found.tokens, "tokens/s", *beside),
        Row(
            f"{name}: model FLOPs",
            found.flops / 1e12,
            "TFLOP/s",
            ceiling=ceiling / 1e12,
            ceiling_source="a large matmul's (MFU)",
        ),
        Row(f"{name}: peak memory", found.memory / 2**30, "GiB", peak, "the reference's step"),
        Row(f"{name}: host's time in loading", 100 * found.loading, "%"),
    ]


def measure_cases(
    bench: Bench,
    workload_names: Sequence[str],
    cases: Mapping[str, Case],
    batch_sizes: Sequence[int],
    steps: int,
    rounds: int,
    measured: Mapping[str, float],
) -> Iterator[Row]:
    """Rows of every case of every workload, and of "all" (or the last) at other batch sizes."""
    swept = "all" if "all" in cases else list(cases)[-1]
    jobs = []
    for name in workload_names:
        workload = WORKLOADS[name]
        jobs += [(name, case, workload.batch_size) for case in cases]
        jobs += [(name, swept, size) for size in batch_sizes]
    references: dict[str, Measured] = {}
    for name, case_name, size in jobs:
        title = f"{name}, batch {size}, {case_name}"
        case, workload = cases[case_name], dataclasses.replace(WORKLOADS[name], batch_size=size)
        if not is_possible(case.changes, bench.device):
            print(f"{title}: left out, float8 needs a GPU")
            continue
        clear()
        try:
            found = bench.measure(case, workload, steps, rounds)
        except torch.OutOfMemoryError:
            print(f"{title}: out of GPU memory")
            continue
        if case.undone == "all":
            references[name] = found
        yield from rows_of(title, found, references.get(name), measured)


def measure_curves(bench: Bench, workload: Workload, steps: int) -> dict[str, list[float]]:
    """Loss curves by what is switched on."""
    curves = {}
    for name, changes in CURVES.items():
        if is_possible(changes, bench.device):
            clear()
            curves[name] = bench.curve(changes, workload, steps)
            print(f"{name}: loss {curves[name][0]:.4f} to {curves[name][-1]:.4f}")
        else:
            print(f"{name}: left out, float8 needs a GPU")
    return curves


def main(argv: Sequence[str]) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--model", choices=MODELS, default="llama3_2_1b", help="shape of the model")
    add("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="tasks")
    add("--only", nargs="*", choices=CASES, help="cases; default: all; none given: none")
    add("--batch-sizes", nargs="*", type=int, default=[], help="others, for the case 'all'")
    add("--steps", type=int, default=20, help="steps of a round")
    add("--rounds", type=int, default=3, help="rounds; rates are their median")
    add("--samples", type=int, default=2048, help="samples in the synthetic data")
    add("--profile", choices=CASES, help="case whose kernels are listed")
    add("--curve", type=int, default=0, help="steps of the loss curves; 0: none")
    args = parser.parse_args(argv)
    if min(args.steps, args.rounds, args.samples, *args.batch_sizes) < 1:
        raise InputError("--steps, --rounds, --samples, --batch-sizes: expected 1 or more")
    device = device_of(args)
    cases = CASES if args.only is None else {name: CASES[name] for name in args.only}
    measured = ceilings(device)
    details: dict[str, Any] = {"formula": FORMULA}
    first = WORKLOADS[args.workload[0]]
    with TemporaryDirectory() as folder:
        bench = Bench(MODELS[args.model], device, Path(folder), args.samples)

        def rows() -> Iterator[Row]:
            if cases:
                counts = (args.batch_sizes, args.steps, args.rounds)
                yield from measure_cases(bench, args.workload, cases, *counts, measured)
            if args.profile:
                clear()
                details["kernels"] = bench.kernels(CASES[args.profile], first)
            if args.curve:
                details["curves"] = measure_curves(bench, first, args.curve)

        save(args.output, "benchmarks/training.py", argv, device, measured, rows(), details)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
