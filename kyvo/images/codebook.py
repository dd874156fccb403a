"""The file of code vectors that the language model reads: ``.npy``, float32, one row a code."""

from pathlib import Path

import numpy as np

from kyvo.common.errors import InputError
from kyvo.common.files import read_array, write_array


def load_codebook(path: Path | str, num_codes: int, dim: int | None = None) -> np.ndarray:
    """Read a codebook as float32 (num_codes, dim); ``dim`` None takes any width.

    Raises:
        InputError: the file is missing, pickled, of another dtype or shape, or not finite.
    """
    codebook = read_array(path, "codebook")
    expected = f"float32 ({num_codes}, {'any width' if dim is None else dim})"
    good_shape = codebook.ndim == 2 and codebook.shape[0] == num_codes and codebook.shape[1] > 0
    if codebook.dtype != np.float32 or not good_shape or dim not in (None, codebook.shape[-1]):
        raise InputError(
            f"codebook: {path}: found {codebook.dtype} {codebook.shape}, expected {expected}. "
            "It may belong to another VQGAN or data set."
        )
    if not np.isfinite(codebook).all():
        row = int(np.argwhere(~np.isfinite(codebook))[0][0])
        raise InputError(f"codebook: {path}: NaN or infinity in row {row}. Export it again.")
    return codebook


def save_codebook(path: Path | str, codebook: np.ndarray) -> None:
    """Write code vectors (num_codes, dim) as float32, all or nothing."""
    assert codebook.ndim == 2, codebook.shape
    write_array(path, codebook.astype(np.float32))
