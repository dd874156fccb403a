"""Whole sets of pictures to codes and back, batch by batch.

Shape legend: N pictures, H and W pixels, h and w codes.
"""

from collections.abc import Iterator

import numpy as np
import torch
from tqdm import tqdm

from kyvo.errors import InputError
from kyvo.images.preprocessing import to_model_range, to_uint8
from kyvo.images.vqgan import VQGAN


def encode_images(
    model: VQGAN,
    pictures_NHWC: np.ndarray,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    progress: bool = False,
) -> np.ndarray:
    """Codes (N, h, w) int64 of uint8 pictures (N, H, W, 3); moves the model to ``device``.

    ``bf16`` computes the convolutions in bfloat16 (faster, a few codes may differ); ``progress``
    shows a bar.

    Raises:
        InputError: the pictures are not uint8 (N, H, W, 3) with sides that the model can take.
    """
    _check_pictures(pictures_NHWC, model.config.downsampling_factor)
    model = _ready(model, device)
    parts = []
    with torch.inference_mode(), _precision(device, bf16):
        for part in _batches(len(pictures_NHWC), batch_size, "encoding", progress):
            images_BCHW = to_model_range(pictures_NHWC[part]).to(device)
            parts.append(model.encode(images_BCHW).cpu().numpy())
    return np.concatenate(parts)


def decode_codes(
    model: VQGAN,
    codes_Nhw: np.ndarray,
    batch_size: int = 32,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    progress: bool = False,
) -> np.ndarray:
    """Pictures (N, H, W, 3) uint8 of integer codes (N, h, w); see ``encode_images``.

    Raises:
        InputError: the codes are not integers in 0..n_embed-1 of shape (N, h, w).
    """
    _check_codes(codes_Nhw, model.config.n_embed)
    model = _ready(model, device)
    parts = []
    with torch.inference_mode(), _precision(device, bf16):
        for part in _batches(len(codes_Nhw), batch_size, "decoding", progress):
            codes_Bhw = torch.from_numpy(codes_Nhw[part].astype(np.int64)).to(device)
            parts.append(to_uint8(model.decode(codes_Bhw)))
    return np.concatenate(parts)


def _ready(model: VQGAN, device: torch.device | str) -> VQGAN:
    return model.eval().to(device)


def _precision(device: torch.device | str, bf16: bool) -> torch.autocast:
    return torch.autocast(torch.device(device).type, torch.bfloat16, enabled=bf16)


def _batches(count: int, batch_size: int, title: str, progress: bool) -> Iterator[slice]:
    starts = range(0, count, batch_size)
    for start in tqdm(starts, desc=title, unit="batch", disable=not progress):
        yield slice(start, start + batch_size)


def _check_pictures(pictures_NHWC: np.ndarray, factor: int) -> None:
    shape, dtype = pictures_NHWC.shape, pictures_NHWC.dtype
    good = pictures_NHWC.ndim == 4 and shape[0] > 0 and shape[3] == 3 and dtype == np.uint8
    if not good or shape[1] % factor or shape[2] % factor:
        raise InputError(
            f"pictures: found {dtype} {shape}, expected at least one, uint8 (N, H, W, 3), "
            f"H and W multiples of {factor}. Resize them with kyvo.images.preprocessing."
        )


def _check_codes(codes_Nhw: np.ndarray, n_embed: int) -> None:
    integers = np.issubdtype(codes_Nhw.dtype, np.integer)
    if codes_Nhw.ndim != 3 or not codes_Nhw.size or not integers:
        raise InputError(
            f"image codes: found {codes_Nhw.dtype} {codes_Nhw.shape}, expected integers (N, h, w)."
        )
    outside = (codes_Nhw < 0) | (codes_Nhw >= n_embed)
    if outside.any():
        first = int(np.argwhere(outside)[0][0])
        raise InputError(
            f"image codes: {codes_Nhw[outside][0]} in image {first} is outside 0..{n_embed - 1}. "
            "The codes belong to another VQGAN, or an id offset was not taken off."
        )
