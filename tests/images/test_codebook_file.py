import hashlib
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from kyvo.common.errors import InputError
from kyvo.images.codebook import (
    codebook_hash,
    codebook_record,
    load_codebook,
    record_codebook,
    recorded_codebook,
    save_codebook,
)

TABLE = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)


@pytest.mark.parametrize("dim", [4, None])
def test_round_trip(tmp_path: Path, dim: int | None) -> None:
    save_codebook(tmp_path / "codebook.npy", TABLE)
    loaded = load_codebook(tmp_path / "codebook.npy", 6, dim)
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, TABLE)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (TABLE[:5], r"found float32 \(5, 4\), expected float32 \(6, 4\)"),
        (TABLE[:, :3], r"\(6, 3\)"),
        (TABLE[0], r"\(4,\)"),
        (TABLE.astype(np.float64), "found float64"),
        (TABLE.astype(np.int32), "found int32"),
        (np.where(np.arange(6)[:, None] == 3, np.nan, TABLE).astype(np.float32), "row 3"),
        (np.where(np.arange(6)[:, None] == 5, np.inf, TABLE).astype(np.float32), "row 5"),
    ],
)
def test_wrong_tables_are_refused(tmp_path: Path, table: np.ndarray, message: str) -> None:
    np.save(tmp_path / "codebook.npy", table)
    with pytest.raises(InputError, match=message):
        load_codebook(tmp_path / "codebook.npy", 6, 4)


def test_pickled_and_broken_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "codebook.npy"
    np.save(path, np.array([{"a": 1}], dtype=object))
    with pytest.raises(InputError, match="not a plain"):
        load_codebook(path, 6)
    path.write_bytes(pickle.dumps(TABLE))
    with pytest.raises(InputError, match="not a plain"):
        load_codebook(path, 6)
    with pytest.raises(InputError, match="no such file"):
        load_codebook(tmp_path / "missing.npy", 6)


def test_the_hash_is_of_the_values_alone() -> None:
    little_endian = b"".join(struct.pack("<f", value) for value in TABLE.flatten())
    expected = hashlib.sha256(little_endian).hexdigest()
    assert codebook_hash(TABLE) == expected
    assert codebook_hash(TABLE.astype(">f4")) == expected
    assert codebook_hash(np.asfortranarray(TABLE)) == expected
    assert codebook_hash(TABLE[::-1]) != expected


def test_a_record_is_beside_its_codes_and_may_be_missing(tmp_path: Path) -> None:
    codes = tmp_path / "train_vqgan_indices.json"
    assert recorded_codebook(codes) is None
    record_codebook(codes, TABLE)
    assert recorded_codebook(codes) == codebook_hash(TABLE)
    assert list(tmp_path.glob("*.json")) == []
    codebook_record(codes).write_text("[]")
    with pytest.raises(InputError, match="expected an object with a string 'codebook_sha256'"):
        recorded_codebook(codes)
