"""A streamed training run, part by part: drawing, placing, the update, and all of them together.

    python3 benchmarks/streaming.py --device cuda --config configs/mid/train/unified.yaml \
        --output benchmarks/results/streaming-h100.json dataset.vqgan=RUN codebook=RUN/codebook.npy

Drawing is what the worker processes give; placing renders and encodes on the device; the update is
a training step of placed batches. Where the whole is slower than each part, they wait for each
other. On a CPU the same code runs small: compile=false batch_size=4.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import bench
import torch
from bench import Row
from torch.profiler import profile

import kyvo.common.cli
from kyvo.common.config import load_config
from kyvo.data.batches import Batch
from kyvo.prepare.stream import DRAWN_TOGETHER
from kyvo.training import TrainingConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import full_finetune_single_device_3d as recipes

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs/mid/train/unified.yaml"
WARM_UP, TIMED, TRACED = 24, 24, 4
"""Steps: before anything is timed, in each row, and in the trace."""
Group = list[Batch]


class StreamingBench:
    """A run that is set up, and the rows of its parts."""

    def __init__(
        self, config: TrainingConfig, device: torch.device, steps: tuple[int, int]
    ) -> None:
        self.device, (self.warm_up, self.timed) = device, steps
        self.run = recipes.FullFinetuneRecipeSingleDevice3D(config)
        self.run.setup()
        self.details: dict[str, Any] = {}
        # What workers have drawn before anybody asks is none of their rate: two pools each.
        group_size = config.batch_size * config.gradient_accumulation_steps
        ahead = 2 * config.num_workers * max(DRAWN_TOGETHER, config.batch_size)
        self.drawn_ahead = min(ahead // group_size, steps[0] * 8)

    def rows(self, ceilings: dict[str, float]) -> Iterator[Row]:
        """One row after the other."""
        groups = self.run._rest_of_epoch()
        for group in islice(groups, self.warm_up):
            self.run._update(group)
        whole, samples, tokens = self._timed(groups, self.run._update)
        yield Row("training, all parts together", samples / whole, "samples/s")
        yield Row("training, all parts together", tokens / whole, "tokens/s")
        for _ in islice(groups, self.drawn_ahead):
            pass
        drawn: list[Group] = []
        seconds, samples, _ = self._timed(groups, drawn.append)
        yield Row("drawing alone, in the workers", samples / seconds, "samples/s")
        placed: list[Group] = []
        seconds, samples, _ = self._timed(
            iter(drawn), lambda group: placed.append(self._place(group))
        )
        yield Row("placing alone: rendered, encoded", samples / seconds, "samples/s")
        self.run.dataset.place = lambda batch, device: batch  # type: ignore[method-assign]
        seconds, samples, tokens = self._timed(iter(placed), self.run._update)
        yield Row("the update alone", samples / seconds, "samples/s")
        rate = ceilings["matmul_flops_per_s"] / self._flops_per_token()
        ceiling = (rate, "6 FLOP a weight and token at the measured rate of a large matmul")
        yield Row("the update alone", tokens / seconds, "tokens/s", None, "", *ceiling)
        with profile() as recorded:
            self._timed(iter(placed[:TRACED]), self.run._update)
        self.details["kernels"] = bench.kernel_table(recorded, 30)

    def _timed(
        self, groups: Iterator[Group], work: Callable[[Group], Any]
    ) -> tuple[float, int, int]:
        """Seconds, samples and real tokens of some steps' groups of batches."""
        bench.wait_for(self.device)
        begun, samples, tokens = time.perf_counter(), 0, 0
        for group in islice(groups, self.timed):
            work(group)
            samples += sum(len(batch.keys) for batch in group)
            tokens += sum(batch.num_tokens for batch in group)
        bench.wait_for(self.device)
        return time.perf_counter() - begun, samples, tokens

    def _place(self, group: Group) -> Group:
        return [self.run.dataset.place(batch, self.device) for batch in group]

    def _flops_per_token(self) -> float:
        layers = self.run.model.layers.parameters()
        return 6.0 * sum(weight.numel() for weight in layers)


def main(argv: Sequence[str]) -> None:
    """Parse, measure, save."""
    values, overrides = kyvo.common.cli.split_overrides(argv)
    parser = bench.argument_parser(__doc__)
    parser.add_argument("--config", default=DEFAULT_CONFIG, help="yaml file of a streamed run")
    parser.add_argument("--quick", action="store_true", help="two steps of everything")
    args = parser.parse_args(values)
    device = bench.device_of(args)
    parts = [f"device={device.type}", "validation_dataset=null", *overrides]
    config = load_config(TrainingConfig, args.config, parts)
    measured = StreamingBench(config, device, (2, 2) if args.quick else (WARM_UP, TIMED))
    ceilings = bench.ceilings(device)
    rows, script = measured.rows(ceilings), "benchmarks/streaming.py"
    bench.save(args.output, script, argv, device, ceilings, rows, measured.details)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
