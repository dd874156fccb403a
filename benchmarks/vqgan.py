r"""Images to codes and back: images a second of the image tokenizer, beside the released way.

    python3 benchmarks/vqgan.py --device cuda --output benchmarks/results/vqgan-h200.json
    python3 benchmarks/vqgan.py --device cpu --config mini \
        --output benchmarks/results/vqgan-cpu.json

Weights are random, images are of the project's own world. "On the device" times what the codec
calls for every batch, with its tensors there; "through the codec" takes uint8 images and codes
from the host and brings them back. The released way is the plain module in float32, one image at
a time, from and to the host. Float32 convolutions take TF32 on a GPU, as torch does by itself.

Shape legend: B batch, C channels, H and W pixels, h and w codes, D width of a code vector.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import bench
import numpy as np
import torch
from bench import Row
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import kyvo.common.cli
from kyvo.common.errors import InputError
from kyvo.images.codec import CodecPrecision, ImageCodec
from kyvo.images.preprocessing import to_model_range, to_uint8
from kyvo.images.vqgan import VQGAN, VQGANConfig
from kyvo.world import SceneOptions, render, sample_scene

DIFFERENT_IMAGES = 8
REFERENCE = "the released way: float32, one at a time"
CEILING = "its matmuls at the measured rate of a large one"


@dataclass(frozen=True)
class Subject:
    """A VQGAN, the batch sizes of the table, and those of which the best is reported."""

    config: VQGANConfig
    shown: tuple[int, ...]
    tried: tuple[int, ...]


SUBJECTS = {
    "released": Subject(
        VQGANConfig(
            embed_dim=256,
            n_embed=1024,
            z_channels=256,
            resolution=256,
            ch=128,
            ch_mult=(1, 1, 2, 2, 4),
            num_res_blocks=2,
            attn_resolutions=(16,),
        ),
        shown=(1, 16, 64),
        tried=(32, 64, 128, 256),
    ),
    "mini": Subject(
        VQGANConfig(
            embed_dim=16,
            n_embed=512,
            z_channels=64,
            resolution=64,
            ch=32,
            ch_mult=(1, 1, 2, 2),
            num_res_blocks=1,
            attn_resolutions=(),
            num_groups=1,
        ),
        shown=(1, 16),
        tried=(16,),
    ),
}


@dataclass(frozen=True)
class Way:
    """One way to run a VQGAN."""

    name: str
    precision: CodecPrecision
    compiled: bool


WAYS = (
    Way("float32", "fp32", False),
    Way("bf16", "bf16", False),
    Way("bf16, compiled", "bf16", True),
)


class Bench:
    """Times one VQGAN on one device, in both directions."""

    def __init__(
        self, subject: Subject, ways: Sequence[Way], device: torch.device, repeats: int
    ) -> None:
        torch.manual_seed(0)
        self.subject = subject
        self.ways = ways
        self.device = device
        self.repeats = repeats
        self.model = VQGAN(subject.config).eval().requires_grad_(False).to(device)
        self.images_NHWC = world_images(subject.config.resolution)
        self.codes_Nhw = ImageCodec(self.model, device).encode(self.images_NHWC)
        self.ceilings = bench.ceilings(device)

    def rows(self) -> Iterator[Row]:
        """Encoding, decoding, and what faster arithmetic changes."""
        yield from self._direction("encode", self.images_NHWC)
        yield from self._direction("decode", self.codes_Nhw)
        yield from self._differences()

    def _direction(self, direction: str, inputs: np.ndarray) -> Iterator[Row]:
        flops, rate = self._reference(direction, inputs)
        limit = self.ceilings["matmul_flops_per_s"] / flops
        released = Row(f"{direction}, {REFERENCE}", rate, "images/s")
        yield Row(f"{direction}, matmuls of an image", flops / 1e9, "GFLOP")
        yield dataclasses.replace(released, ceiling=limit, ceiling_source=CEILING)
        for way in self.ways:
            # A CPU's ceiling is a float32 matmul, which bf16 may exceed.
            has_ceiling = self.device.type == "cuda" or way.precision == "fp32"
            for row in self._way(direction, way, inputs):
                yield dataclasses.replace(
                    row,
                    reference=rate,
                    reference_source=REFERENCE,
                    ceiling=limit if has_ceiling else None,
                    ceiling_source=CEILING if has_ceiling else "",
                )

    @torch.inference_mode()
    def _reference(self, direction: str, inputs: np.ndarray) -> tuple[float, float]:
        """FLOP of the matmuls of one image, and images a second the released way."""
        step = self._plain_encode if direction == "encode" else self._plain_decode
        with FlopCounterMode(display=False) as counter:
            step(inputs[:1])
        seconds = self._seconds(lambda: [step(inputs[i : i + 1]) for i in range(len(inputs))])
        return counter.get_total_flops(), len(inputs) / seconds

    def _plain_encode(self, image_1HWC: np.ndarray) -> np.ndarray:
        return self.model.encode(to_model_range(image_1HWC).to(self.device)).cpu().numpy()

    def _plain_decode(self, codes_1hw: np.ndarray) -> np.ndarray:
        image_1CHW = self.model.decode(torch.from_numpy(codes_1hw).to(self.device))
        return to_uint8(image_1CHW).cpu().numpy()

    def _way(self, direction: str, way: Way, inputs: np.ndarray) -> Iterator[Row]:
        sizes = sorted({*self.subject.shown, *self.subject.tried})
        rates = {size: self._on_device(direction, way, inputs, size) for size in sizes}
        best = max(sizes, key=lambda size: rates[size])
        for size in sorted({*self.subject.shown, best}):
            best_mark = ", the best" if size == best else ""
            what = f"{direction}, {way.name}, batch {size}{best_mark}"
            yield Row(what, rates[size], "images/s")
        codec = self._codec(way, best)
        many = repeated(inputs, 4 * best)
        run = codec.encode if direction == "encode" else codec.decode
        rate = len(many) / self._seconds(lambda: run(many))
        what = f"{direction}, {way.name}, batch {best}, through the codec"
        yield Row(what, rate, "images/s")

    @torch.inference_mode()
    def _on_device(self, direction: str, way: Way, inputs: np.ndarray, size: int) -> float:
        """Images a second of batches that are on the device."""
        codec = self._codec(way, size)
        batch = torch.from_numpy(repeated(inputs, size)).to(self.device)
        step = _device_step(codec, direction, self.model.codebook)
        return size / self._seconds(lambda: step(batch))

    def _codec(self, way: Way, size: int) -> ImageCodec:
        # Else a second batch size would be compiled for any size, and a ninth not at all.
        torch.compiler.reset()
        return ImageCodec(self.model, self.device, size, way.precision, way.compiled)

    def _differences(self) -> Iterator[Row]:
        exact, fast = (self._codec(way, DIFFERENT_IMAGES) for way in (WAYS[0], self.ways[-1]))
        same = exact.encode(self.images_NHWC) == fast.encode(self.images_NHWC)
        first, second = (codec.decode(self.codes_Nhw).astype(float) for codec in (exact, fast))
        note = f"{self.ways[-1].name} beside float32, {len(same)} images, random weights"
        yield Row("equal codes", float(same.mean()), "share", note=note)
        yield Row("images of equal codes, PSNR", psnr(first, second), "dB", note=note)
        largest = float(np.abs(first - second).max())
        yield Row("images of equal codes, largest difference", largest, "levels", note=note)

    def _seconds(self, function: Callable[[], object]) -> float:
        return bench.median_seconds(function, self.device, 2, self.repeats)


def _device_step(
    codec: ImageCodec, direction: str, codebook_KD: Tensor
) -> Callable[[Tensor], Tensor]:
    """What the codec does with a batch between the two copies."""
    if direction == "encode":
        return codec._encode_batch
    return lambda codes_Bhw: codec._decode_batch(codebook_KD[codes_Bhw].permute(0, 3, 1, 2))


def world_images(side: int) -> np.ndarray:
    """A few images of the project's world, uint8 (N, H, W, 3)."""
    options = SceneOptions(height=side, width=side)
    scenes = [sample_scene(index, "test", 0, options) for index in range(DIFFERENT_IMAGES)]
    return render(scenes, side, side, samples_per_pixel=1)


def repeated(items: np.ndarray, count: int) -> np.ndarray:
    """``count`` items, the given ones in turn."""
    return items[np.arange(count) % len(items)]


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio of images with levels 0 to 255, dB; at most 100."""
    error = np.mean((first - second) ** 2)
    return float(10 * np.log10(255**2 / max(error, 255**2 * 1e-10)))


def main(argv: Sequence[str]) -> None:
    """Parse, measure, save."""
    parser = bench.argument_parser(__doc__)
    parser.add_argument("--config", choices=SUBJECTS, default="released", help="shape of the VQGAN")
    parser.add_argument(
        "--repeats", type=int, default=5, help="timings, of which the median counts"
    )
    parser.add_argument("--batches", type=int, nargs="+", help="batch sizes instead of the usual")
    names = [way.name for way in WAYS]
    parser.add_argument("--ways", choices=names, nargs="+", help="only these ways to run it")
    args = parser.parse_args(argv)
    if min(args.repeats, *(args.batches or [1])) < 1:
        raise InputError("--repeats and --batches: expected 1 or more.")
    subject = SUBJECTS[args.config]
    if args.batches:
        sizes = tuple(args.batches)
        subject = dataclasses.replace(subject, shown=sizes, tried=sizes)
    ways = [way for way in WAYS if way.name in (args.ways or [way.name])]
    measured = Bench(subject, ways, bench.device_of(args), args.repeats)
    script, ceilings = "benchmarks/vqgan.py", measured.ceilings
    bench.save(args.output, script, argv, measured.device, ceilings, measured.rows())


if __name__ == "__main__":
    kyvo.common.cli.run(main)
