"""The project's ray tracer beside Mitsuba's path tracer: likeness and speed on the same scenes.

    python3 benchmarks/renderers.py --json benchmarks/results/renderers.json

Needs the extra "mitsuba". With --output it also writes a PNG of the first scenes: tracer, Mitsuba,
and twice their difference on grey.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import bench
import numpy as np
import torch
from bench import Row
from PIL import Image
from skimage.metrics import structural_similarity

import kyvo.common.cli
from kyvo.common.files import atomic_file
from kyvo.world import SceneOptions, render, sample_scene
from kyvo.world.render.mitsuba import EXPOSURE, render_with_mitsuba


def decode_srgb(levels: np.ndarray) -> np.ndarray:
    """Linear light of sRGB levels (IEC 61966-2-1)."""
    values = levels / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def psnr(first_HW3: np.ndarray, second_HW3: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 images, dB."""
    error = np.mean((first_HW3.astype(float) - second_HW3) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def likeness(what: str, images: np.ndarray, others: np.ndarray) -> Iterator[Row]:
    """Mean and lowest PSNR, and mean SSIM, of pairs of uint8 images."""
    note = "{} scenes, {} x {}".format(*images.shape)
    pairs = list(zip(images, others, strict=True))
    decibels = [psnr(*pair) for pair in pairs]
    similarity = np.mean([structural_similarity(*pair, channel_axis=-1) for pair in pairs])
    yield Row(f"{what}, mean", float(np.mean(decibels)), "dB PSNR", note=note)
    yield Row(f"{what}, least", min(decibels), "dB PSNR", note=note)
    yield Row(f"{what}, mean", float(similarity), "SSIM", note=note)


def side_by_side(traced: np.ndarray, path_traced: np.ndarray) -> Image.Image:
    """One row a scene."""
    difference = 128 + 2 * (path_traced.astype(int) - traced)
    shown = np.clip(difference, 0, 255).astype(np.uint8)
    rows = [np.concatenate(row, axis=1) for row in zip(traced, path_traced, shown, strict=True)]
    return Image.fromarray(np.concatenate(rows))


def compare(args: argparse.Namespace) -> Iterator[Row]:
    """Render, write the PNG, and yield the rows."""
    size = (args.size, args.size)
    options = SceneOptions(height=args.size, width=args.size)
    scenes = [sample_scene(index, args.split, 0, options) for index in range(args.scenes)]
    seconds = [time.perf_counter()]
    traced = render(scenes, *size, args.tracer_samples)
    seconds.append(time.perf_counter())
    path_traced = render_with_mitsuba(scenes, *size, args.mitsuba_samples)
    seconds.append(time.perf_counter())
    tracer_seconds, mitsuba_seconds = (np.diff(seconds) / args.scenes).tolist()
    yield from likeness("tracer and Mitsuba", traced, path_traced)
    if args.noise:
        again = render_with_mitsuba(scenes, *size, args.mitsuba_samples, seed=1)
        yield from likeness("Mitsuba and Mitsuba with another seed", path_traced, again)
    yield Row("an image by Mitsuba", mitsuba_seconds, "s")
    yield Row("an image by the tracer", tracer_seconds, "s", mitsuba_seconds, "Mitsuba")
    gain = float(decode_srgb(traced).mean() / decode_srgb(path_traced).mean())
    what, note = "exposure that gives both the same mean light", f"EXPOSURE is {EXPOSURE}"
    yield Row(what, EXPOSURE * gain, "factor", note=note)
    if args.output:
        with atomic_file(args.output) as temporary:
            image = side_by_side(traced[: args.shown], path_traced[: args.shown])
            image.save(temporary, "PNG", optimize=True)


def main(argv: Sequence[str]) -> None:
    """Parse, compare, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=20, help="how many to compare")
    parser.add_argument("--split", default="test", help="the scenes' split")
    parser.add_argument("--size", type=int, default=112, help="side of the images, pixels")
    parser.add_argument("--tracer-samples", type=int, default=16, help="rays a pixel")
    parser.add_argument("--mitsuba-samples", type=int, default=400, help="paths a pixel")
    parser.add_argument("--noise", action="store_true", help="compare Mitsuba with itself, too")
    parser.add_argument("--shown", type=int, default=4, help="scenes in the PNG")
    parser.add_argument("--output", type=Path, help="PNG for the side-by-side")
    parser.add_argument("--json", type=Path, help="JSON file for the rows")
    args = parser.parse_args(argv)
    rows = list(compare(args))
    bench.save(args.json, "benchmarks/renderers.py", argv, torch.device("cpu"), {}, rows)


if __name__ == "__main__":
    kyvo.common.cli.run(main)
