"""What the VQGAN tests share: a small shape, weights by name, images on disk."""

import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kyvo.images.vqgan import VQGAN, VQGANConfig

SMALL = VQGANConfig(
    embed_dim=8,
    n_embed=32,
    z_channels=16,
    resolution=32,
    ch=32,
    ch_mult=(1, 1, 1),
    num_res_blocks=1,
    attn_resolutions=(),
)


def named_tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights that depend on name and shape only: how the goldens were made."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    values = values.astype(np.float32)
    if len(shape) > 1:
        return torch.from_numpy(values / np.sqrt(np.prod(shape[1:])))
    is_norm_scale = "norm" in name and name.endswith("weight")
    return torch.from_numpy(0.1 * values + np.float32(is_norm_scale))


def with_named_weights(model: VQGAN) -> VQGAN:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({name: named_tensor(name, shape) for name, shape in shapes.items()})
    return model.eval()


def random_images(count: int, size: int = 32) -> np.ndarray:
    """Smooth coloured blobs on grey, uint8 (count, size, size, 3), different each."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    images = np.full((count, size, size, 3), 128, np.uint8)
    for image in images:
        centre, radius = rng.integers(4, size - 4, 2), rng.integers(3, 8)
        inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        image[inside] = rng.integers(0, 256, 3)
    return images


def write_images(folder: Path, images: np.ndarray) -> Path:
    (folder / "images").mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / "images" / f"{index:03d}.png")
    return folder
