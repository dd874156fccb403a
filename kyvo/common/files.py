"""Reading and writing files: clear errors on the way in, nothing half-written on the way out."""

import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson

from kyvo.common.errors import InputError
from kyvo.common.json_text import parse_json

# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
LFS_POINTER_START = b"version https://git-lfs.github.com/spec/v1\n"
LFS_POINTER_MAX_BYTES = 200
MAX_JSON_BYTES = 1 << 29
"""Larger files are refused: parsed, they take ten times as much memory."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNFINISHED = ".unfinished"


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


def list_files(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Files of a folder by suffix, in any case, sorted by name; none where there is no folder.

    Hidden files are not listed: other programs leave them (``._X.png``, ``.ipynb_checkpoints``).

    Raises:
        InputError: the name of a file is not UTF-8.
    """
    if not folder.is_dir():
        return []
    return [p for p in list_visible(folder) if p.suffix.lower() in suffixes and p.is_file()]


def list_visible(folder: Path) -> list[Path]:
    """Everything in a folder that is not hidden, sorted; InputError for a name not in UTF-8."""
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in found:
        if not is_utf8(path.name):
            raise InputError(
                f"{folder}: the name of the file {path.name!r} is not UTF-8. Rename it."
            )
    return found


def is_utf8(text: str) -> bool:
    """Whether a name, as the system gave it, can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_json(path: Path | str, purpose: str) -> Any:
    """Parse a JSON file, strictly (see ``parse_json``).

    Raises:
        InputError: the file is missing, too large to be held, or not valid JSON, with its place.
    """
    path = require_file(path, purpose)
    size = path.stat().st_size
    if size > MAX_JSON_BYTES:
        raise InputError(
            f"{purpose}: {path}: {format_bytes(size)}, more than {format_bytes(MAX_JSON_BYTES)} of "
            "JSON at a time. Is it the right file? Split it."
        )
    return parse_json(path.read_bytes(), f"{purpose}: {path}")


def read_json_lines(path: Path | str, purpose: str) -> Iterator[dict[str, Any]]:
    """The objects of a file with one a line; a last line that a crash cut off is left out.

    Raises:
        InputError: the file is missing, or a line is no JSON object.
    """
    path = require_file(path, purpose)
    with path.open("rb") as stream:
        for number, line in enumerate(stream):
            where = f"{purpose}: {path}"
            try:
                value = parse_json(line.rstrip(), where, number)
            except InputError:
                if line.endswith(b"\n"):
                    raise
                return
            if not isinstance(value, dict):
                raise InputError(
                    f"{where}: line {number + 1}: expected an object, found {value!r:.60}. Remove "
                    "the line."
                )
            yield value


class JSONLines:
    """A file of one JSON object a line, written as they come."""

    def __init__(self, path: Path, kept: Iterable[Mapping[str, Any]]) -> None:
        """Begin with ``kept``, whatever is there; then append."""
        with atomic_file(path) as temporary:
            temporary.write_bytes(b"".join(map(_json_line, kept)))
        self.path = path
        self._stream = path.open("ab", buffering=0)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append an object; it survives a crash of the process from here on."""
        with disk_errors(self.path):
            line = _json_line(row)
            written = self._stream.write(line)
            if written != len(line):
                # The disk had room for a part; the reader leaves a cut line out.
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def close(self) -> None:
        """Flush to disk and close."""
        os.fsync(self._stream.fileno())
        self._stream.close()


def _json_line(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE)


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
    handle, name = tempfile.mkstemp(_UNFINISHED, f".{path.name[:100]}.", path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        with disk_errors(path, temporary):
            yield temporary
            os.chmod(temporary, 0o666 & ~umask())
            if durable:
                sync(temporary)
            os.replace(temporary, path)
            if durable:
                sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def disk_errors(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Name ``path`` in errors of the file system; a full disk is reported with its bytes.

    ``temporary``: what is written in its place.
    """
    try:
        yield
    except OSError as error:
        # A full disk, noticed by a write, does not say of which file.
        error.filename = error.filename or str(path)
        # numpy and Pillow, which write much, raise errors of their own without a number.
        if error.errno is None or error.errno in _FULL:
            size = format_bytes((temporary or path).stat().st_size)
            free = format_bytes(shutil.disk_usage(path.parent).free)
            raise InputError(
                f"{path}: {error.strerror or error} after {size}; {free} are free. What was there "
                "before is untouched: free some space and run the command again."
            ) from None
        raise


def copy_file(source: Path, target: Path) -> None:
    """Copy a file's content, all or nothing; a file onto itself stays."""
    if not target.exists() or not target.samefile(source):
        with atomic_file(target, durable=False) as temporary:
            shutil.copyfile(source, temporary)


@contextmanager
def folder_lock(folder: Path, *inputs: Path | None) -> Iterator[None]:
    """Hold ``folder`` for this process; every command that writes into a folder holds it.

    Nothing is written before ``inputs``, which the command reads, are known to be elsewhere. What
    a killed writer left half-written in the folder is cleared away.

    Raises:
        InputError: another process holds the folder, it cannot be written, or it is in an input.
    """
    check_outside(folder, *inputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / ".lock").open("w")
    except OSError as error:
        raise InputError(
            f"output folder: {folder}: cannot be written: {error}. Choose another."
        ) from None
    with stream:
        _take(stream, folder)
        clear_unfinished(folder)
        yield


def _take(stream: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"output folder: {folder} is in use by another run. Wait for it or choose another."
        ) from None
    except OSError as error:
        raise InputError(
            f"output folder: {folder}: its file system has no locks: {error}. Choose a folder on "
            "another one."
        ) from None


def check_outside(output: Path, *inputs: Path | None) -> None:
    """Refuse to write into a folder that is read; an input that is None is not there.

    Raises:
        InputError: ``output`` is one of ``inputs``, or in one of them.
    """
    place = output.resolve()
    for given in inputs:
        if given is not None and given.is_dir() and place.is_relative_to(given.resolve()):
            raise InputError(
                f"output folder: {output} is in {given}, which is read. Choose a folder outside."
            )


def clear_unfinished(folder: Path) -> None:
    """Remove what killed writers left in ``folder`` itself; its lock has to be held."""
    for path in folder.glob(f".*{_UNFINISHED}"):
        path.unlink(missing_ok=True)


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
    path = require_file(path, purpose)
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except PermissionError:
        raise
    except Exception as error:
        # numpy's own message may advise to load the file unsafely.
        problem = "truncated, pickled or another format"
        raise InputError(f"{purpose}: {path}: {_no_array(problem)}") from error
    extra = path.stat().st_size - array.offset - array.nbytes
    if extra and array.size:
        raise InputError(f"{purpose}: {path}: {_no_array(f'{extra} bytes after its values')}")
    return array


def read_array(path: Path | str, purpose: str) -> np.ndarray:
    """Load a ``.npy`` array; pickled objects are refused.

    The file is mapped first, so that no header makes memory be taken that the file does not fill.

    Raises:
        InputError: the file is missing, is not a numpy array, or would need unpickling.
    """
    return np.array(map_array(path, purpose))


def _no_array(problem: str) -> str:
    return f"not a plain .npy array ({problem}). Make or download it again."


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


def umask() -> int:
    """The permissions that the user takes away from new files and folders."""
    # To ask the system call for it is to change it for a moment, for other threads too.
    status = Path("/proc/self/status")
    match = re.search(r"^Umask:\s*(\d+)", status.read_text(), re.M) if status.exists() else None
    if match:
        return int(match[1], 8)
    mask = os.umask(0)
    os.umask(mask)
    return mask
