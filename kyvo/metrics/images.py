"""How alike generated and true images are: SSIM and mean squared difference (L2).

Both as grey floats in [0, 1], the true image resized to the generated one's size. The first array
given to skimage's SSIM sets its precision: float32 here, as in the released code, so that
published figures are met to the last digit.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image, UnidentifiedImageError
from skimage.color import rgb2gray
from skimage.metrics import structural_similarity
from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, require_file, write_json
from kyvo.metrics.scene_files import ENVIRONMENT_FOLDER

_PREFIXES = ("generated_", "ground_truth_")
_ENVIRONMENTS = re.compile(ENVIRONMENT_FOLDER.format(environment="(?P<environment>.+)"))
_SUFFIXES = (".png", ".jpg", ".jpeg")
_MIN_SIDE = 7
"""Side of skimage's default SSIM window, in pixels."""


@dataclass(frozen=True)
class ImageScore:
    """SSIM (in [-1, 1], 1 is equal) and L2 (in [0, 1], 0 is equal) of one pair of images."""

    ssim: float
    l2: float


@dataclass(frozen=True)
class ImageScores:
    """The scores of all pairs by name, and how many true images had no generated partner."""

    pairs: Mapping[str, ImageScore]
    num_unpaired: int

    @property
    def ssim(self) -> float:
        """Mean SSIM over the pairs."""
        return fmean(score.ssim for score in self.pairs.values())

    @property
    def l2(self) -> float:
        """Mean L2 over the pairs."""
        return fmean(score.l2 for score in self.pairs.values())

    def summary(self) -> str:
        """The figures as lines of text."""
        lines = [f"SSIM: {self.ssim:.4f}", f"L2-loss: {self.l2:.6f}", f"{len(self.pairs)} pairs"]
        if self.num_unpaired:
            lines.append(f"{self.num_unpaired} true images have no generated one: not scored")
        return "\n".join(lines)

    def write(self, folder: Path | str) -> None:
        """Write ``ssim_l2.txt`` and, per pair, ``ssim_l2.json`` into ``folder``."""
        with atomic_file(Path(folder) / "ssim_l2.txt") as path:
            path.write_text(self.summary() + "\n")
        write_json(
            Path(folder) / "ssim_l2.json",
            {
                "ssim": self.ssim,
                "l2": self.l2,
                "num_unpaired": self.num_unpaired,
                "images": {
                    name: {"ssim": score.ssim, "l2": score.l2} for name, score in self.pairs.items()
                },
            },
        )


def image_similarity(generated_HW: np.ndarray, groundtruth_HW: np.ndarray) -> ImageScore:
    """Compare two grey images in [0, 1] (float, any sizes; the true one is resized).

    The data range is the generated image's own; a constant image, which has none, counts with 1.
    """
    height, width = generated_HW.shape
    resized_HW = np.asarray(
        Image.fromarray(groundtruth_HW.astype(np.float32)).resize((width, height))
    )
    data_range = np.ptp(generated_HW) or 1.0
    ssim = structural_similarity(resized_HW, generated_HW, data_range=data_range)
    return ImageScore(float(ssim), float(np.mean((resized_HW - generated_HW) ** 2)))


def score_images(generated_folder: Path | str, groundtruth_folder: Path | str) -> ImageScores:
    """Score every image of ``generated_folder`` against the one of its name.

    A name is the file's, without suffix and without ``generated_`` or ``ground_truth_``. True
    images may also lie as ObjaWorld's, ``output-ENVIRONMENT-large-10K-6/images/NAME.png``, and
    then have the name ``NAME_ENVIRONMENT``.

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
    pairs = {
        name: image_similarity(read_grey(path), read_grey(groundtruth[name]))
        for name, path in tqdm(generated.items(), desc="images", unit="image", disable=None)
    }
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
    paths = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InputError(
            f"{purpose}: {folder}: no images ({', '.join(_SUFFIXES)}). Check the path."
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


def read_grey(path: Path | str) -> np.ndarray:
    """Read an image as grey floats (H, W) in [0, 1].

    Raises:
        InputError: the file is missing, is no image, or is smaller than SSIM's window.
    """
    path = require_file(path, "image")
    try:
        with Image.open(path) as image:
            grey_HW = rgb2gray(np.asarray(image.convert("RGB")))
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image: {path}: cannot be read: {error}. Make it again.") from None
    if min(grey_HW.shape) < _MIN_SIDE:
        raise InputError(
            f"image: {path}: {grey_HW.shape[1]} x {grey_HW.shape[0]} pixels; "
            f"expected at least {_MIN_SIDE} x {_MIN_SIDE}."
        )
    return grey_HW


def _image_name(path: Path) -> str:
    for prefix in _PREFIXES:
        if path.name.startswith(prefix):
            return path.stem.removeprefix(prefix)
    return path.stem


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
