"""Reading and writing files: clear errors on the way in, nothing half-written on the way out."""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson

from kyvo.common.errors import InputError

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
LFS_POINTER_START = b"version https://git-lfs.github.com/spec/v1\n"
LFS_POINTER_MAX_BYTES = 200


def require_file(path: Path | str, purpose: str) -> Path:
    """Return ``path`` if it is an existing file with its content.

    Raises:
        InputError: there is no such file, or git left a git-lfs pointer in its place; the message
            names ``purpose``.
    """
    path = Path(path)
    if not path.is_file():
        found = "it is a folder" if path.is_dir() else "no such file"
        raise InputError(f"{purpose}: {path}: {found}. Check the path.")
    if is_lfs_pointer(path):
        raise InputError(
            f"{purpose}: {path}: a git-lfs pointer, not the file itself. Run 'git lfs pull' in the "
            "folder that was cloned, or download the file again."
        )
    return path


def require_folder(path: Path, purpose: str, remedy: str) -> Path:
    """Return ``path`` if it is an existing folder, else raise InputError naming ``purpose``."""
    if not path.is_dir():
        found = "it is a file" if path.exists() else "no such folder"
        raise InputError(f"{purpose}: {path}: {found}. {remedy}.")
    return path


def is_lfs_pointer(path: Path) -> bool:
    """Whether the file is what git stores in place of a large file kept by git-lfs."""
    if path.stat().st_size >= LFS_POINTER_MAX_BYTES:
        return False
    with path.open("rb") as stream:
        return stream.read(len(LFS_POINTER_START)) == LFS_POINTER_START


def read_json(path: Path | str, purpose: str) -> Any:
    """Parse a JSON file (UTF-8, strict: no NaN, nothing after the value).

    Raises:
        InputError: the file is missing or is not valid JSON, with line and column.
    """
    path = require_file(path, purpose)
    try:
        return orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise InputError(
            f"{purpose}: {path}: not valid JSON: {error}. "
            "The file may be truncated: make or download it again."
        ) from None


def write_json(path: Path | str, value: Any, durable: bool = True) -> None:
    """Write ``value`` as indented JSON, all or nothing (see ``atomic_file``)."""
    with atomic_file(path, durable) as temporary:
        temporary.write_bytes(
            orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY) + b"\n"
        )


@contextmanager
def atomic_file(path: Path | str, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success flush it to disk and rename it there.

    ``durable=False`` leaves the flush to the operating system: for many small files that can be
    made again, a killed process still leaves no half file, a power cut may.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        if durable:
            sync(temporary)
        os.replace(temporary, path)
        if durable:
            sync(path.parent)
    except OSError as error:
        # A full disk, noticed by a write, does not say of which file.
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process; a second run in the same folder is refused."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"output folder: {folder}: cannot be written: {error}. Choose another."
        ) from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"output folder: {folder} is in use by another run. Wait for it or choose another."
            ) from None
        yield


def check_free_space(folder: Path, needed: int, purpose: str) -> None:
    """Refuse ``purpose`` if the disk of ``folder``, which may not exist yet, is too full.

    Raises:
        InputError: naming both numbers.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(
            f"{purpose}: {folder}: {existing} is no folder that can be written. Choose another."
        )
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise InputError(
            f"{purpose}: {folder}: needs {format_bytes(needed)}, but {format_bytes(free)} are free "
            "on that disk. Free some space or choose another folder."
        )


def format_bytes(count: int) -> str:
    """Such as ``512 B``, ``3.1 MiB`` or ``16.0 GiB``."""
    units = ("B", "KiB", "MiB", "GiB")
    power = min(max(count.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{count / 1024**power:.{min(power, 1)}f} {units[power]}"


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def map_array(path: Path | str, purpose: str) -> np.ndarray:
    """Like ``read_array``, but memory-mapped read-only: pages load when they are used."""
    return _load_array(path, purpose, mmap_mode="r")


def read_array(path: Path | str, purpose: str) -> np.ndarray:
    """Load a ``.npy`` array; pickled objects are refused.

    Raises:
        InputError: the file is missing, is not a numpy array, or would need unpickling.
    """
    return _load_array(path, purpose, mmap_mode=None)


def write_array(path: Path | str, array: np.ndarray, durable: bool = True) -> None:
    """Save a ``.npy`` array, all or nothing (see ``atomic_file``)."""
    with atomic_file(path, durable) as temporary, temporary.open("wb") as stream:
        np.save(stream, array, allow_pickle=False)


def file_identity(path: Path) -> str:
    """Path, size and time of a file: another content under the same name reads differently."""
    status = path.stat()
    return f"{path} ({status.st_size} bytes, {status.st_mtime_ns})"


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hex; read once in a process while the file stays as it is."""
    return _hash(path, file_identity(path))


@cache
def _hash(path: Path, _identity: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_output_name(name: str, purpose: str) -> str:
    """Return ``name`` if it is safe as one file name: no folders, no NUL, at most 200 bytes."""
    bad = not name or name in (".", "..") or any(c in name for c in "/\\\0")
    if bad or len(name.encode()) > 200:
        raise InputError(
            f"{purpose}: {name[:80]!r} cannot be a file name. Expected 1 to 200 bytes "
            "without slashes: rename the key."
        )
    return name


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _load_array(path: Path | str, purpose: str, mmap_mode: Literal["r"] | None) -> np.ndarray:
    path = require_file(path, purpose)
    try:
        return np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    except (ValueError, EOFError, OSError):
        # numpy's own message advises to load the file unsafely.
        raise InputError(
            f"{purpose}: {path}: not a plain .npy array (truncated, pickled or another format). "
            "Make or download it again."
        ) from None
