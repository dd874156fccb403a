"""Tensors in files: nothing in those of strangers is ever run, and all values are finite."""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from kyvo.common.errors import InputError
from kyvo.common.files import atomic_file, file_hash, file_identity, require_file

_LISTED = 8
_ROW_SCALE = ".row_scale"
_FEWEST_COMPACT, _TINY = 4096, 1e-12


class _Inert:
    """Stands for a class that a checkpoint names but that is not needed to read its weights."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def read_state_dict(
    path: Path, purpose: str, harmless: tuple[str, ...] = (), shapes_only: bool = False
) -> dict[str, Tensor]:
    """Tensors by name from ``.safetensors``, or from a torch file read with weights_only=True.

    A torch file may hold them at the top or, as Lightning writes them, under ``state_dict``.
    Classes whose full name starts with one of ``harmless`` (such as ``pytorch_lightning.``) may
    be named in it; they are replaced by an inert stand-in, never imported. ``shapes_only`` gives
    tensors on the meta device, without reading their values.

    Raises:
        InputError: the file is missing, truncated, holds no tensors, would run code, or is not
            the one whose hash is beside it.
    """
    require_file(path, purpose)
    _check_hash(path, purpose)
    if path.suffix == ".safetensors":
        return read_safetensors(path, purpose, shapes_only)
    content = _read_torch(path, purpose, harmless)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict):
        raise InputError(f"{purpose}: {path}: holds no weights by name.")
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not tensors:
        raise InputError(f"{purpose}: {path}: holds no tensors.")
    return {k: v.to("meta") for k, v in tensors.items()} if shapes_only else tensors


def write_torch(path: Path, content: Mapping[str, Any]) -> None:
    """Write a torch file, all or nothing, and beside it its hash, which ``read_state_dict`` checks.

    ``FILE.sha256`` is in the form that ``sha256sum --check`` reads.
    """
    record = _hash_record(path)
    # In this order, an interruption leaves no hash rather than a wrong one.
    record.unlink(missing_ok=True)
    with atomic_file(path) as temporary:
        try:
            # To a stream, because torch writes the name of a file into it: a random one here.
            with temporary.open("wb") as stream:
                torch.save(content, stream)
        except RuntimeError as error:  # what torch makes of an error of the disk
            raise OSError(str(error).partition("\n")[0]) from None
    with atomic_file(record) as temporary:
        temporary.write_text(f"{file_hash(path)}  {path.name}\n")


def _hash_record(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _check_hash(path: Path, purpose: str) -> None:
    """Refuse a file that is not the one whose hash is beside it; one without a hash passes."""
    record = _hash_record(path)
    if not record.is_file():
        return
    expected, found = record.read_text(errors="replace").partition(" ")[0], file_hash(path)
    if found != expected:
        raise InputError(
            f"{purpose}: {path}: damaged, or not what {record.name} is of: its SHA-256 is "
            f"{found[:16]}..., expected {expected[:16]}.... Put back a copy of both, or remove "
            "the hash of a file that you changed yourself."
        )


def compact(tensors: Mapping[str, Tensor], whole: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Tensors whose matrices are int8 with a float32 scale for each row: a quarter of float32.

    ``read_safetensors`` gives them back as float32. Small ones stay as they are, and so do those
    whose names end with one of ``whole``.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        is_small = tensor.dim() < 2 or tensor.numel() < _FEWEST_COMPACT
        if is_small or name.endswith(whole):
            found[name] = tensor
            continue
        rows = tensor.detach().float().flatten(1)
        scale = rows.abs().amax(1, keepdim=True).clamp_min(_TINY) / 127
        found[name] = (rows / scale).round().to(torch.int8).view(tensor.shape)
        found[name + _ROW_SCALE] = scale[:, 0]
    return found


def _expanded(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """What ``compact`` was given, rounded."""
    scales = {n.removesuffix(_ROW_SCALE): t for n, t in tensors.items() if n.endswith(_ROW_SCALE)}
    found = {name: tensor for name, tensor in tensors.items() if not name.endswith(_ROW_SCALE)}
    for name, scale in scales.items():
        if name in found:
            shape = (-1, *[1] * (found[name].dim() - 1))
            found[name] = found[name].to(scale.dtype) * scale.view(shape)
    return found


def read_safetensors(path: Path, purpose: str, shapes_only: bool = False) -> dict[str, Tensor]:
    """All tensors of a ``.safetensors`` file, on the CPU (``shapes_only``: the meta device).

    Those that ``compact`` made smaller are given back whole.
    """
    try:
        if not shapes_only:
            return _expanded(load_file(path))
        with safe_open(path, framework="pt") as stored:
            names = [name for name in stored.offset_keys() if not name.endswith(_ROW_SCALE)]
            shapes = {name: stored.get_slice(name).get_shape() for name in names}
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{purpose}: {path}: cannot be read: {error}. Get it again.") from None


def read_tensor(path: Path, name: str, purpose: str) -> Tensor | None:
    """One tensor of a weights file, without reading the others; None if it has none of the name."""
    if path.suffix != ".safetensors":
        return read_state_dict(path, purpose).get(name)
    try:
        with safe_open(path, framework="pt") as stored:
            parts = [key for key in (name, name + _ROW_SCALE) if key in stored.offset_keys()]
            return _expanded({key: stored.get_tensor(key) for key in parts}).get(name)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{purpose}: {path}: cannot be read: {error}. Get it again.") from None


def _read_torch(path: Path, purpose: str, harmless: tuple[str, ...]) -> Any:
    stand_ins: list[Any] = []
    try:
        if harmless:
            named = get_unsafe_globals_in_checkpoint(str(path))
            stand_ins = [(_Inert, name) for name in named if name.startswith(harmless)]
        with safe_globals(stand_ins):
            # Mapped, where the format can be: values are read when they are first used.
            return torch.load(path, "cpu", weights_only=True, mmap=is_zipfile(path))
    except Exception as error:  # noqa: BLE001 - a broken pickle raises anything, even KeyError
        raise InputError(
            f"{purpose}: {path}: cannot be read as plain weights: {_cause(error)}. The file is "
            "broken or holds more than tensors, which is refused because it could run code."
        ) from None


def _cause(error: Exception) -> str:
    """What torch found, without its advice, which is to load the file unsafely."""
    text = str(error)
    if text.startswith("Weights only load failed"):
        text = re.split(r"WeightsUnpickler error:|\n\n", text, maxsplit=1)[-1]
    return re.split(r"[.]?\n|[.] |[.]$", text.strip(), maxsplit=1)[0] or type(error).__name__


def check_weights(
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    source: str,
    optional: Collection[str] = (),
) -> None:
    """Compare names and shapes of weights, and refuse values that are not finite.

    Those of ``expected`` that are ``optional`` need not be there; ``source`` names the weights.

    Raises:
        InputError: listing the missing, unexpected, mis-shaped and non-finite weights.
    """
    common = [name for name in expected if name in found]
    groups = {
        "missing": [n for n in expected if n not in found and n not in optional],
        "unexpected": [name for name in found if name not in expected],
        "wrong shape": [
            f"{name} {tuple(found[name].shape)}, not {tuple(expected[name].shape)}"
            for name in common
            if found[name].shape != expected[name].shape
        ],
        "NaN or infinite": non_finite({n: found[n] for n in common if not found[n].is_meta}),
    }
    problems = [f"{title}: {_listing(names)}" for title, names in groups.items() if names]
    if problems:
        raise InputError(
            f"{source}: the weights do not fit: {'; '.join(problems)}. "
            "Check that they belong together: size, vocabulary and kind of the model in the config."
        )


def check_finite(tensors: Mapping[str, Tensor], what: str) -> None:
    """Refuse to write tensors that hold NaN or infinity; waits once for each device.

    Raises:
        InputError: naming ``what`` was to be written, the tensors, and the place in the first.
    """
    bad = non_finite(tensors)
    if bad:
        place = (~tensors[bad[0]].float().isfinite()).nonzero()[0].tolist()
        raise InputError(
            f"{what}: NaN or infinite: {_listing(bad)}; first at {place} of {bad[0]}. Not written: "
            "what was saved before is good. Start from it in another folder, with a lower learning "
            "rate."
        )


def non_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; waits once for each device."""
    flags: dict[torch.device, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        if _can_be_non_finite(tensor):
            flags[tensor.device][name] = _is_finite(tensor)
    finite = {
        name: flag
        for named in flags.values()
        for name, flag in zip(named, torch.stack(list(named.values())).tolist(), strict=True)
    }
    return [name for name in tensors if not finite.get(name, True)]


def non_finite_in_file(path: Path) -> list[str]:
    """``non_finite`` of a safetensors file; read once in a process while it stays as it is."""
    return _non_finite_in_file(path, file_identity(path))


@cache
def _non_finite_in_file(path: Path, _identity: str) -> list[str]:
    with safe_open(path, framework="pt") as stored:
        # One tensor at a time: a file may be larger than memory.
        return [
            name for name in stored.offset_keys() if non_finite({name: stored.get_tensor(name)})
        ]


def _all_finite(tensor: Tensor) -> bool:
    return not _can_be_non_finite(tensor) or bool(_is_finite(tensor))


def _can_be_non_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 0


def _is_finite(tensor: Tensor) -> Tensor:
    """A flag on the tensor's device; both extremes are NaN where any value is."""
    if tensor.element_size() == 1:  # float8 knows no extremes
        tensor = tensor.float()
    return torch.stack(torch.aminmax(tensor.detach())).isfinite().all()


def _listing(names: list[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
