"""What a training run reports: loss, accuracy on labels, speed, time left."""

import time
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

from kyvo.data.batches import Batch
from kyvo.training.loss import LossSums


class StepClock:
    """Seconds since the last report, without pauses, and seconds left of a run."""

    def __init__(self, total_steps: int, first_step: int) -> None:
        self._total_steps = total_steps
        self._first_step = first_step
        self._begun = self._since = time.perf_counter()

    def exclude(self, seconds: float) -> None:
        """Leave a pause, such as a validation, out of the seconds since the last report."""
        self._since += seconds

    def lap(self) -> float:
        """Seconds since the last report; starts the next count."""
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return seconds

    def seconds_left(self, step: int) -> float:
        """Seconds to the end of the run at the mean speed so far, pauses included."""
        per_step = (time.perf_counter() - self._begun) / max(step - self._first_step, 1)
        return per_step * (self._total_steps - step)


class StepMeter:
    """Sums over the steps since the last report; stays on the device until it is read."""

    def __init__(
        self, total_steps: int, first_step: int, sums: Mapping[str, float] | None = None
    ) -> None:
        """Continue from ``sums``, which the interrupted run's meter returned, if given."""
        self.clock = StepClock(total_steps, first_step)
        self.gradient_norm: Tensor | None = None
        self._reset()
        if sums is not None:
            self._loss = torch.tensor(sums["loss"])
            self._correct = torch.tensor(int(sums["correct"]))
            self._weight, self._labels = sums["weight"], int(sums["labels"])

    def add(self, sums: LossSums, batch: Batch, weight: float) -> None:
        """Count one batch whose loss is ``sums.total / weight``."""
        self._loss = self._loss + sums.total.detach()
        self._correct = self._correct + sums.correct
        self._weight += weight
        self._labels += len(batch.labels_N)
        self._tokens += batch.num_tokens
        self._samples += len(batch.keys)

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches, with the host's wait for each counted."""
        iterator = iter(batches)
        while True:
            begun = time.perf_counter()
            batch = next(iterator, None)
            self.seconds_waited += time.perf_counter() - begun
            if batch is None:
                return
            yield batch

    def sums(self) -> dict[str, float]:
        """The sums so far, for a checkpoint; waits for the device."""
        return {
            "loss": float(self._loss),
            "correct": int(self._correct),
            "weight": self._weight,
            "labels": self._labels,
        }

    def loss_and_accuracy(self) -> tuple[float, float]:
        """Mean loss and share of labels ranked first; waits for the device."""
        return float(self._loss) / self._weight, int(self._correct) / max(self._labels, 1)

    def report(self, step: int, learning_rate: float) -> dict[str, float]:
        """The values of one log line; starts the next sums."""
        # Read before the clock: it waits for the steps that are still under way.
        loss, accuracy = self.loss_and_accuracy()
        seconds_left, seconds = self.clock.seconds_left(step), self.clock.lap()
        values = {
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": learning_rate,
            "gradient_norm": float(self.gradient_norm) if self.gradient_norm is not None else 0.0,
            "tokens_per_second": self._tokens / seconds,
            "samples_per_second": self._samples / seconds,
            "seconds_left": seconds_left,
            "waiting_share": self.seconds_waited / seconds,
        }
        if torch.cuda.is_initialized():
            values["peak_gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
        self._reset()
        return values

    def _reset(self) -> None:
        self._loss, self._correct = torch.tensor(0.0), torch.tensor(0)
        self.seconds_waited = 0.0
        self._weight = 0.0
        self._labels = self._tokens = self._samples = 0


def log_line(step: int, total_steps: int, values: Mapping[str, float]) -> str:
    """One line for people."""
    minutes, seconds = divmod(round(values["seconds_left"]), 60)
    memory = f"{values['peak_gpu_gib']:.1f} GiB  " if "peak_gpu_gib" in values else ""
    return (
        f"step {step}/{total_steps}  loss {values['loss']:.4f}  "
        f"accuracy {values['accuracy']:.3f}  lr {values['learning_rate']:.2e}  "
        f"{values['tokens_per_second']:,.0f} tokens/s  "
        f"{values['samples_per_second']:,.1f} samples/s  {memory}ETA {minutes}:{seconds:02d}"
    )
