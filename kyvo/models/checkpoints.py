"""Checkpoints that survive a crash, and exact resume.

A checkpoint is a folder ``step_00000100``: weights and optimizer state as safetensors, the rest
as JSON, and a manifest with the size and SHA-256 of each file. It is written beside its place,
flushed, and renamed, so that a folder of that name is whole. NaN and infinity are never written.
Reading takes the newest folder whose manifest verifies and whose values are finite, and says what
it skipped. Any recipe can save its own files likewise.
"""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from kyvo.common.errors import InputError
from kyvo.common.files import file_hash, read_json, sync, write_json
from kyvo.common.weight_files import check_finite, non_finite_in_file, read_safetensors

MODEL, OPTIMIZER, STATE, MANIFEST = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "manifest.json",
)
ASSETS = Path(__file__).parents[1] / "assets"
SHIPPED = ("mini",)
"""Models that come with the package, in folders of ``ASSETS``."""
Files = Mapping[str, Mapping[str, Any]]
"""Contents of a checkpoint by file name."""
_NAME = re.compile(r"step_(\d{8})")
_RELEASED_NAME = re.compile(r"meta_model_(\d+)\.pt")
_UNFINISHED = ".saving"


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint on disk."""

    folder: Path
    step: int

    def weights(self) -> dict[str, Tensor]:
        """The model's weights in the released layout's names."""
        return read_safetensors(self.folder / MODEL, "checkpoint")

    def optimizer_tensors(self) -> dict[str, Tensor]:
        """The optimizer's tensors and the random states."""
        return read_safetensors(self.folder / OPTIMIZER, "checkpoint")

    def state(self) -> dict[str, Any]:
        """Everything else, as JSON values."""
        return dict(read_json(self.folder / STATE, "checkpoint"))


def save_checkpoint(root: Path, step: int, files: Files, keep: int) -> Checkpoint:
    """Write the checkpoint of ``step`` into ``root``, then delete all but the newest ``keep``.

    One process at a time may write into ``root``. A whole checkpoint of the same step is left as
    it is: replacing a folder takes two operations, and a crash between them would lose it.

    Args:
        files: contents by file name: named tensors of a ``.safetensors`` file, values of a
            ``.json`` file. A language model has ``MODEL``, ``OPTIMIZER`` and ``STATE``.

    Raises:
        InputError: a value is NaN or infinite, the disk is full or not writable; earlier
            checkpoints are untouched.
    """
    target = root / f"step_{step:08d}"
    tensors = {f"{file}: {n}": t for file in _weight_files(files) for n, t in files[file].items()}
    check_finite(tensors, f"checkpoint {target}")
    if _fault(target) is not None:
        _replace_folder(target, root / _UNFINISHED, files)
    _delete_others(root, step, keep)
    return Checkpoint(target, step)


def write_folder(folder: Path, files: Files) -> None:
    """Write ``files`` as one folder with its manifest, whole or not at all.

    Raises:
        InputError: the folder exists already, or cannot be written.
    """
    if folder.exists():
        raise InputError(f"checkpoint: {folder} exists already. Choose another folder.")
    _replace_folder(folder, folder.with_name(f"{folder.name}{_UNFINISHED}"), files)


def _replace_folder(target: Path, temporary: Path, files: Files) -> None:
    """Write ``files`` into ``temporary``, flush them, and rename it to ``target``."""
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        _write(temporary, files)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        sync(target.parent)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise InputError(
            f"checkpoint {target.name} ({_num_bytes(files):,} bytes): cannot be written to "
            f"{target.parent}: {error}. Earlier checkpoints are untouched; free some space and "
            "run the command again."
        ) from error


def latest_checkpoint(
    root: Path, files: Sequence[str] | None = None
) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint in ``root`` that is whole, and a line on each skipped.

    ``files`` are those that have to be whole; None: all.
    """
    skipped: list[str] = []
    for step, folder in _folders(root):
        fault = _fault(folder, files)
        if fault is None:
            return Checkpoint(folder, step), skipped
        skipped.append(f"{folder}: {fault}")
    return None, skipped


def report_skipped(skipped: Iterable[str], taken: Checkpoint) -> None:
    """Print which damaged checkpoints were passed over, and for which."""
    lines = [f"skipped a damaged checkpoint: {line}" for line in skipped]
    if lines:
        print("\n".join([*lines, f"taking the one of step {taken.step}: {taken.folder}"]))


def with_whole_weights(root: Path) -> list[Path]:
    """The checkpoints in ``root`` whose weights are whole, whatever else is damaged; newest first.

    ``find_weights`` takes each of them.
    """
    return [folder for _, folder in _folders(root) if _fault(folder, (MODEL,)) is None]


def find_weights(path: Path) -> Path:
    """The weights that ``path`` means: a file itself, a checkpoint folder, or a run's newest.

    A name in ``SHIPPED``, such as ``mini``, means the model of the package. In a folder without
    checkpoints of this project, the ``meta_model_EPOCH.pt`` of the last epoch is meant.
    Prints, once in a process, which damaged checkpoints of a run it passes over.

    Raises:
        InputError: nothing there, or the checkpoint is damaged.
    """
    if str(path) in SHIPPED:
        path = ASSETS / path
    if path.is_file():
        return path
    if (path / MODEL).is_file():
        fault = _fault(path, (MODEL,))
        if fault:
            raise InputError(f"checkpoint: {path}: {fault}. Take another one.")
        return path / MODEL
    found, skipped = latest_checkpoint(path, (MODEL,))
    released = _numbered(path, _RELEASED_NAME)
    if found is None and released and not skipped:
        return released[0][1]
    if found is None:
        detail = f" ({'; '.join(skipped)})" if skipped else ""
        raise InputError(
            f"checkpoint: {path}: no whole checkpoint there{detail}. Train first, or give a "
            "checkpoint file such as meta_model_9.pt."
        )
    _report_once(tuple(skipped), found)
    return found.folder / MODEL


@cache
def _report_once(skipped: tuple[str, ...], taken: Checkpoint) -> None:
    # An evaluation asks for the same weights a dozen times.
    report_skipped(skipped, taken)


def _folders(root: Path) -> list[tuple[int, Path]]:
    """(step, folder) of everything named like a checkpoint, newest first."""
    return [(step, path) for step, path in _numbered(root, _NAME) if path.is_dir()]


def _numbered(root: Path, name: re.Pattern[str]) -> list[tuple[int, Path]]:
    """What ``root`` holds of that name, by its number, the highest first."""
    if not root.is_dir():
        return []
    matches = [(name.fullmatch(path.name), path) for path in root.iterdir()]
    return sorted(((int(m[1]), path) for m, path in matches if m), reverse=True)


def _write(folder: Path, files: Files) -> None:
    """All files of a checkpoint, flushed to disk."""
    for name, content in files.items():
        if name.endswith(".safetensors"):
            save_file(_contiguous(content), folder / name)
            sync(folder / name)
        else:
            write_json(folder / name, dict(content))
    write_json(folder / MANIFEST, _manifest(folder, files))
    sync(folder)


def _delete_others(root: Path, step: int, keep: int) -> None:
    """Keep the newest ``keep`` up to ``step``; newer ones are damaged, the run went back."""
    folders = _folders(root)
    kept = [folder for number, folder in folders if number <= step][:keep]
    for _, folder in folders:
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Cloning keeps tensors that share storage apart, which safetensors insists on.
    return {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}


def _num_bytes(files: Files) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for name in _weight_files(files) for tensor in files[name].values())


def _weight_files(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors")]


def _manifest(folder: Path, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {"bytes": (folder / name).stat().st_size, "sha256": file_hash(folder / name)}
        for name in names
    }


def _fault(folder: Path, files: Sequence[str] | None = None) -> str | None:
    """What is wrong with a checkpoint folder; None if its ``files`` are whole and finite."""
    try:
        manifest = read_json(folder / MANIFEST, "checkpoint")
        names = list(manifest if files is None else files)
        faults = (_file_fault(folder / name, manifest[name]) for name in names)
        return next((fault for fault in faults if fault is not None), None)
    except PermissionError as error:
        return f"no permission to read it: {error}"
    except (InputError, OSError, KeyError, TypeError, SafetensorError) as error:
        return f"incomplete: {error}"


def _file_fault(path: Path, record: Mapping[str, Any]) -> str | None:
    """What is wrong with a file of a checkpoint; ``record`` is its entry in the manifest."""
    if path.stat().st_size != record["bytes"]:
        return f"{path.name} is truncated"
    if file_hash(path) != record["sha256"]:
        return f"{path.name} is damaged"
    bad = non_finite_in_file(path) if path.suffix == ".safetensors" else []
    return f"{path.name} holds NaN or infinity in {bad[0]}" if bad else None
