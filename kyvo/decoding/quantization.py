"""Smaller weights for decoding, by torchao."""

from typing import Any, Literal

from torch import nn
from torchao.quantization import (
    Float8DynamicActivationFloat8WeightConfig,
    Int8WeightOnlyConfig,
    PerRow,
    quantize_,
)

Quantization = Literal["none", "int8", "float8"]


def quantize(layers: nn.Module, quantization: Quantization) -> None:
    """Replace the weights of all linear maps in ``layers``.

    "int8": weights only, one scale an output; fewer bytes to read, for a single row. "float8":
    weights and activations, one scale a row, so matmuls are faster too; for many rows.
    """
    if quantization == "none":
        return
    config: Any = Int8WeightOnlyConfig(version=2)
    if quantization == "float8":
        config = Float8DynamicActivationFloat8WeightConfig(granularity=PerRow())
    quantize_(layers, config)
