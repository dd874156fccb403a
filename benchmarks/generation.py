"""Greedy generation: samples and tokens a second, lever by lever, beside the released way.

    python3 benchmarks/generation.py --device cuda --output benchmarks/results/generation.json
    python3 benchmarks/generation.py --device cpu --model mini --samples 64
    python3 benchmarks/generation.py --agreement configs/mini/eval/recognition.yaml

Weights and prompts are random; the grammar is the tasks' own, except that a scene does not end
before its tokens are used up. Every sample gets 110 new tokens (recognition) or 259 (rendering), as
in the measurement of the released code, which asks the whole model again for each token of each
sample. The ceiling is the time in which the bytes that must be read, or the matmuls that must be
made, can be: weights once a step, the used part of the cache, and 2 FLOPs for every weight and
token, over the copy and matmul rates measured in the same run.

--agreement instead asks a trained model how often other precisions choose the ids of float32.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import bench
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

import kyvo.common.cli
from kyvo.common.config import load_config
from kyvo.decoding import (
    Engine,
    GenerationConfig,
    GenerationSettings,
    load_model,
    plan_generation,
)
from kyvo.decoding.grammar import Automaton, output_automaton
from kyvo.decoding.quantization import Quantization
from kyvo.decoding.run import make_engine
from kyvo.models import KyvoModel, kyvo_model, llama3_2_1b, resolve_dtype
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.sequences import get_task
from kyvo.tokens.vocabulary import SCENE_END, get_vocabulary

CODES_PER_IMAGE = 256
VOCABULARY = get_vocabulary("clevr")
REFERENCE = "the released way: batch 1, no cache, the whole sequence anew for each token"
REFERENCE_TOKENS = 6
FLOOR = "bytes and FLOPs over the measured rates"
# Samples of a case with one row: enough that setting up does not count.
ALONE = 24

MODELS: Mapping[str, Callable[..., KyvoModel]] = {
    "llama3_2_1b": llama3_2_1b,
    "mini": partial(
        kyvo_model,
        num_layers=3,
        num_heads=4,
        num_kv_heads=4,
        embed_dim=128,
        intermediate_dim=384,
    ),
}


@dataclass(frozen=True)
class Workload:
    """A task, the fewest and most tokens of its prompts, and the new tokens of every sample."""

    task: str
    prompts: tuple[int, int]
    new_tokens: int


WORKLOADS = {
    "recognition": Workload("I-3", (261, 261), 110),
    # Scenes of 3 to 10 objects.
    "rendering": Workload("3-I", (47, 145), 259),
    # Image, scene and instruction to image and scene.
    "instruction following": Workload("I+3+T-I+3", (320, 430), 360),
    "question answering": Workload("I+3+Q-A", (320, 430), 4),
}


@dataclass(frozen=True)
class Case:
    """One way to generate one workload."""

    workload: str
    name: str = "all levers"
    batch_size: int = 512
    constrained: bool = True
    compiled: bool = True
    precision: str = "bf16"
    quantization: Quantization = "none"

    def __str__(self) -> str:
        return f"{self.workload}, batch {self.batch_size}, {self.name}"


LEVERS: Sequence[Mapping[str, object]] = (
    {},
    {"name": "layers not compiled", "compiled": False},
    {"name": "whole head, no grammar", "constrained": False},
    {"name": "batch", "batch_size": 256},
    {"name": "batch", "batch_size": 1024},
    {"name": "float8 weights and activations", "quantization": "float8"},
    {"name": "one sample at a time", "batch_size": 1},
    {"name": "one sample at a time, int8 weights", "batch_size": 1, "quantization": "int8"},
)


# A laptop's: float32, nothing compiled.
CPU_BASE = Case("", batch_size=64, compiled=False, precision="fp32")
CPU_LEVERS = (LEVERS[0], LEVERS[2], LEVERS[6])


def cases(device: torch.device) -> Iterator[Case]:
    """All cases, in the order of the table."""
    base, levers = (CPU_BASE, CPU_LEVERS) if device.type == "cpu" else (Case(""), LEVERS)
    for workload in ("recognition", "rendering"):
        for lever in levers:
            yield dataclasses.replace(base, workload=workload, **lever)  # type: ignore[arg-type]
    if device.type != "cpu":
        for workload in ("instruction following", "question answering"):
            yield Case(workload, "whole head, no grammar", 256, constrained=False)


class OneIdAWord:
    """A stand-in for a text tokenizer: every word of the schema is one token, as with Llama's."""

    size = VOCABULARY.num_text

    def encode(self, text: str) -> list[int]:
        """An id of the text block for the whole text."""
        return [1000 + sum(text.encode()) % 1000]

    def decode(self, ids: list[int]) -> str:
        """The ids themselves, as they are no text."""
        return str(ids)


def endless(workload: Workload) -> Automaton:
    """The grammar of the workload's outputs, in which no scene ends."""
    codec = SceneCodec(get_schema("clevr"), VOCABULARY, OneIdAWord())
    automaton = output_automaton(get_task(workload.task), codec, CODES_PER_IMAGE)
    next_state = automaton.next_state.copy()
    next_state[:, automaton.class_of_id[VOCABULARY.marker_id(SCENE_END)]] = -1
    return Automaton(automaton.class_of_id, next_state)


class Bench:
    """Runs cases of one model on one device."""

    def __init__(self, model_name: str, device: torch.device, samples: int) -> None:
        self.make_model = MODELS[model_name]
        self.device = device
        self.samples = samples
        self.ceilings = bench.ceilings(device)
        self._models: dict[str, KyvoModel] = {}
        self._references: dict[str, float] = {}

    def all_rows(self, chosen: Sequence[Case]) -> Iterator[bench.Row]:
        """The rows of every case that fits the device."""
        for case in chosen:
            bench.clear()
            try:
                yield from self.rows(case)
            except torch.OutOfMemoryError:
                print(f"{case}: out of GPU memory")

    def rows(self, case: Case) -> Iterator[bench.Row]:
        """Samples and tokens a second of one case."""
        workload = WORKLOADS[case.workload]
        reference = self._reference(case)
        count = self.samples if case.batch_size > 1 else min(self.samples, ALONE)
        prompts = self._prompts(workload, count)
        engine = self._engine(case, prompts)
        longest = sorted(prompts, key=len)[-2 * case.batch_size :]
        list(engine.generate(longest))  # compiles
        bench.wait_for(self.device)
        begun = time.perf_counter()
        found = list(engine.generate(prompts))
        bench.wait_for(self.device)
        seconds = time.perf_counter() - begun
        new = sum(len(generated.ids) for _, generated in found) / count
        floor = self._floor_seconds(case, prompts, new)
        for unit, amount in (("samples/s", count), ("tokens/s", count * new)):
            yield bench.Row(
                str(case),
                amount / seconds,
                unit,
                reference * amount / count,
                REFERENCE,
                amount / floor,
                FLOOR,
            )

    def _reference(self, case: Case) -> float:
        """Samples a second of the released way, from some tokens in the middle of an output."""
        if case.workload not in self._references:
            workload, model = WORKLOADS[case.workload], self._model(case.precision)
            length = sum(workload.prompts) // 2 + workload.new_tokens // 2
            ids_1L = torch.randint(VOCABULARY.size, (1, length)).to(self.device)
            with torch.inference_mode():
                seconds = bench.median_seconds(
                    lambda: int(model(ids_1L)[0, -1].argmax()), self.device, 3, REFERENCE_TOKENS
                )
            self._references[case.workload] = 1 / (seconds * workload.new_tokens)
        return self._references[case.workload]

    def profile(self, case: Case, top: int = 20) -> list[dict[str, object]]:
        """The kernels that take most of the device's time."""
        workload = WORKLOADS[case.workload]
        prompts = self._prompts(workload, 2 * case.batch_size)
        engine = self._engine(case, prompts)
        list(engine.generate(prompts[: case.batch_size]))
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
            list(engine.generate(prompts))
        return bench.kernel_table(recorded, top)

    def _engine(self, case: Case, prompts: Sequence[np.ndarray]) -> Engine:
        workload = WORKLOADS[case.workload]
        settings = GenerationSettings(
            eos=-1,
            max_new_tokens=workload.new_tokens,
            automaton=endless(workload) if case.constrained else None,
            quantization=case.quantization,
            compiled=case.compiled,
        )
        length = max(map(len, prompts)) + workload.new_tokens
        return Engine(self._model(case.precision), settings, case.batch_size, length)

    def _model(self, precision: str) -> KyvoModel:
        if precision not in self._models:
            self._models.clear()
            torch.manual_seed(0)
            with self.device:
                model = self.make_model(vocabulary=VOCABULARY, max_seq_len=1024)
            model.to(self.device, resolve_dtype(precision)).eval()
            model.tok_embeddings.materialize_table()
            self._models[precision] = model
        return self._models[precision]

    def _prompts(self, workload: Workload, count: int) -> list[np.ndarray]:
        random = np.random.default_rng(0)
        least, most = workload.prompts
        lengths = random.integers(least, most + 1, count)
        return [random.integers(2, VOCABULARY.size, length) for length in lengths]

    def _floor_seconds(self, case: Case, prompts: Sequence[np.ndarray], new: float) -> float:
        """The least time in which the prompts can be read and the tokens made."""
        model = self._model(case.precision)
        body = sum(p.numel() for layer in model.layers for p in layer.parameters())
        head = model.output.weight.numel()
        if case.constrained:
            width = model.output.weight.shape[1]
            head = len(endless(WORKLOADS[case.workload]).possible_ids) * width
        item = 1 if case.quantization != "none" else resolve_dtype(case.precision).itemsize
        attention = model.layers[0].attn
        per_token = 2 * len(model.layers) * attention.num_kv_heads * attention.head_dim
        per_token *= resolve_dtype(case.precision).itemsize
        lengths = np.array([len(prompt) for prompt in prompts])
        rows = min(case.batch_size, len(prompts))
        read = new * (
            (body + head) * item * len(prompts) / rows
            + per_token * float((lengths + new / 2).sum())
        )
        matmul_flops = 2 * (body + head) * new * len(prompts)
        prefill = 2 * body * float(lengths.sum())
        copied, multiplied = self.ceilings["copy_bytes_per_s"], self.ceilings["matmul_flops_per_s"]
        return max(read / copied, matmul_flops / multiplied) + prefill / multiplied


VARIANTS: Mapping[str, Mapping[str, str]] = {
    "bfloat16": {"precision": "bf16"},
    "int8 weights": {"quantization": "int8"},
    "whole head, no grammar": {"constrained": "false"},
}


def agreement(path: Path, overrides: Sequence[str]) -> Iterator[bench.Row]:
    """How often variants of a generation config choose the same ids as it does in float32."""
    expected = _generate(path, [*overrides, "precision=fp32"])
    for name, changes in VARIANTS.items():
        changed = [f"{key}={value}" for key, value in changes.items()]
        found = _generate(path, [*overrides, "precision=fp32", *changed])
        same = [np.array_equal(found[i], ids) for i, ids in expected.items()]
        ids = sum(
            int((ids[: len(found[i])] == found[i][: len(ids)]).sum()) for i, ids in expected.items()
        )
        total = sum(map(len, expected.values()))
        yield bench.Row(f"{path.stem}, {name}: samples as in float32", np.mean(same), "share")
        yield bench.Row(f"{path.stem}, {name}: ids as in float32", ids / total, "share")


def _generate(path: Path, overrides: Sequence[str]) -> dict[int, np.ndarray]:
    # Nothing is written, but a plan reads what an earlier run has left.
    unused = f"output_dir={tempfile.gettempdir()}/agreement"
    plan = plan_generation(load_config(GenerationConfig, path, [*overrides, unused]))
    samples = [plan.dataset[i][1] for i in plan.indices]
    prompts = [sample.tokens[: sample.prompt_length] for sample in samples]
    found = make_engine(plan, load_model(plan)).generate(prompts)
    return {place: generated.ids for place, generated in found}


def main(argv: Sequence[str]) -> None:
    arguments, overrides = kyvo.common.cli.split_overrides(argv)
    args = _parser().parse_args(arguments)
    device = bench.device_of(args)
    details: dict[str, object] = {}
    if args.agreement:
        measured = bench.ceilings(device)
        rows = agreement(args.agreement, [*overrides, f"device={device.type}"])
    else:
        runner = Bench(args.model, device, args.samples)
        measured = runner.ceilings
        chosen = [case for case in cases(device) if all(word in str(case) for word in args.only)]
        if args.profile:
            details["kernels"] = runner.profile(chosen[0])
        rows = runner.all_rows(chosen)
    bench.save(args.output, "benchmarks/generation.py", argv, device, measured, rows, details)


def _parser() -> argparse.ArgumentParser:
    parser = bench.argument_parser(__doc__.splitlines()[0])
    parser.add_argument("--model", choices=sorted(MODELS), default="llama3_2_1b", help="its size")
    parser.add_argument("--samples", type=int, default=2048, help="of each case")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name has all these")
    parser.add_argument("--profile", action="store_true", help="kernels of the first case")
    parser.add_argument("--agreement", type=Path, help="a generation config of a trained model")
    return parser


if __name__ == "__main__":
    kyvo.common.cli.run(main)
