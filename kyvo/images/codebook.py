"""The file of code vectors that the language model reads: ``.npy``, float32, one row a code.

Codes mean nothing without their codebook, and all codebooks of a shape look alike. So a file of
codes has a record beside it, ``FILE.codebook``, with the SHA-256 of its codebook's values.
"""

import hashlib
from pathlib import Path

import numpy as np

from kyvo.common.errors import InputError
from kyvo.common.files import read_array, read_json, write_array, write_json

# Not .json: what lists the files of codes must not take it for one.
_RECORD_SUFFIX = ".codebook"
_RECORD_KEY = "codebook_sha256"


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


def codebook_hash(codebook: np.ndarray) -> str:
    """SHA-256 of the code vectors (num_codes, dim) as float32, little-endian, row by row."""
    return hashlib.sha256(np.ascontiguousarray(codebook, "<f4").tobytes()).hexdigest()


def codebook_record(codes: Path) -> Path:
    """Where it is recorded which codebook made the file ``codes``."""
    return codes.with_name(codes.name + _RECORD_SUFFIX)


def record_codebook(codes: Path, codebook: np.ndarray) -> None:
    """Record beside the file ``codes`` which codebook made it."""
    write_json(codebook_record(codes), {_RECORD_KEY: codebook_hash(codebook)})


def recorded_codebook(codes: Path) -> str | None:
    """SHA-256 of the codebook that made the file ``codes``; None without a record, as released.

    Raises:
        InputError: the record cannot be read.
    """
    path = codebook_record(codes)
    if not path.is_file():
        return None
    record = read_json(path, "record of the codebook")
    found = record.get(_RECORD_KEY) if isinstance(record, dict) else None
    if not isinstance(found, str):
        raise InputError(
            f"record of the codebook: {path}: expected an object with a string '{_RECORD_KEY}'. "
            "Tokenise the images again, or remove it if you know their codebook."
        )
    return found
