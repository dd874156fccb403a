"""Parts that every recipe shares: precision, signals, metrics log."""

import signal
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torchtune.training.metric_logging import MetricLoggerInterface

from kyvo.common.files import JSONLines, read_json_lines
from kyvo.training.config import Precision


def weight_dtype(precision: Precision) -> torch.dtype:
    """Storage of the weights: bfloat16 only for ``bf16``."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def length_multiple(device: torch.device) -> int:
    """Multiple to which lengths are padded: tensor cores, float8's above all, work in 16s."""
    return 16 if device.type == "cuda" else 1


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Context of a forward pass: for bf16_mixed, bfloat16 matmuls of float32 weights."""
    assert precision != "auto", "TrainingConfig.on says what it means"
    if precision != "bf16_mixed":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


class PreemptionHandler:
    """Turn SIGINT and SIGTERM into a request to stop after the current step.

    A second signal acts at once, as usual. ``exit`` ends the process with the customary status.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "PreemptionHandler":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def exit(self) -> None:
        """Leave with 130 (SIGINT) or 143 (SIGTERM)."""
        assert self.received is not None
        sys.exit(128 + self.received)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number)
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class MetricsLog:
    """``metrics.jsonl``: one JSON object a line, and the config's own metric logger beside it."""

    def __init__(self, path: Path, also: MetricLoggerInterface | None, last_step: int) -> None:
        """Go on after ``last_step``; what an interrupted run logged later is written again."""
        self._lines = JSONLines(path, _rows_up_to(path, last_step))
        self._also = also

    def write(self, step: int, values: dict[str, float]) -> None:
        """Log ``values`` of ``step``."""
        self._lines.add({"step": step, **values})
        if self._also is not None:
            self._also.log_dict(values, step)

    def close(self) -> None:
        """Close the file and the logger."""
        self._lines.close()
        if self._also is not None:
            self._also.close()


def _rows_up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """What an earlier attempt logged that the resumed run will not write again."""
    if step == 0 or not path.is_file():
        return []
    return [row for row in read_json_lines(path, "log") if row.get("step", 0) <= step]
