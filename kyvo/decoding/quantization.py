"""Smaller weights for decoding, by torchao."""

from typing import Any, Literal

import torch
from torch import nn
from torchao.quantization import (
    Float8DynamicActivationFloat8WeightConfig,
    Int8WeightOnlyConfig,
    PerRow,
    quantize_,
)

from kyvo.errors import InputError

Quantization = Literal["none", "int8", "float8"]

# The first GPUs with float8 products: Ada and Hopper.
_FLOAT8_CAPABILITY = (8, 9)


def quantize(layers: nn.Module, quantization: Quantization) -> None:
    """Replace the weights of all linear maps in ``layers``.

    "int8": weights only, one scale an output; fewer bytes to read, for few rows. "float8": weights
    and activations, one scale a row, so products are faster too; for many rows.
    """
    if quantization == "none":
        return
    config: Any = Int8WeightOnlyConfig(version=2)
    if quantization == "float8":
        config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    quantize_(layers, config)


def check_quantization(quantization: Quantization, device: torch.device) -> None:
    """Refuse what the device cannot do; InputError says so."""
    if quantization != "float8":
        return
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < _FLOAT8_CAPABILITY:
        raise InputError(
            f"quantization: float8 needs a GPU of compute capability 8.9 or more, not {device}. "
            "Use int8 or none."
        )
