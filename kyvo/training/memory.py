"""How much memory and disk a training run needs, before it takes them."""

from dataclasses import asdict, dataclass

import torch
from torch import nn

from kyvo.common.files import format_bytes
from kyvo.models import KyvoModel, num_parameters
from kyvo.training.config import TrainingConfig
from kyvo.training.runtime import weight_dtype

# Running averages of gradient and square; 8-bit optimizers need less.
_OPTIMIZER_STATES = 2


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a training step holds at its peak, by what holds them.

    Attributes:
        weights: weights, and the bfloat16 copies that autocast makes of them.
        gradients: gradients of the trained weights.
        optimizer: running averages of the optimizer.
        activations: tensors kept for the backward pass, and logits.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All of it, in bytes."""
        return sum(asdict(self).values())

    @property
    def fixed(self) -> int:
        """What no smaller batch makes less, in bytes."""
        return self.total - self.activations

    def __str__(self) -> str:
        listed = ", ".join(f"{name} {format_bytes(size)}" for name, size in asdict(self).items())
        return f"{format_bytes(self.total)} ({listed})"


def estimate_memory(
    model: KyvoModel, config: TrainingConfig, num_tokens: int, num_labels: int
) -> TrainingMemory:
    """The peak of a step over ``num_tokens`` positions of which ``num_labels`` carry loss.

    ``model`` may be on the meta device. Counted as the eager layers keep tensors for their backward
    pass, twice Adam's running averages, and logits as they are turned into their gradient.
    Compiled layers keep less.
    """
    item = weight_dtype(config.precision).itemsize
    trained = num_parameters(model, trainable_only=True)
    weights = num_parameters(model) * item
    if config.precision == "bf16_mixed":
        # Autocast keeps a bfloat16 copy of each matrix until the step ends.
        weights += trained * torch.bfloat16.itemsize
    at_once = min(num_labels, config.loss.head_chunk or num_labels)
    return TrainingMemory(
        weights,
        trained * item,
        trained * item * _OPTIMIZER_STATES,
        num_tokens * _bytes_per_token(model, config) + at_once * _bytes_per_label(model, config),
    )


def checkpoint_bytes(model: KyvoModel, config: TrainingConfig) -> tuple[int, int]:
    """Bytes of a checkpoint folder, and of an exported ``meta_model_EPOCH.pt``."""
    item = weight_dtype(config.precision).itemsize
    exported = num_parameters(model) * item
    states = num_parameters(model, trainable_only=True) * item * _OPTIMIZER_STATES
    return exported + states, exported


def _bytes_per_token(model: KyvoModel, config: TrainingConfig) -> int:
    """Bytes that all layers keep of one position."""
    width, inner = model.output.weight.shape[1], _feed_forward_width(model)
    item = _matmul_bytes(config)
    residual = weight_dtype(config.precision).itemsize
    attention = model.blocks[0].attn
    of_keys = attention.num_kv_heads * attention.head_dim
    # Twice: the residual stream, the normalised values in float32, and their copy that enters
    # the matmuls.
    of_norms = 2 * (residual + 4 + item) * width
    # Queries, keys and values; queries and keys turned by their position; the attended values.
    of_attention = 3 * item * (width + of_keys)
    # Gate, its activation, the other branch and their product.
    return len(model.layers) * (of_norms + of_attention + 4 * item * inner)


def _bytes_per_label(model: KyvoModel, config: TrainingConfig) -> int:
    """Logits in the matmuls' type, and in float32 too where that is another and kept."""
    item = _matmul_bytes(config)
    as_float32 = 0 if item == 4 or config.compile else 4
    return model.output.weight.shape[0] * (item + as_float32)


def _matmul_bytes(config: TrainingConfig) -> int:
    """Bytes of a number as it enters the matmuls."""
    return 4 if config.precision == "fp32" else 2


def _feed_forward_width(model: KyvoModel) -> int:
    first: nn.Linear = model.blocks[0].mlp.w1
    return first.out_features
