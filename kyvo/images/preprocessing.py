"""Images on disk to uint8 arrays, and uint8 arrays to the model's range and back.

Shape legend: N or B images, H height, W width, C = 3 channels (RGB).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kyvo.common.image_files import read_image


def load_images(paths: Sequence[Path], size: int) -> np.ndarray:
    """Read images as uint8 (N, size, size, 3); see ``read_image``."""
    images = np.empty((len(paths), size, size, 3), np.uint8)
    load_images_into(images, paths)
    return images


def load_images_into(images_NHWC: np.ndarray, paths: Sequence[Path]) -> None:
    """Read as many images as there are paths into the first places of an array (N, size, size, 3).

    See ``read_image``.
    """
    size = images_NHWC.shape[1]
    for image_HWC, path in zip(images_NHWC, paths, strict=False):
        image_HWC[:] = read_image(path, size)


def to_model_range(images_NHWC: np.ndarray | Tensor) -> Tensor:
    """uint8 images (N, H, W, 3) as float32 (N, 3, H, W) in [-1, 1]."""
    return torch.as_tensor(images_NHWC).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_uint8(images_BCHW: Tensor) -> Tensor:
    """Float images (B, 3, H, W) in [-1, 1] as uint8 (B, H, W, 3), rounded to the nearest."""
    scaled_BCHW = ((images_BCHW.float() + 1) * 127.5).round().clamp(0, 255)
    return scaled_BCHW.to(torch.uint8).permute(0, 2, 3, 1)
