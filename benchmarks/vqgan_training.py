r"""Training steps of the image tokenizer: images a second, one choice of the config after another.

    python3 benchmarks/vqgan_training.py --device cuda model.ch=64 \
        --output benchmarks/results/vqgan-training-h100.json

Every case trains the config's VQGAN from its start on one batch of its stream that is on the
device: the update of a run with codes, its norm of the gradient included, the revival of codes and
the making of images not. That has rows of its own. What a step is bounded by shows in the ceiling
(its matmuls at the measured rate of a large one) and in the host's time, which is that of the
launches alone: a step that takes no longer waits for the host.

Shape legend: B batch, C channels, H height, W width.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench
import torch
from bench import Row
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import kyvo.common.cli
from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.images.layers import GroupNorm
from kyvo.images.preprocessing import to_model_range
from kyvo.training.vqgan import VQGANTrainingConfig
from kyvo.training.vqgan.step import VQGANTrainer

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs/mid/vqgan.yaml"
CEILING = "its matmuls at the measured rate of a large one"
STEPS = 5  # that are timed together


@dataclass(frozen=True)
class Lever:
    """One way to run a step.

    Attributes:
        name: in words.
        settings: keys of the config that it changes.
        torchs_norm: normalise with torch's module when compiled too.
        is_tuned: let cuDNN time its algorithms.
        uses_muon: the config's optimizer; else Adam for all weights.
        is_slow: takes minutes to compile, so that it runs only when it is asked for.
    """

    name: str
    settings: dict[str, Any]
    torchs_norm: bool = False
    is_tuned: bool = False
    uses_muon: bool = True
    is_slow: bool = False


_EAGER = {"compile": False}
_FAST = {"precision": "bf16_mixed", "channels_last": True, "compile": True}
REFERENCE = Lever("float32", {**_EAGER, "precision": "fp32", "channels_last": False})
LEVERS = (
    REFERENCE,
    Lever("bf16", {**_EAGER, "precision": "bf16_mixed", "channels_last": False}),
    Lever("bf16, channels last", {**_EAGER, "precision": "bf16_mixed", "channels_last": True}),
    Lever("bf16, channels last, compiled", _FAST),
    Lever("the same, cuDNN tuned", _FAST, is_tuned=True),
    Lever("the same, cuDNN tuned, Adam alone", _FAST, is_tuned=True, uses_muon=False),
    Lever(
        "the same, cuDNN tuned, CUDA graphs",
        {**_FAST, "compile_mode": "reduce-overhead"},
        is_tuned=True,
    ),
    Lever("bf16, channels last, compiled, torch's norm", _FAST, torchs_norm=True),
    Lever("bf16, compiled", {**_FAST, "channels_last": False}),
    Lever(
        "the same, autotuned",
        {**_FAST, "compile_mode": "max-autotune-no-cudagraphs"},
        is_tuned=True,
        is_slow=True,
    ),
)


class TrainingBench:
    """Times the updates of one config on one device.

    Args:
        config: of a run whose images are streamed.
        sizes: of batches.
        levers: ways to run them.
        seconds: after which no further case begins.
    """

    def __init__(
        self,
        config: VQGANTrainingConfig,
        device: torch.device,
        sizes: Sequence[int],
        levers: Sequence[Lever],
        seconds: float,
    ) -> None:
        if config.data.stream is None:
            raise InputError("config: data.stream is null; name a stream to take images from.")
        codebook = dataclasses.replace(config.codebook, start_step=0, revive_until=0.0)
        self.config = dataclasses.replace(config, codebook=codebook)
        self.stream = config.data.stream
        self.device = device
        self.sizes = sizes
        self.levers = levers
        self.ends = time.perf_counter() + seconds
        self.ceilings = bench.ceilings(device)
        self.references: dict[int, float] = {}

    def rows(self) -> Iterator[Row]:
        """Images of the stream, then every lever at every batch size."""
        yield from self._stream()
        flops = self._flops()
        yield Row("matmuls of a step, per image", flops / 1e9, "GFLOP")
        limit = self.ceilings["matmul_flops_per_s"] / flops
        for lever in self.levers:
            for size in self.sizes:
                if time.perf_counter() > self.ends:
                    print(f"left out, the time is over: {lever.name}, batch {size}")
                    continue
                yield from self._case(lever, size, limit)

    def _stream(self) -> Iterator[Row]:
        """Images a second that the stream makes: a chunk of scenes, rendered."""
        size = max(self.sizes)
        stream = self._built(size)
        count = stream._scene_size
        stream.batch(count // size)  # Another chunk: kernels are compiled in it.
        bench.wait_for(self.device)
        begun = time.perf_counter()
        for first in range(0, count, stream._render_size):
            stream.batch(first // size)
        bench.wait_for(self.device)
        rate = count / (time.perf_counter() - begun)
        yield Row("images of the stream", rate, "images/s", note=f"{count:,} scenes drawn at once")

    def _case(self, lever: Lever, size: int, limit: float) -> Iterator[Row]:
        bench.clear()
        bench.reset_peak_memory(self.device)
        torch.backends.cudnn.benchmark = lever.is_tuned
        begun = time.perf_counter()
        steps = self._steps(lever, size)
        steps()
        bench.wait_for(self.device)
        start = time.perf_counter() - begun
        rate = STEPS * size / bench.median_seconds(steps, self.device, 1, 3)
        if lever == REFERENCE:
            self.references[size] = rate
        yield Row(
            f"{lever.name}, batch {size}",
            rate,
            "images/s",
            reference=self.references.get(size),
            reference_source=REFERENCE.name,
            ceiling=limit,
            ceiling_source=CEILING,
            note=f"host {self._host_seconds(steps) * 1e3:.1f} ms of {size / rate * 1e3:.1f} ms "
            f"a step, first steps {start:.0f} s, {bench.peak_memory(self.device) / 2**30:.1f} GiB",
        )

    def _host_seconds(self, steps: Callable[[], None]) -> float:
        """Seconds that the host takes to launch one step; the queue holds a few of them."""
        bench.wait_for(self.device)
        begun = time.perf_counter()
        steps()
        seconds = (time.perf_counter() - begun) / STEPS
        bench.wait_for(self.device)
        return seconds

    def _steps(self, lever: Lever, size: int) -> Callable[[], None]:
        """A few updates in a row."""
        trainer, images_BCHW = self._trainer(lever, size)

        def steps() -> None:
            for step in range(STEPS):
                trainer.update(images_BCHW, step, 0.5)
                trainer.gradient_norm()

        return steps

    def _trainer(self, lever: Lever, size: int) -> tuple[VQGANTrainer, Tensor]:
        settings = dict(lever.settings)
        if not lever.uses_muon:
            optimizer = dataclasses.replace(self.config.optimizer, muon_learning_rate=None)
            settings["optimizer"] = optimizer
        config = dataclasses.replace(self.config, batch_size=size, **settings)
        torch.manual_seed(0)
        trainer = VQGANTrainer(config, self.device)
        if lever.torchs_norm:
            for layer in trainer.model.modules():
                if isinstance(layer, GroupNorm):
                    layer.__class__ = nn.GroupNorm
        return trainer, trainer.prepare(to_model_range(self._built(size).batch(0)[:size]), 0.0)

    def _built(self, size: int) -> Any:
        side = self.config.model.resolution
        return self.stream.build(side=side, batch_size=size, device=self.device)

    def _flops(self) -> float:
        """FLOP of the matmuls and convolutions of both passes, per image."""
        size = min(self.sizes)
        trainer, images_BCHW = self._trainer(REFERENCE, size)
        with FlopCounterMode(display=False) as counter:
            trainer.forward(images_BCHW, True).terms["reconstruction"].backward()
        return counter.get_total_flops() / size


def main(argv: Sequence[str]) -> None:
    """Parse, measure, save."""
    values, overrides = kyvo.common.cli.split_overrides(argv)
    parser = bench.argument_parser(__doc__)
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="yaml file of a streamed run")
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64], help="batch sizes")
    names = [lever.name for lever in LEVERS]
    parser.add_argument("--levers", choices=names, nargs="+", help="only these ways to run a step")
    parser.add_argument(
        "--seconds", type=float, default=85.0, help="time after which no further case begins"
    )
    args = parser.parse_args(values)
    if min(args.batches) < 1:
        raise InputError("--batches: expected 1 or more.")
    chosen = args.levers or [lever.name for lever in LEVERS if not lever.is_slow]
    levers = [lever for lever in LEVERS if lever.name in chosen]
    config = load_config(VQGANTrainingConfig, args.config, overrides)
    device = bench.device_of(args)
    measured = TrainingBench(config, device, args.batches, levers, args.seconds)
    script, ceilings = "benchmarks/vqgan_training.py", measured.ceilings
    bench.save(args.output, script, argv, device, ceilings, measured.rows())


if __name__ == "__main__":
    kyvo.common.cli.run(main)
