"""Where tensors live, and whether there is room."""

from typing import TypeVar

import torch

from kyvo.common.errors import InputError
from kyvo.common.files import format_bytes

# The first GPUs that multiply float8 numbers: Ada and Hopper.
_FLOAT8_CAPABILITY = (8, 9)

_Precision = TypeVar("_Precision", bound=str)


def resolve_device(name: str) -> torch.device:
    """``auto``: the GPU if there is one. InputError if CUDA is asked for and absent."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise InputError("device: cuda, but no CUDA device is visible. Use device=cpu or auto.")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def resolve_precision(
    name: _Precision, device: torch.device, fast: _Precision, exact: _Precision
) -> _Precision:
    """``auto``: ``fast`` on a device that multiplies bfloat16 numbers itself, else ``exact``.

    A processor that must emulate them takes about 60 times as long as for float32.
    """
    if name != "auto":
        return name
    return fast if multiplies_bfloat16(device) else exact


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 matmuls are faster there than float32 ones."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def free_memory(device: torch.device) -> int | None:
    """Bytes free on a GPU; None for other devices."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def check_memory(device: torch.device, needed: int, remedy: str) -> None:
    """Refuse a run that needs more bytes than its GPU has free.

    Raises:
        InputError: naming both values and the remedy.
    """
    free = free_memory(device)
    if free is not None and needed > free:
        raise InputError(
            f"GPU memory: the run needs at least {format_bytes(needed)}, but {format_bytes(free)} "
            f"are free. {remedy}"
        )


def check_float8(device: torch.device, remedy: str) -> None:
    """Refuse a device that does not multiply float8 numbers.

    Raises:
        InputError: naming what it has and the remedy.
    """
    is_gpu = device.type == "cuda"
    capability = torch.cuda.get_device_capability(device) if is_gpu else (0, 0)
    if capability < _FLOAT8_CAPABILITY:
        found = "compute capability {}.{}".format(*capability) if is_gpu else "no GPU"
        raise InputError(
            f"float8: needs a GPU of compute capability 8.9 or more (Ada, Hopper), found {found}. "
            f"{remedy}"
        )
