r"""Making worlds: images a second of the ray tracer, of PNG files, and of items on disk.

    python3 benchmarks/world.py --device cuda --count 4096 --items 4000 --workers 16 \
        --output benchmarks/results/world-h200.json
    python3 benchmarks/world.py --device cpu --output benchmarks/results/world-cpu.json
    python3 benchmarks/world.py --device cpu --only scenes instructions questions --count 2048 \
        --output drawing-cpu.json

Scenes hold 3 to 10 objects. Rendering is timed from scenes to uint8 images on the host.
Operations are counted by arithmetic: one for every number that a sum, a product, a comparison or a
function of the tracer gives. Each is a kernel of its own, so the datasheet's float32 rate is far
away.
"""

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import bench
import numpy as np
import torch
from bench import Row
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import kyvo.common.cli
from kyvo.common.errors import InputError
from kyvo.common.image_files import encode_png
from kyvo.world import ClevrScene, SceneOptions, render, sample_scene
from kyvo.world.render import tracer
from kyvo.world.tasks import TASKS, scene_options
from kyvo.world.writer import WorldOptions, write_world

DATASHEET_FLOAT32 = {"NVIDIA H200": 67e12}
"""FLOP/s of float32 outside the tensor cores."""

NO_ARITHMETIC = frozenset({"clone", "copy_", "fill_"})
"""Elementwise operations of aten that only move numbers."""
REDUCTIONS = frozenset({"amax", "amin", "max", "min", "sum"})
"""Those of which the numbers that go in count."""

COUNTED_SCENES = 16
"""Scenes in which work is counted, and whose images are encoded."""
CPU = torch.device("cpu")

Scene = ClevrScene


@dataclass(frozen=True)
class RenderSettings:
    """How images are rendered, and of how many scenes: large ones take longer."""

    side: int
    samples_per_pixel: int
    part: int = 1

    def __str__(self) -> str:
        return f"{self.side} x {self.side} x {self.samples_per_pixel} rays"


@dataclass(frozen=True)
class Work:
    """What one image takes on average: rays of each kind, and operations of the tracer."""

    rays: Mapping[str, float]
    operations: float


class OperationCounter(TorchDispatchMode):
    """Counts the arithmetic of the tensor operations inside its ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in REDUCTIONS:
            self.operations += args[0].numel()
        elif torch.Tag.pointwise in func.tags and name not in NO_ARITHMETIC:
            self.operations += result.numel()
        return result


def count_work(scenes: Sequence[Scene], settings: RenderSettings) -> Work:
    """Count rays and operations while the scenes are drawn on the CPU."""
    rays: Counter[str] = Counter()
    find_lit = tracer.visible_lights

    def counting(primitives: Any, traced: Any, surface: Any, light: Any) -> Tensor:
        is_mirrored = bool((traced.source_R >= 0).any())
        rays["mirror" if is_mirrored else "camera"] += traced.directions_3R.shape[1]
        rays["shadow"] += int((light.arriving_LR > 0).sum())
        return find_lit(primitives, traced, surface, light)

    with patch.object(tracer, "visible_lights", counting), OperationCounter() as counter:
        render(scenes, settings.side, settings.side, settings.samples_per_pixel)
    shares = {kind: count / len(scenes) for kind, count in rays.items()}
    return Work(shares, counter.operations / len(scenes))


SETTINGS = (RenderSettings(64, 2), RenderSettings(256, 4, part=8))
TASK_SETTINGS = RenderSettings(32, 1)


class Bench:
    """Times the parts of making a world on one device."""

    def __init__(self, device: torch.device, count: int, repeats: int) -> None:
        self.device = device
        self.count = count
        self.repeats = repeats

    def rows(self, sizes: Sequence[RenderSettings]) -> Iterator[Row]:
        """What one process does: draws scenes, renders them, encodes the images."""
        yield self._sampling()
        for settings in sizes:
            scenes = random_scenes(max(1, self.count // settings.part), settings)
            yield from self._rendering(scenes, settings)
            yield self._encoding(scenes, settings)

    def _sampling(self) -> Row:
        with one_thread():
            seconds = self._seconds(lambda: random_scenes(self.count, TASK_SETTINGS), CPU)
        return Row("random scenes, a core", self.count / seconds, "scenes/s")

    def drawing(self, tasks: Iterable[str]) -> Iterator[Row]:
        """What one core draws of each task where items are drawn many at a time."""
        for name in tasks:
            sample = TASKS[name].sample_many
            draw = partial(sample, range(self.count), "train", 0, scene_options(name))
            with one_thread():
                seconds = min(cpu_seconds(draw) for _ in range(self.repeats))
            yield Row(
                f"drawing {name}, a core",
                self.count / seconds,
                "items/s",
                note=f"{self.count} at once, by the processor's time, the best of {self.repeats}",
            )

    def _rendering(self, scenes: Sequence[Scene], settings: RenderSettings) -> Iterator[Row]:
        size = (settings.side, settings.side, settings.samples_per_pixel)
        seconds = self._seconds(lambda: render(scenes, *size, self.device), self.device)
        work = count_work(scenes[:COUNTED_SCENES], settings)
        peak = float32_peak(self.device)
        yield Row(
            f"rendering, {settings}",
            len(scenes) / seconds,
            "images/s",
            ceiling=peak / work.operations if peak else None,
            ceiling_source="float32 rate of the datasheet" if peak else "",
        )
        for kind, count in work.rays.items():
            yield Row(f"{kind} rays of an image of {settings}", count, "rays")
        per_ray = work.operations / sum(work.rays.values())
        yield Row(f"operations of a ray of any kind, {settings}", per_ray, "FLOP")

    def _encoding(self, scenes: Sequence[Scene], settings: RenderSettings) -> Row:
        drawn = render(scenes[:COUNTED_SCENES], settings.side, settings.side)
        seconds = self._seconds(lambda: encode(drawn), CPU)
        what = f"PNG encoding, {settings.side} x {settings.side}, a core"
        return Row(what, len(drawn) / seconds, "images/s")

    def _seconds(self, function: Callable[[], object], device: torch.device) -> float:
        return bench.median_seconds(function, device, 1, self.repeats)


def cpu_seconds(function: Callable[[], object]) -> float:
    """Time that the process spends in a call: other processes don't count."""
    start = time.process_time()
    function()
    return time.process_time() - start


@contextmanager
def one_thread() -> Iterator[None]:
    """Leave torch one core, as workers do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def random_scenes(count: int, settings: RenderSettings) -> list[Scene]:
    """CLEVR's own scenes, as many as asked for."""
    options = SceneOptions(height=settings.side, width=settings.side)
    return [sample_scene(index, "test", 0, options) for index in range(count)]


def float32_peak(device: torch.device) -> float | None:
    """FLOP/s by the datasheet, None where none is written down."""
    is_gpu = device.type == "cuda"
    return DATASHEET_FLOAT32.get(torch.cuda.get_device_name(device)) if is_gpu else None


def writing(
    task: str, settings: RenderSettings, items: int, device: torch.device, workers: int
) -> Row:
    """Items a second of ``make_world``, files included."""
    scenes = scene_options(task, height=settings.side, width=settings.side)
    options = WorldOptions(scenes, settings.samples_per_pixel, task=task)
    splits = {"train": max(1, items // settings.part)}
    with tempfile.TemporaryDirectory() as folder:
        done = write_world(Path(folder), splits, options, str(device), workers)
    return Row(
        f"make_world, {task}, {settings}, {workers} workers",
        done.num_made / done.seconds,
        "items/s",
        note=f"{done.num_made} items, files and the start of the workers included",
    )


def encode(images_NHW3: np.ndarray) -> int:
    """The bytes of all images as PNG files, made as ``make_world`` makes them."""
    return sum(len(encode_png(image)) for image in images_NHW3)


def main(argv: Sequence[str]) -> None:
    """Parse, measure, save."""
    parser = bench.argument_parser(__doc__)
    parser.add_argument("--count", type=int, default=128, help="scenes to render at 64 x 64")
    parser.add_argument("--items", type=int, default=2000, help="items of every world on disk")
    parser.add_argument("--workers", type=int, default=2, help="processes that make a world")
    parser.add_argument(
        "--repeats", type=int, default=5, help="timings, of which the median counts"
    )
    parser.add_argument(
        "--only", choices=TASKS, nargs="+", help="measure only how many items of these are drawn"
    )
    parser.add_argument("--sides", type=int, nargs="+", help="only images of these sides")
    args = parser.parse_args(argv)
    if min(args.count, args.items, args.repeats) < 1:
        raise InputError("--count, --items and --repeats: expected 1 or more.")
    device = bench.device_of(args)
    sizes = [settings for settings in SETTINGS if settings.side in (args.sides or [settings.side])]
    worlds = [("scenes", settings) for settings in sizes] + [(t, TASK_SETTINGS) for t in TASKS]
    measured = Bench(device, args.count, args.repeats)
    rows = chain(
        measured.rows(sizes),
        measured.drawing(TASKS),
        (writing(*world, args.items, device, args.workers) for world in worlds),
    )
    if args.only:
        rows = chain(measured.drawing(args.only))
    bench.save(args.output, "benchmarks/world.py", argv, device, bench.ceilings(device), rows)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
