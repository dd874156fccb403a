"""One training step, in which the host never waits for the device."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kyvo.common.errors import InputError
from kyvo.data.batches import Batch
from kyvo.models import KyvoModel
from kyvo.training.config import TrainingConfig
from kyvo.training.loss import LossSums, language_loss
from kyvo.training.runtime import autocast

# Keys of a batch that an error names.
_NAMED_KEYS = 4


def batch_loss(
    model: KyvoModel, batch: Batch, config: TrainingConfig, device: torch.device
) -> LossSums:
    """The loss of a ``batch`` that is still on the host."""
    loss = config.loss
    with autocast(config.precision, device):
        return language_loss(
            model, batch.to(device), loss.normalization, loss.head_chunk, config.compile
        )


def apply_gradients(
    parameters: Iterable[nn.Parameter],
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    max_norm: float | None,
) -> Tensor:
    """Clip, update and clear the gradients; their norm before it, still on the device."""
    norm = nn.utils.clip_grad_norm_(parameters, max_norm or math.inf)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if scheduler is not None:
        scheduler.step()
    return norm


class GradientWatch:
    """Finds steps whose gradient was not finite, when it is asked and not before.

    To ask waits for the device. Whoever asks before every checkpoint never writes a bad one.
    """

    def __init__(self) -> None:
        self._noted: list[tuple[int, Tensor, str]] = []

    def note(self, step: int, norm: Tensor, batches: Sequence[Batch]) -> None:
        """The gradient of ``step`` over ``batches`` had this ``norm``."""
        keys = ", ".join(key for batch in batches for key in batch.keys[:_NAMED_KEYS])
        self._noted.append((step, norm, keys))

    def check(self) -> None:
        """Look at all steps noted since the last check.

        Raises:
            InputError: naming the first bad step and its samples.
        """
        noted, self._noted = self._noted, []
        if not noted:
            return
        norms = torch.stack([norm for _, norm, _ in noted]).tolist()
        for (step, _, keys), norm in zip(noted, norms, strict=True):
            if not math.isfinite(norm):
                raise InputError(
                    f"step {step}: the gradient is not finite (batch with {keys}, ...). "
                    "The last checkpoint is good; lower the learning rate or check those samples."
                )
