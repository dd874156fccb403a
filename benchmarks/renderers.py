"""The project's ray tracer beside Mitsuba's path tracer: likeness and speed on the same scenes.

Needs the extra "mitsuba". With --output it also writes a PNG of the first scenes: tracer, Mitsuba,
and twice their difference on grey.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.metrics import structural_similarity

import kyvo.cli
from kyvo.files import atomic_file
from kyvo.world import SceneOptions, render, sample_scene
from kyvo.world.mitsuba_renderer import encode_srgb, render_with_mitsuba


def decode_srgb(levels: np.ndarray) -> np.ndarray:
    """Linear light of sRGB levels (IEC 61966-2-1)."""
    values = levels / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def psnr(first_HW3: np.ndarray, second_HW3: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two uint8 pictures, dB."""
    error = np.mean((first_HW3.astype(float) - second_HW3) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def match_exposure(traced: np.ndarray, path_traced: np.ndarray) -> tuple[np.ndarray, float]:
    """``traced`` with its linear light times one factor for all scenes, uint8, and that factor."""
    light, wanted = decode_srgb(traced), decode_srgb(path_traced)
    gain = float((light * wanted).sum() / (light * light).sum())
    return encode_srgb(light * gain), gain


def side_by_side(traced: np.ndarray, path_traced: np.ndarray) -> Image.Image:
    """One row a scene."""
    difference = 128 + 2 * (path_traced.astype(int) - traced)
    shown = np.clip(difference, 0, 255).astype(np.uint8)
    rows = [np.concatenate(row, axis=1) for row in zip(traced, path_traced, shown, strict=True)]
    return Image.fromarray(np.concatenate(rows))


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=20, help="how many to compare")
    parser.add_argument("--size", type=int, default=128, help="side of the pictures, pixels")
    parser.add_argument("--tracer-samples", type=int, default=16, help="rays a pixel")
    parser.add_argument("--mitsuba-samples", type=int, default=256, help="paths a pixel")
    parser.add_argument("--shown", type=int, default=4, help="scenes in the PNG")
    parser.add_argument("--output", type=Path, help="PNG for the side-by-side")
    args = parser.parse_args(argv)
    size = (args.size, args.size)
    options = SceneOptions(height=args.size, width=args.size)
    scenes = [sample_scene(index, "test", 0, options) for index in range(args.scenes)]
    seconds = [time.perf_counter()]
    traced = render(scenes, *size, args.tracer_samples)
    seconds.append(time.perf_counter())
    path_traced = render_with_mitsuba(scenes, *size, args.mitsuba_samples)
    seconds.append(time.perf_counter())
    print(f"{args.scenes} scenes of {args.size} x {args.size} pixels")
    print(f"mean level {traced.mean():.1f} and {path_traced.mean():.1f} of 255")
    matched, gain = match_exposure(traced, path_traced)
    for name, pictures in (("as they are", traced), (f"tracer's light times {gain:.2f}", matched)):
        pairs = list(zip(pictures, path_traced, strict=True))
        noise = np.mean([psnr(*pair) for pair in pairs])
        likeness = np.mean([structural_similarity(*pair, channel_axis=-1) for pair in pairs])
        print(f"{name}: PSNR {noise:.1f} dB, SSIM {likeness:.3f}")
    per_scene = np.diff(seconds) / args.scenes
    print(f"seconds a picture: tracer {per_scene[0]:.2f}, Mitsuba {per_scene[1]:.2f}")
    if args.output:
        with atomic_file(args.output) as temporary:
            picture = side_by_side(traced[: args.shown], path_traced[: args.shown])
            picture.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    kyvo.cli.run(main)
