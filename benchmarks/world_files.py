r"""Worlds as files: seconds of each stage on a core, and items a second of both commands.

    python3 benchmarks/world_files.py --device cuda --items 50000 --workers 16 \
        --output benchmarks/results/world-files-h100.json
    python3 benchmarks/world_files.py --device cpu --quick

Items are CLEVR's scenes of 3 to 10 objects, the VQGAN that of ``configs/mid/vqgan.yaml``, with
random weights: its time does not depend on them. Stages are timed by the processor's time of one
process. A short run before the long one has the GPU's kernels compiled; both are told.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import bench
import numpy as np
import torch
from bench import Row
from world import cpu_seconds, one_thread

import kyvo.common.cli
from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, write_json
from kyvo.common.image_files import encode_png
from kyvo.common.workers import WorkerPool
from kyvo.images.codec import CodecPrecision, ImageCodec
from kyvo.images.preprocessing import load_images
from kyvo.images.vqgan import VQGAN
from kyvo.prepare.layout import ReleasedLayout
from kyvo.prepare.tokenization import WorldTokenizer, fast_batch_size
from kyvo.scenes import SceneCodec, get_schema
from kyvo.tokens.text_tokenizer import load_text_tokenizer
from kyvo.tokens.vocabulary import get_vocabulary
from kyvo.training.vqgan import VQGANTrainingConfig
from kyvo.world import SceneOptions, render
from kyvo.world.clevr.sampler import sample_each
from kyvo.world.writer import WorldOptions, write_world

CONFIGS = Path(__file__).parents[1] / "configs" / "mid"
SAMPLES_PER_PIXEL = 2
STAGE_ITEMS = 128
"""Items of which the stages are timed."""
SHORT_ITEMS = 256
"""Items of the run before the long one."""
SPLIT = "train"
_SECONDS_OF_A_TASK = 0.2


@dataclass(frozen=True)
class Settings:
    """What is measured: files of ``items`` images of this side in pixels."""

    side: int
    items: int
    workers: int
    device: torch.device
    repeats: int

    @property
    def world(self) -> WorldOptions:
        """The options of the world."""
        scenes = SceneOptions(height=self.side, width=self.side)
        return WorldOptions(scenes, SAMPLES_PER_PIXEL)

    def __str__(self) -> str:
        return f"{self.side} x {self.side} x {SAMPLES_PER_PIXEL} rays, {self.workers} workers"


def rows(settings: Settings, precisions: Sequence[CodecPrecision]) -> Iterator[Row]:
    """All measurements, cheap ones first."""
    with tempfile.TemporaryDirectory() as folder, one_thread():
        yield from stages(Path(folder), settings)
    if settings.workers:
        yield start_of_workers(settings.workers)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        short = replace(settings, items=min(SHORT_ITEMS, settings.items))
        yield making(root / "short", short, "make_world, first run")
        yield making(root / "world", settings, "make_world")
        for precision in precisions:
            first = tokenizing(root / "short", short, precision, "tokenize_world, first run")
            yield first
            yield tokenizing(root / "world", settings, precision, "tokenize_world")


def stages(folder: Path, settings: Settings) -> Iterator[Row]:
    """Milliseconds of one core for each stage that workers do."""
    options, count = settings.world.scenes, min(STAGE_ITEMS, settings.items)
    scenes = sample_each(range(count), SPLIT, 0, options)
    values = [scene.to_json() for scene in scenes]
    side = settings.side
    images = render(scenes, side, side, SAMPLES_PER_PIXEL, settings.device)
    scene_files = [folder / f"{index}.json" for index in range(count)]
    image_files = [folder / f"{index}.png" for index in range(count)]
    tokenizer = WorldTokenizer(scene_codec(), None, side, "near-to-far")
    timed: dict[str, Callable[[], object]] = {
        "sampling scenes": lambda: sample_each(range(count), SPLIT, 0, options),
        "writing JSON": lambda: [*map(write_json, scene_files, values, [False] * count)],
        "writing PNG": lambda: [*map(_write_png, images, image_files)],
        "reading PNG": lambda: load_images(image_files, side),
        "scenes as tokens": lambda: [tokenizer.scene_line(path.name, path) for path in scene_files],
    }
    for name, function in timed.items():
        seconds = min(cpu_seconds(function) for _ in range(settings.repeats))
        note = f"the best of {settings.repeats}, {count} at once"
        yield Row(f"{name}, a core, {side} x {side}", seconds / count * 1e3, "ms/item", note=note)


def _write_png(image: np.ndarray, path: Path) -> None:
    with atomic_file(path, durable=False) as temporary:
        temporary.write_bytes(encode_png(image))


def start_of_workers(workers: int) -> Row:
    """Seconds until the last of the workers has begun its first task."""
    start = time.monotonic()
    with WorkerPool(workers, _nothing) as pool:
        begun = max(pool.ordered(_begin, range(workers), ahead=workers))
    return Row(f"start of {workers} workers", begun - start, "s")


def _nothing() -> None:
    pass


def _begin(_: int) -> float:
    """When this task began; it keeps its worker from the next one."""
    begun = time.monotonic()
    time.sleep(_SECONDS_OF_A_TASK)
    return begun


def making(folder: Path, settings: Settings, what: str) -> Row:
    """Items a second of ``make_world``, from the call to the last file."""
    splits, device = {SPLIT: settings.items}, str(settings.device)
    done = write_world(folder, splits, settings.world, device, settings.workers)
    note = f"{done.num_made} items in {done.seconds:.1f} s"
    return Row(f"{what}, {settings}", done.num_made / done.seconds, "items/s", note=note)


def tokenizing(folder: Path, settings: Settings, precision: CodecPrecision, what: str) -> Row:
    """Items a second of ``tokenize_world``, from the call to the last file."""
    batch_size = fast_batch_size(settings.device, settings.side)
    codec = ImageCodec(vqgan(settings.side), settings.device, batch_size, precision)
    tokenizer = WorldTokenizer(scene_codec(), codec, settings.side, "near-to-far", settings.workers)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder.parent) as output:
        layout = ReleasedLayout(Path(output), "clevr")
        counts = tokenizer.tokenize_split(folder, SPLIT, layout)
        seconds = time.monotonic() - start
    name = f"{what}, {settings.side} x {settings.side}, {precision}, {settings.workers} workers"
    note = f"{counts['images']} items in {seconds:.1f} s, batches of {batch_size}"
    return Row(name, counts["images"] / seconds, "items/s", note=note)


def vqgan(side: int) -> VQGAN:
    """The mid-size VQGAN for images of this side, without training."""
    overrides = (f"model.resolution={side}",)
    config = load_config(VQGANTrainingConfig, CONFIGS / "vqgan.yaml", overrides)
    torch.manual_seed(0)
    return VQGAN(config.model)


def scene_codec() -> SceneCodec:
    """Writes scenes in the mid-size models' vocabulary."""
    vocabulary = get_vocabulary(str(CONFIGS / "vocabulary.yaml"))
    return SceneCodec(get_schema("clevr"), vocabulary, load_text_tokenizer(None, vocabulary))


def settings_of(args: argparse.Namespace) -> Settings:
    """The sizes that the flags ask for; ``--quick`` overrides them."""
    device = bench.device_of(args)
    if args.quick:
        return Settings(32, 40, min(2, args.workers), device, 1)
    if min(args.items, args.repeats, args.side) < 1 or args.workers < 0:
        raise InputError("--items, --repeats and --side: expected 1 or more; --workers: 0 or more.")
    return Settings(args.side, args.items, args.workers, device, args.repeats)


def main(argv: Sequence[str]) -> None:
    """Parse, measure, save."""
    parser = bench.argument_parser(__doc__)
    add = parser.add_argument
    add("--items", type=int, default=2000, help="items of the world")
    add("--side", type=int, default=128, help="of the images, in pixels")
    add("--workers", type=int, default=2, help="processes beside this one")
    add("--repeats", type=int, default=3, help="timings of a stage, of which the best counts")
    precisions = ("fp32", "bf16", "auto")
    add("--precisions", nargs="+", choices=precisions, default=["fp32", "auto"], help="of codes")
    add("--quick", action="store_true", help="40 items of 32 x 32: does it run?")
    args = parser.parse_args(argv)
    settings = settings_of(args)
    measure = partial(rows, settings, args.precisions)
    device, script = settings.device, "benchmarks/world_files.py"
    bench.save(args.output, script, argv, device, bench.ceilings(device), measure())


if __name__ == "__main__":
    kyvo.common.cli.run(main)
