"""How alike generated and true images are: SSIM and mean squared difference (L2).

Both as grey floats in [0, 1], the true image resized to the generated one's size. The first array
given to skimage's SSIM sets its precision: float32 here, as in the released code, so that
published values are reproduced to the last digit.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, list_files, write_json
from kyvo.common.image_files import IMAGE_SUFFIXES, read_image
from kyvo.scenes.folders import ENVIRONMENT_FOLDER

_PREFIXES = ("generated_", "ground_truth_")
_ENVIRONMENTS = re.compile(ENVIRONMENT_FOLDER.format(environment="(?P<environment>.+)"))
_MIN_SIDE = 7
"""Side of skimage's default SSIM window, in pixels."""


@dataclass(frozen=True)
class ImagePair:
    """A generated and a true image, RGB (H, W, 3), uint8 or floats in [0, 1], of any sizes."""

    generated_HWC: np.ndarray
    groundtruth_HWC: np.ndarray

    @classmethod
    def read(cls, generated: Path | str, groundtruth: Path | str) -> "ImagePair":
        """Read two image files.

        Raises:
            InputError: a file is missing, is no image, or is smaller than SSIM's window.
        """
        return cls(_read_large(generated), _read_large(groundtruth))

    @cached_property
    def grey(self) -> tuple[np.ndarray, np.ndarray]:
        """Both as grey floats in [0, 1], (H, W), the true image at the generated one's size."""
        generated_HW = rgb2gray(self.generated_HWC)
        height, width = generated_HW.shape
        groundtruth_HW = rgb2gray(self.groundtruth_HWC).astype(np.float32)
        resized = Image.fromarray(groundtruth_HW).resize((width, height))
        return generated_HW, np.asarray(resized)


ImageMetric = Callable[[ImagePair], float]


def ssim(pair: ImagePair) -> float:
    """Structural similarity, in [-1, 1]; 1 is equal.

    The data range is the generated image's own; a constant image, which has none, counts with 1.
    """
    generated_HW, groundtruth_HW = pair.grey
    data_range = np.ptp(generated_HW) or 1.0
    return float(structural_similarity(groundtruth_HW, generated_HW, data_range=data_range))


def l2(pair: ImagePair) -> float:
    """Mean squared difference of the grey images, in [0, 1]; 0 is equal."""
    generated_HW, groundtruth_HW = pair.grey
    return float(np.mean((groundtruth_HW - generated_HW) ** 2))


RELEASED_METRICS: Mapping[str, ImageMetric] = {"ssim": ssim, "l2": l2}
"""What the released command writes, by name."""


@dataclass(frozen=True)
class ImageScores:
    """The scores of a set of images.

    Attributes:
        pairs: by an image's name, the values of every metric by its name.
        num_unpaired: true images that had no generated partner.
    """

    pairs: Mapping[str, Mapping[str, float]]
    num_unpaired: int

    def mean(self, metric: str) -> float:
        """The mean of a metric over the pairs."""
        return fmean(values[metric] for values in self.pairs.values())

    def summary(self) -> str:
        """The values as lines of text."""
        lines = [
            f"SSIM: {self.mean('ssim'):.4f}",
            f"L2-loss: {self.mean('l2'):.6f}",
            f"{len(self.pairs)} pairs",
        ]
        if self.num_unpaired:
            lines.append(f"{self.num_unpaired} true images have no generated one: not scored")
        return "\n".join(lines)

    def write(self, folder: Path | str) -> None:
        """Write ``ssim_l2.txt`` and, per pair, ``ssim_l2.json`` into ``folder``."""
        with atomic_file(Path(folder) / "ssim_l2.txt") as path:
            path.write_text(self.summary() + "\n")
        names = next(iter(self.pairs.values()))
        write_json(
            Path(folder) / "ssim_l2.json",
            {
                **{name: self.mean(name) for name in names},
                "num_unpaired": self.num_unpaired,
                "images": {name: dict(values) for name, values in self.pairs.items()},
            },
        )


def score_images(
    generated_folder: Path | str,
    groundtruth_folder: Path | str,
    metrics: Mapping[str, ImageMetric] = RELEASED_METRICS,
) -> ImageScores:
    """Score every image of ``generated_folder`` against the one of its name.

    A name is the file's, without suffix and without ``generated_`` or ``ground_truth_``. True
    images may also be one folder per environment, ``output-ENVIRONMENT-large-10K-6/images/``
    ``NAME.png``, and then have the name ``NAME_ENVIRONMENT``.

    Raises:
        InputError: no images, a name twice, no true image of a name, an unreadable image.
    """
    generated = images_by_name(generated_folder, "generated images")
    groundtruth = _true_images(Path(groundtruth_folder))
    missing = [name for name in generated if name not in groundtruth]
    if missing:
        raise InputError(
            f"true images: {groundtruth_folder}: no image for {len(missing)} of "
            f"{len(generated)} generated ones: {_few(missing)}. Expected NAME.png for each."
        )
    pairs = {}
    for name, path in tqdm(generated.items(), desc="images", unit="image", disable=None):
        pair = ImagePair.read(path, groundtruth[name])
        pairs[name] = {metric: function(pair) for metric, function in metrics.items()}
    return ImageScores(pairs, len(groundtruth) - len(generated))


def _true_images(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for part in sorted(folder.glob("*/images")):
        match = _ENVIRONMENTS.fullmatch(part.parent.name)
        if match:
            images = images_by_name(part, "true images")
            found |= {f"{name}_{match['environment']}": path for name, path in images.items()}
    return found or images_by_name(folder, "true images")


def images_by_name(folder: Path | str, purpose: str) -> dict[str, Path]:
    """The images of a folder by name (see ``score_images``), sorted.

    Raises:
        InputError: the folder holds no image, or two of one name.
    """
    paths = list_files(Path(folder), IMAGE_SUFFIXES)
    if not paths:
        raise InputError(
            f"{purpose}: {folder}: no images ({', '.join(IMAGE_SUFFIXES)}). Check the path."
        )
    result: dict[str, Path] = {}
    for path in paths:
        other = result.setdefault(_image_name(path), path)
        if other != path:
            raise InputError(
                f"{purpose}: {folder}: {other.name} and {path.name} have the same name. "
                "Keep one of them."
            )
    return result


def _read_large(path: Path | str) -> np.ndarray:
    """``read_image`` that refuses images smaller than SSIM's window."""
    image_HWC = read_image(Path(path))
    if min(image_HWC.shape[:2]) < _MIN_SIDE:
        raise InputError(
            f"image: {path}: {image_HWC.shape[1]} x {image_HWC.shape[0]} pixels; "
            f"expected at least {_MIN_SIDE} x {_MIN_SIDE}."
        )
    return image_HWC


def _image_name(path: Path) -> str:
    for prefix in _PREFIXES:
        if path.name.startswith(prefix):
            return path.stem.removeprefix(prefix)
    return path.stem


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
