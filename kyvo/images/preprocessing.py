"""Images on disk to uint8 arrays, and uint8 arrays to the model's range and back.

Shape legend: N or B images, H height, W width, C = 3 channels (RGB).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.common.files import require_file

_EIGHT_BIT_MODES = ("RGB", "RGBA", "L", "LA", "P", "1")


def list_images(folder: Path) -> list[Path]:
    """The PNG files of ``folder/images`` (or of ``folder`` itself), sorted by name.

    Raises:
        InputError: there are none.
    """
    inner = folder / "images"
    paths = sorted((inner if inner.is_dir() else folder).glob("*.png"))
    if not paths:
        raise InputError(f"images: {folder}: no .png files in it or in its folder 'images'.")
    return paths


def load_image(path: Path, size: int | None = None) -> np.ndarray:
    """Read an image as uint8 (size, size, 3), or as it is (H, W, 3).

    The whole frame is squeezed into the square, never cropped: the image metrics compare whole
    frames. An alpha channel is dropped.

    Raises:
        InputError: the file is missing, damaged, or has more than 8 bits per channel.
    """
    require_file(path, "image")
    try:
        with Image.open(path) as image:
            return image_array(image, size, str(path))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"image: {path}: not readable: {error}. Make it again.") from None


def image_array(image: Image.Image, size: int | None, where: str) -> np.ndarray:
    """``load_image`` of an image in memory; ``where`` names it in errors."""
    if image.mode not in _EIGHT_BIT_MODES:
        raise InputError(
            f"image: {where}: mode {image.mode}, expected 8 bits per channel "
            f"({', '.join(_EIGHT_BIT_MODES)}). Convert the file."
        )
    whole = image.convert("RGB")
    return np.array(whole if size is None else _squeeze(whole, size))


def load_images(paths: Sequence[Path], size: int) -> np.ndarray:
    """Read images as uint8 (N, size, size, 3); see ``load_image``."""
    images = np.empty((len(paths), size, size, 3), np.uint8)
    load_images_into(images, paths)
    return images


def load_images_into(images_NHWC: np.ndarray, paths: Sequence[Path]) -> None:
    """Read as many images as there are paths into the first places of an array (N, size, size, 3).

    See ``load_image``.
    """
    size = images_NHWC.shape[1]
    for image_HWC, path in zip(images_NHWC, paths, strict=False):
        image_HWC[:] = load_image(path, size)


def to_model_range(images_NHWC: np.ndarray | Tensor) -> Tensor:
    """uint8 images (N, H, W, 3) as float32 (N, 3, H, W) in [-1, 1]."""
    return torch.as_tensor(images_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images_BCHW: Tensor) -> Tensor:
    """Float images (B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3), rounded to the nearest."""
    scaled_BCHW = ((images_BCHW.float() + 1) * 127.5).round().clamp(0, 255)
    return scaled_BCHW.to(torch.uint8).permute(0, 2, 3, 1)


def _squeeze(image: Image.Image, size: int) -> Image.Image:
    if image.size == (size, size):
        return image
    return image.resize((size, size), Image.Resampling.BICUBIC)
