"""Pictures on disk to uint8 arrays, and uint8 arrays to the model's range and back.

Shape legend: N or B pictures, H height, W width, C = 3 channels (RGB).
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


def list_pictures(folder: Path) -> list[Path]:
    """The PNG files of ``folder/images`` (or of ``folder`` itself), sorted by name.

    Raises:
        InputError: there are none.
    """
    inner = folder / "images"
    paths = sorted((inner if inner.is_dir() else folder).glob("*.png"))
    if not paths:
        raise InputError(f"pictures: {folder}: no .png files in it or in its folder 'images'.")
    return paths


def load_picture(path: Path, size: int | None = None) -> np.ndarray:
    """Read a picture as uint8 (size, size, 3), or as it is (H, W, 3).

    The whole frame is squeezed into the square, never cropped: the image metrics compare whole
    frames. An alpha channel is dropped.

    Raises:
        InputError: the file is missing, damaged, or has more than 8 bits per channel.
    """
    require_file(path, "picture")
    try:
        with Image.open(path) as picture:
            if picture.mode not in _EIGHT_BIT_MODES:
                raise InputError(
                    f"picture: {path}: mode {picture.mode}, expected 8 bits per channel "
                    f"({', '.join(_EIGHT_BIT_MODES)}). Convert the file."
                )
            whole = picture.convert("RGB")
            return np.array(whole if size is None else _squeeze(whole, size))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"picture: {path}: not readable: {error}. Make it again.") from None


def load_pictures(paths: Sequence[Path], size: int) -> np.ndarray:
    """Read pictures as uint8 (N, size, size, 3); see ``load_picture``."""
    return np.stack([load_picture(path, size) for path in paths])


def to_model_range(pictures_NHWC: np.ndarray | Tensor) -> Tensor:
    """uint8 pictures (N, H, W, 3) as float32 (N, 3, H, W) in [-1, 1]."""
    return torch.as_tensor(pictures_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images_BCHW: Tensor) -> Tensor:
    """Float images (B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3), rounded to the nearest."""
    scaled_BCHW = ((images_BCHW.float() + 1) * 127.5).round().clamp(0, 255)
    return scaled_BCHW.to(torch.uint8).permute(0, 2, 3, 1)


def _squeeze(picture: Image.Image, size: int) -> Image.Image:
    if picture.size == (size, size):
        return picture
    return picture.resize((size, size), Image.Resampling.BICUBIC)
