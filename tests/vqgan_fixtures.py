"""What the VQGAN tests share: a small shape, weights by name, images on disk, a short run."""

import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kyvo.images.vqgan import VQGAN, VQGANConfig
from kyvo.training.vqgan import VQGANTrainingConfig
from kyvo.training.vqgan.config import CodebookConfig, DataConfig, LossConfig, OptimizerConfig

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

MINI = VQGANConfig(
    embed_dim=16,
    n_embed=512,
    z_channels=8,
    resolution=16,
    ch=8,
    ch_mult=(1, 1, 2),
    num_res_blocks=1,
    attn_resolutions=(),
    num_groups=1,
)
"""Codes of the mini vocabulary, 16 an image, of 16 dimensions: what the tiny models take."""


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


def small_run(folder: Path) -> VQGANTrainingConfig:
    """Forty steps on 12 of the 16 images that are written into ``folder``."""
    images = write_images(folder / "images", random_images(16))
    return VQGANTrainingConfig(
        output=folder / "out",
        name="small",
        seed=0,
        model=SMALL,
        data=DataConfig(train=(images,), validation_share=0.25),
        loss=LossConfig(l1=0.0, l2=1.0, commitment=0.25, codebook=1.0),
        codebook=CodebookConfig(
            method="ema",
            start_step=10,
            start_images=12,
            ema_decay=0.9,
            revive_below=0.05,
            revive_every=5,
            revive_until=0.8,
        ),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, muon_learning_rate=0.02, warmup_steps=3, betas=(0.9, 0.99)
        ),
        batch_size=4,
        max_steps=40,
        max_seconds=None,
        log_every=5,
        validate_every=20,
        save_every=20,
        precision="fp32",
    )
