"""Fine-tune every weight of a Kyvo model on one device.

    python3 scripts/full_finetune_single_device_3d.py --config CONFIG [key=value ...]

The same command again goes on where an interrupted run stopped.
"""

import argparse
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import torch
from tqdm import tqdm

import kyvo.common.cli
from kyvo.common.config import load_config
from kyvo.common.errors import InputError
from kyvo.common.files import folder_lock
from kyvo.common.weight_files import check_finite, write_torch
from kyvo.data.batches import Batch, BatchSettings, BatchSource, LossWeighting
from kyvo.models import (
    MODEL,
    OPTIMIZER,
    STATE,
    Files,
    load_released_state,
    released_state_dict,
    save_checkpoint,
)
from kyvo.models.description import description_files
from kyvo.training import (
    LossSums,
    MetricsLog,
    NonFiniteGradCheck,
    PreemptionHandler,
    StepMeter,
    TrainingConfig,
    apply_compile_and_float8,
    apply_gradients,
    autocast,
    build_model,
    build_optimizer,
    build_soft_numbers,
    check_width,
    describe_run,
    find_interrupted,
    fingerprint,
    language_loss,
    length_multiple,
    log_line,
    loss_weight,
    optimizer_state,
    plan_training,
    random_state,
    restore_optimizer,
    restore_random_state,
    restore_scheduler,
)

_SALVAGE = "a new run starts from them with checkpoint=THAT_FOLDER and another output_dir."


class FullFinetuneRecipeSingleDevice3D:
    """The recipe: ``setup``, ``train``, ``cleanup``."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.step = 0

    def setup(self) -> None:
        """Check everything, build every part, and go back to the newest checkpoint."""
        plan = plan_training(self.config)
        print(plan.summary())
        self.config = config = plan.config
        torch.manual_seed(config.seed)
        self.device = plan.device
        self.dataset, self.validation = plan.dataset, plan.validation
        self.steps_per_epoch, self.total_steps = plan.steps_per_epoch, plan.total_steps
        self.model = build_model(config, self.device)
        self.parameters = self.model.trainable_parameters()
        self.soft_numbers = build_soft_numbers(config, self.device)
        self.optimizer = build_optimizer(config, self.parameters)
        self.scheduler = (
            config.lr_scheduler.build(self.optimizer, num_training_steps=self.total_steps)
            if config.lr_scheduler
            else None
        )
        self.description_files = description_files(describe_run(config, self.dataset))
        self.fingerprint = fingerprint(config, self.dataset)
        self.meter = StepMeter(self.total_steps, self.step)
        self.grad_check = NonFiniteGradCheck(at_once=self.device.type == "cpu")
        self._resume()
        apply_compile_and_float8(self.model, config)
        logger = config.metric_logger.build() if config.metric_logger else None
        self.log = MetricsLog(config.output_dir / "metrics.jsonl", logger, self.step)

    def train(self) -> None:
        """Run all remaining steps; a signal makes it save and leave after the current one."""
        progress = tqdm(total=self.total_steps, initial=self.step, unit="step", disable=None)
        if self.step == 0:
            self._validate()
        with PreemptionHandler() as stop, progress:
            while self.step < self.total_steps:
                for batches in self._rest_of_epoch():
                    self._update(batches)
                    self.step += 1
                    progress.update()
                    self._after_step(progress)
                    if stop.received or self.step == self.total_steps:
                        break
                if stop.received:
                    self._save()
                    print(f"stopped by {stop.received.name} after step {self.step}; saved.")
                    stop.exit()
        print(f"done: {self.step} steps; checkpoints in {self.config.output_dir}")

    def cleanup(self) -> None:
        """Close the log."""
        self.log.close()

    def _rest_of_epoch(self) -> Iterator[list[Batch]]:
        """The batches of every step left in the current epoch."""
        epoch, done = divmod(self.step, self.steps_per_epoch)
        size = self.config.gradient_accumulation_steps
        settings = self._batch_settings(self.config.seed)
        batches = self.dataset.batches(epoch, done * size, settings)
        return _grouped(self.meter.waiting(batches), size)

    def _batch_settings(self, seed: int | None) -> BatchSettings:
        config, loss = self.config, self.config.loss
        return BatchSettings(
            config.batch_size,
            LossWeighting(loss.weight_first_positions, loss.weight),
            seed,
            length_multiple(self.device),
            config.num_workers,
            pin_memory=self.device.type == "cuda",
        )

    def _update(self, batches: list[Batch]) -> None:
        """One optimizer step over the accumulated ``batches``."""
        config = self.config
        weight = sum(loss_weight(batch, config.loss.normalization) for batch in batches)
        for batch in batches:
            try:
                sums = self._loss(self.dataset, batch)
                (sums.total / weight).backward()
            except torch.OutOfMemoryError:
                raise InputError(_out_of_memory(batch)) from None
            self.meter.add(sums, batch, loss_weight(batch, config.loss.normalization))
        keys = [key for batch in batches for key in batch.keys]
        self.meter.gradient_norm = apply_gradients(
            self.parameters.values(),
            self.optimizer,
            self.scheduler,
            config.clip_grad_norm,
            partial(self.grad_check.record, self.step + 1, keys),
        )

    def _loss(self, source: BatchSource, batch: Batch) -> LossSums:
        """The loss of a ``batch`` of ``source`` that is still on the host."""
        config, loss = self.config, self.config.loss
        check_width(batch, self.model.max_seq_len)
        batch = source.place(batch, self.device)
        with autocast(config.precision, self.device):
            return language_loss(
                self.model,
                batch,
                loss.normalization,
                loss.head_chunk,
                config.compile,
                self.soft_numbers,
            )

    def _after_step(self, progress: tqdm) -> None:
        config, step = self.config, self.step
        last = step == self.total_steps
        if last or step % config.log_every_n_steps == 0:
            self.grad_check.check()
            values = self.meter.report(step, _learning_rate(self.optimizer))
            self.log.write(step, values)
            progress.write(log_line(step, self.total_steps, values))
        begun = time.perf_counter()
        if last or _is_multiple(step, config.validate_every_n_steps):
            self._validate()
        ends_epoch = step % self.steps_per_epoch == 0
        # Before the checkpoint: a run that resumes from it does not export this epoch again.
        is_due = last or (ends_epoch and config.export_released == "every_epoch")
        if is_due and config.export_released != "never":
            self._export((step - 1) // self.steps_per_epoch)
        if last or ends_epoch or _is_multiple(step, config.save_every_n_steps):
            self._save()
        self.meter.clock.exclude(time.perf_counter() - begun)

    @torch.no_grad()
    def _validate(self) -> None:
        """Loss and accuracy on held-out samples, in a fixed order."""
        self.grad_check.check()
        if self.validation is None:
            return
        config = self.config
        batches = self.validation.batches(0, 0, self._batch_settings(None))
        meter = StepMeter(1, 0)
        for batch in islice(batches, config.validation_batches):
            weight = loss_weight(batch, config.loss.normalization)
            meter.add(self._loss(self.validation, batch), batch, weight)
        loss, accuracy = meter.loss_and_accuracy()
        self.log.write(self.step, {"val_loss": loss, "val_accuracy": accuracy})
        tqdm.write(f"step {self.step}  validation loss {loss:.4f}  accuracy {accuracy:.3f}")

    def _save(self) -> None:
        self.grad_check.check()
        tensors, values = optimizer_state(self.optimizer, self.parameters)
        state = {
            "step": self.step,
            "run": self.fingerprint,
            "optimizer": values,
            "meter": self.meter.sums(),
        }
        files: Files = {
            MODEL: released_state_dict(self.model),
            OPTIMIZER: tensors | random_state(),
            STATE: state,
            **self.description_files,
        }
        save_checkpoint(self.config.output_dir, self.step, files, self.config.keep_checkpoints)

    def _resume(self) -> None:
        config = self.config
        found = find_interrupted(config.output_dir, config.resume, self.fingerprint, _SALVAGE)
        if found is None:
            return
        state, tensors = found.state(), found.optimizer_tensors()
        load_released_state(self.model, found.weights(), str(found.folder))
        restore_optimizer(self.optimizer, self.parameters, tensors, state["optimizer"])
        self.step = found.step
        if self.scheduler is not None:
            restore_scheduler(self.scheduler, self.step)
        self.meter = StepMeter(self.total_steps, self.step, state["meter"])
        restore_random_state(tensors)
        print(f"resuming from {found.folder}")

    def _export(self, epoch: int) -> None:
        """The released layout's file, for tools that read ``meta_model_{epoch}.pt``."""
        self.grad_check.check()
        path = self.config.output_dir / f"meta_model_{epoch}.pt"
        weights = released_state_dict(self.model)
        check_finite(weights, f"export {path}")
        write_torch(path, weights)


def _grouped(batches: Iterable[Batch], size: int) -> Iterator[list[Batch]]:
    iterator = iter(batches)
    while group := list(islice(iterator, size)):
        yield group


def _is_multiple(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """That of ``optimizer.lr``; the first groups may have another, as Muon's has."""
    return float(optimizer.param_groups[-1]["lr"])


def _out_of_memory(batch: Batch) -> str:
    rows, length = batch.tokens_BL.shape
    peak = torch.cuda.max_memory_allocated() / 2**30
    return (
        f"out of GPU memory at batch {rows} x {length} tokens (peak {peak:.1f} GiB). Halve "
        "batch_size and double gradient_accumulation_steps, set loss.head_chunk=2048, or use "
        "precision=bf16 with torchao.optim.AdamW8bit."
    )


def main(argv: Sequence[str]) -> None:
    """Parse, build, train."""
    argv, overrides = kyvo.common.cli.split_overrides(argv)
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=kyvo.common.cli.OVERRIDES_HELP
    )
    parser.add_argument("--config", required=True, help="yaml file of the run")
    config = load_config(TrainingConfig, parser.parse_args(argv).config, overrides)
    with folder_lock(config.output_dir, *config.input_folders):
        recipe = FullFinetuneRecipeSingleDevice3D(config)
        recipe.setup()
        try:
            recipe.train()
        finally:
            recipe.cleanup()


if __name__ == "__main__":
    kyvo.common.cli.run(main)
