"""Token stores: the released JSON layouts, read once into a memory-mapped cache.

A cache folder holds plain ``.npy`` arrays: the keys sorted, the ids of all entries one after
another with offsets, the ids that occur, and each entry's ``string`` field as JSON. Its name
carries the source's size, time and this format's version, so a changed source never meets an old
cache; it is written beside and renamed, so two processes may build it at once.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from kyvo.common.errors import InputError
from kyvo.common.files import map_array, require_file, umask
from kyvo.data.json_stream import iterate_entries

_FORMAT = 2
_ARRAYS = ("keys", "ids", "offsets", "distinct", "strings", "string_offsets")


@dataclass(frozen=True)
class TokenStore:
    """Token ids by key, read-only.

    Attributes:
        path: the JSON file.
        keys: sorted keys as UTF-8 bytes, (N,) of dtype S.
        ids: ids of all entries, int32 (total,).
        offsets: entry i is ids[offsets[i]:offsets[i + 1]], int64 (N + 1,).
        distinct: every id that occurs, once, sorted, int32: checks need not read all ids.
    """

    path: Path
    keys: np.ndarray
    ids: np.ndarray
    offsets: np.ndarray
    distinct: np.ndarray
    strings: np.ndarray
    string_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.ids[self.offsets[index] : self.offsets[index + 1]].astype(np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Number of ids of every entry, int64 (N,)."""
        return np.diff(self.offsets)

    def string(self, index: int) -> Any:
        """The entry's ``string`` field; None for files without one."""
        start, stop = self.string_offsets[index : index + 2]
        return orjson.loads(self.strings[start:stop].tobytes()) if stop > start else None

    def first_outside(self, low: int, high: int) -> tuple[str, int] | None:
        """Key and value of the first id outside [low, high); None if there is none."""
        return self._first(lambda ids: (ids < low) | (ids >= high))

    def first_inside(self, low: int, high: int) -> tuple[str, int] | None:
        """Key and value of the first id in [low, high); None if there is none."""
        return self._first(lambda ids: (ids >= low) & (ids < high))

    def _first(self, test: Callable[[np.ndarray], np.ndarray]) -> tuple[str, int] | None:
        if not test(self.distinct).any():
            return None
        position = int(test(self.ids).argmax())
        index = int(np.searchsorted(self.offsets, position, side="right")) - 1
        return self.keys[index].decode(), int(self.ids[position])


def open_store(path: Path | str, purpose: str) -> TokenStore:
    """Open ``path`` through its cache, building the cache if there is none for this version.

    The cache is in ``.kyvo-cache`` beside the file, or, where that cannot be written or read, in
    the user's cache folder.

    Raises:
        InputError: the file is missing, is not valid JSON or not of the expected layout.
    """
    path = require_file(path, purpose).resolve()
    status = path.stat()
    place = hashlib.sha256(str(path.parent).encode()).hexdigest()[:12]
    name = f"{path.name}-{status.st_size}-{status.st_mtime_ns}-v{_FORMAT}"
    homes = [path.parent / ".kyvo-cache", *(home / place for home in _user_caches())]
    for home in homes:
        if (home / name).is_dir() and os.access(home / name, os.R_OK | os.X_OK):
            return _map(path, home / name)
    for home in homes:
        # One that is there and cannot be read is another user's.
        if not (home / name).is_dir() and _is_writable(home):
            _save(_read(path, purpose), home, name, stale_prefix=f"{path.name}-")
            return _map(path, home / name)
    tried = " and ".join(map(str, homes))
    raise InputError(f"{purpose}: no folder for the cache can be written: tried {tried}")


def common_keys(stores: Sequence[TokenStore]) -> np.ndarray:
    """Keys present in every store, sorted."""
    keys = stores[0].keys
    for store in stores[1:]:
        if not np.array_equal(keys, store.keys):
            keys = np.intersect1d(keys, store.keys, assume_unique=True)
    return keys


def _read(path: Path, purpose: str) -> dict[str, np.ndarray]:
    """All entries of the JSON file as the cache's arrays."""
    keys: list[bytes] = []
    # Two growing blocks: a million small objects would leave the heap several times as large.
    ids, strings = bytearray(), bytearray()
    ends, string_ends = [0], [0]
    for key, value in iterate_entries(path, purpose):
        row, string = _entry(value, f"{purpose}: {path}: key {key!r}")
        keys.append(_key_bytes(key, f"{purpose}: {path}"))
        ids += row.tobytes()
        strings += b"" if string is None else orjson.dumps(string)
        ends.append(len(ids) // row.itemsize)
        string_ends.append(len(strings))
    if not keys:
        raise InputError(f"{purpose}: {path}: holds no entries. Check the file.")
    order = sorted(range(len(keys)), key=keys.__getitem__)
    sorted_ids, offsets = _reorder(np.frombuffer(ids, np.int32), ends, order)
    sorted_strings, string_offsets = _reorder(np.frombuffer(strings, np.uint8), string_ends, order)
    return {
        "keys": np.array([keys[i] for i in order]),
        "ids": sorted_ids,
        "offsets": offsets,
        "distinct": _distinct(sorted_ids),
        "strings": sorted_strings,
        "string_offsets": string_offsets,
    }


def _reorder(
    values: np.ndarray, ends: list[int], order: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """The slices between ``ends`` in another order, one after another, and their offsets."""
    rows = [values[ends[i] : ends[i + 1]] for i in order]
    return np.concatenate(rows), np.cumsum([0, *map(len, rows)], dtype=np.int64)


def _distinct(ids: np.ndarray) -> np.ndarray:
    """The sorted ids that occur, found block by block: at once would copy all ids."""
    blocks = (ids[start : start + (1 << 16)] for start in range(0, len(ids), 1 << 16))
    return np.unique(np.concatenate([np.unique(block) for block in blocks]))


def _entry(value: Any, where: str) -> tuple[np.ndarray, Any]:
    """Ids and string of one entry: a list of codes, or {"token_ids": [...], "string": ...}."""
    string = None
    if isinstance(value, dict):
        if "token_ids" not in value:
            raise InputError(f"{where}: no 'token_ids'. Expected a list of ids or an object.")
        value, string = value["token_ids"], value.get("string")
    if not isinstance(value, list) or not value:
        raise InputError(f"{where}: expected a non-empty list of ids, found {str(value)[:60]}")
    if set(map(type, value)) != {int}:
        bad = next(v for v in value if type(v) is not int)
        raise InputError(f"{where}: {bad!r} is not a token id. Expected whole numbers.")
    if min(value) < 0 or max(value) > np.iinfo(np.int32).max:
        bad = next(v for v in value if not 0 <= v <= np.iinfo(np.int32).max)
        raise InputError(f"{where}: {bad} is not a token id. Expected 0 or more.")
    return np.array(value, dtype=np.int32), string


def _key_bytes(key: str, where: str) -> bytes:
    encoded = key.encode("utf-8", errors="surrogatepass")
    if not 0 < len(encoded) <= 200 or "\0" in key:
        raise InputError(f"{where}: key {key[:60]!r}: expected 1 to 200 bytes without NUL")
    return encoded


def _save(arrays: dict[str, np.ndarray], home: Path, name: str, stale_prefix: str) -> None:
    """Write the arrays into a new folder and rename it; the first of two processes wins."""
    temporary = Path(tempfile.mkdtemp(prefix=".building-", dir=home))
    # Not for its maker alone: others read the data, and its cache, too.
    temporary.chmod(0o777 & ~umask())
    try:
        for array in _ARRAYS:
            np.save(temporary / f"{array}.npy", arrays[array], allow_pickle=False)
        try:
            temporary.rename(home / name)
        except OSError:
            if not (home / name).is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in home.glob("*"):
        if old.name.startswith(stale_prefix) and old.name != name and old.is_dir():
            shutil.rmtree(old, ignore_errors=True)


def _map(path: Path, folder: Path) -> TokenStore:
    purpose = f"cache of {path} (delete its folder to build it again)"
    return TokenStore(path, *(map_array(folder / f"{name}.npy", purpose) for name in _ARRAYS))


def _user_caches() -> list[Path]:
    """The user's cache folder; none for a user who has no home, as in many containers."""
    chosen = os.environ.get("XDG_CACHE_HOME")
    try:
        return [(Path(chosen) if chosen else Path.home() / ".cache") / "kyvo"]
    except RuntimeError:
        return []


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
