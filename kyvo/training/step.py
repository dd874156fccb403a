"""The end of a training step, in which the host never waits for the device."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from kyvo.common.errors import InputError

# Keys of a step's samples that an error names.
_NAMED_KEYS = 8


def apply_gradients(
    parameters: Iterable[nn.Parameter],
    optimizer: Optimizer,
    scheduler: LRScheduler | None,
    max_norm: float | None,
    record: Callable[[Tensor], None] = lambda norm: None,
) -> Tensor:
    """Clip, update and clear the gradients; their norm before it, still on the device.

    ``record`` gets the norm before the update.
    """
    norm = nn.utils.clip_grad_norm_(parameters, max_norm or math.inf)
    record(norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    if scheduler is not None:
        scheduler.step()
    return norm


class NonFiniteGradCheck:
    """A late check for steps whose gradient was not finite, made when ``check`` is called.

    A check waits for the device. Whoever checks before every checkpoint never writes a bad one.
    With ``at_once`` every step is checked as it is recorded: where the device is the host, which
    waits for nothing then.
    """

    def __init__(self, at_once: bool = False) -> None:
        self._at_once = at_once
        self._recorded: list[tuple[int, Tensor, str]] = []

    def record(self, step: int, keys: Sequence[str], norm: Tensor) -> None:
        """Keep the gradient's ``norm`` of ``step`` over the samples of these ``keys``."""
        self._recorded.append((step, norm, ", ".join(keys[:_NAMED_KEYS])))
        if self._at_once:
            self.check()

    def check(self) -> None:
        """Check all steps recorded since the last check.

        Raises:
            InputError: naming the first bad step and its samples.
        """
        recorded, self._recorded = self._recorded, []
        if not recorded:
            return
        norms = torch.stack([norm for _, norm, _ in recorded]).tolist()
        for (step, _, keys), norm in zip(recorded, norms, strict=True):
            if not math.isfinite(norm):
                raise InputError(
                    f"step {step}: the gradient is not finite (batch with {keys}, ...). "
                    "The last checkpoint is good; lower the learning rate or check those samples."
                )
