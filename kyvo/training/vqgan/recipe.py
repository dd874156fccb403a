"""The recipe that trains a VQGAN on images of files or of a stream, with exact resume.

OUTPUT/metrics.jsonl, OUTPUT/codebook.npy, the model's folder OUTPUT/NAME, and checkpoints
OUTPUT/step_00000100 of everything that the next step depends on.

Shape legend: B batch, C channels, H height, W width, K codes.
"""

import math
import time
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kyvo.common.errors import InputError
from kyvo.common.files import folder_lock
from kyvo.common.weight_files import check_finite
from kyvo.images.checkpoint import save_vqgan
from kyvo.images.codebook import save_codebook
from kyvo.images.vqgan import VQGAN
from kyvo.models import MODEL, OPTIMIZER, STATE, Files, save_checkpoint
from kyvo.training.meter import StepClock
from kyvo.training.resume import find_interrupted
from kyvo.training.runtime import MetricsLog, PreemptionHandler
from kyvo.training.step import NonFiniteGradCheck
from kyvo.training.vqgan.codebook_training import codebook_use
from kyvo.training.vqgan.config import VQGANTrainingConfig
from kyvo.training.vqgan.data import ImageBatch
from kyvo.training.vqgan.plan import plan_vqgan, vqgan_fingerprint
from kyvo.training.vqgan.state import restore_trainer, trainer_state, trainer_weights
from kyvo.training.vqgan.step import VQGANTrainer


def train_vqgan(config: VQGANTrainingConfig) -> VQGAN:
    """Train a VQGAN, or go on where an interrupted run stopped; returns the model in eval mode.

    The same config gives the same weights, interrupted or not, unless ``max_seconds`` cuts the
    run. A finished run is left as it is. SIGINT and SIGTERM save and end the process.

    Raises:
        InputError: no images, unreadable files, a missing device, a folder that is in use or holds
            another run, or a gradient that is not finite.
    """
    with folder_lock(config.output, *config.input_folders):
        recipe = VQGANRecipe(config)
        recipe.setup()
        if not recipe.is_finished:
            recipe.train()
        return recipe.trainer.model.eval()


class VQGANRecipe:
    """The recipe: ``setup``, ``train``."""

    def __init__(self, config: VQGANTrainingConfig) -> None:
        self.config = config
        self.step = 0
        self.is_finished = False
        self.compiled: set[bool] = set()

    def setup(self) -> None:
        """Check everything, build every part, and go back to the newest checkpoint."""
        plan = plan_vqgan(self.config)
        print(plan.summary())
        self.config = config = plan.config
        torch.manual_seed(config.seed)
        self.device = plan.device
        self.trainer = VQGANTrainer(config, self.device)
        self.source = plan.source()
        self.batches = self.source.batches
        self.fingerprint = vqgan_fingerprint(plan)
        self.grad_check = NonFiniteGradCheck()
        self.seconds_before = 0.0
        self._resume()

    def train(self) -> None:
        """Run all remaining steps; a signal makes it save and leave after the current one."""
        config = self.config
        self.started = time.perf_counter()
        self.clock = StepClock(config.max_steps, self.step)
        self.num_images = 0
        self.log = MetricsLog(config.output / "metrics.jsonl", None, self.step)
        if self.step == 0:
            # From here on the folder is known to belong to this run, whatever happens to it.
            self._save()
        progress = tqdm(
            total=config.max_steps, initial=self.step, desc="vqgan", unit="step", disable=None
        )
        try:
            with PreemptionHandler() as stop, progress:
                for batch in self.batches:
                    terms = self._update(batch)
                    self.step += 1
                    progress.update()
                    self._after_step(terms, progress)
                    if stop.received or self.is_finished:
                        break
                if stop.received:
                    self._save()
                    print(f"stopped by {stop.received.name} after step {self.step}; saved.")
                    stop.exit()
        finally:
            self.log.close()

    def _update(self, batch: ImageBatch) -> dict[str, Tensor]:
        """One update of the model; the loss and its terms, still on the device."""
        share = self._share_of_run()
        images_BCHW = self.trainer.prepare(batch.images_BCHW, share)
        if self.step == self.config.codebook.start_step:
            self.grad_check.check()
            num_batches = -(-self.config.codebook.start_images // self.config.batch_size)
            self.trainer.start_codebook(self.source.start_batches(num_batches), share)
        terms = self._timed_update(images_BCHW, share)
        norm = self.trainer.gradient_norm()
        self.grad_check.record(self.step + 1, batch.names, norm)
        self.num_images += len(batch.images_BCHW)
        return terms | {"gradient_norm": norm}

    def _timed_update(self, images_BCHW: Tensor, share: float) -> dict[str, Tensor]:
        """The trainer's update; what compiles is left out of the run's seconds."""
        begun = time.perf_counter()
        terms = self.trainer.update(images_BCHW, self.step, share)
        quantises = self.step >= self.config.codebook.start_step
        if self.config.compile and quantises not in self.compiled:
            self.compiled.add(quantises)
            self.started += time.perf_counter() - begun
        return terms

    def _share_of_run(self) -> float:
        """Share of the run that is over, in steps or in seconds."""
        spent = self.step / self.config.max_steps
        if self.config.max_seconds is not None:
            spent = max(spent, self._seconds() / self.config.max_seconds)
        return spent

    def _seconds(self) -> float:
        """Seconds that the run has learned, those before an interruption included."""
        return self.seconds_before + time.perf_counter() - self.started

    def _after_step(self, terms: dict[str, Tensor], progress: tqdm) -> None:
        config, step = self.config, self.step
        self.is_finished = self._share_of_run() >= 1
        if step % config.log_every == 0:
            self._log_training(terms, progress)
        begun = time.perf_counter()
        if self.is_finished or step % config.validate_every == 0:
            self._validate()
        if self.is_finished or step % config.save_every == 0:
            # Before the checkpoint: a run that resumes from it does not export this step again.
            self._export()
            self._save()
        self.clock.exclude(time.perf_counter() - begun)

    def _log_training(self, terms: dict[str, Tensor], progress: tqdm) -> None:
        self.grad_check.check()
        use = self.trainer.codebook.take_use()
        values = {name: value.item() for name, value in terms.items()}
        row = {
            **values,
            "learning_rate": self.trainer.optimizer.param_groups[-1]["lr"],
            "codebook_usage": use.usage,
            "codebook_perplexity": use.perplexity,
            "images_per_second": self.num_images / self.clock.lap(),
        }
        self.num_images = 0
        self.log.write(self.step, row)
        progress.set_postfix(
            {"loss": f"{values['loss']:.4f}", "codes": f"{use.usage:.0%}"}, refresh=False
        )

    def _validate(self) -> None:
        """Log the error of held-out images, coded and decoded: mean squared error and PSNR."""
        self.grad_check.check()
        trainer, config = self.trainer, self.config
        counts_K = torch.zeros(config.model.n_embed)
        errors_B = []
        trainer.model.eval()
        with torch.inference_mode(), trainer.autocast():
            for batch_BCHW in self.source.validation_batches():
                images_BCHW = trainer.to_device(batch_BCHW)
                codes_BHW = trainer.model.encode(images_BCHW)
                error_BCHW = (trainer.model.decode(codes_BHW).float() - images_BCHW) / 2
                errors_B.append(error_BCHW.square().mean(dim=(1, 2, 3)))
                counts_K += torch.bincount(codes_BHW.flatten().cpu(), minlength=len(counts_K))
        trainer.model.train()
        mse = torch.cat(errors_B).mean().item()
        use = codebook_use(counts_K)
        row = {
            "val_mse": mse,
            "val_psnr": -10 * math.log10(max(mse, 1e-12)),
            "val_codebook_usage": use.usage,
            "val_codebook_perplexity": use.perplexity,
        }
        self.log.write(self.step, row)

    def _export(self) -> None:
        """Write the model's folder and the codebook."""
        self.grad_check.check()
        output, name, model = self.config.output, self.config.name, self.trainer.model
        check_finite(model.state_dict(), f"model {output / name}")
        save_vqgan(model, output / name, name)
        save_codebook(output / "codebook.npy", model.codebook.detach().float().cpu().numpy())

    def _save(self) -> None:
        """Write a checkpoint of everything that the next step depends on."""
        self.grad_check.check()
        tensors, values = trainer_state(self.trainer)
        is_timed = self.config.max_seconds is not None
        state: dict[str, Any] = {
            "step": self.step,
            "run": self.fingerprint,
            "optimizers": values,
            "epoch_seed": self.batches.epoch_seed,
            "num_batches_done": self.batches.num_done,
            "seconds": self._seconds() if is_timed else None,
            "is_finished": self.is_finished,
        }
        files: Files = {MODEL: trainer_weights(self.trainer), OPTIMIZER: tensors, STATE: state}
        save_checkpoint(self.config.output, self.step, files, self.config.keep_checkpoints)

    def _resume(self) -> None:
        config = self.config
        salvage = f"the model that was exported last is in {config.output / config.name}."
        found = find_interrupted(config.output, config.resume, self.fingerprint, salvage)
        if found is None:
            self._refuse_foreign_model()
            return
        state = found.state()
        tensors = found.optimizer_tensors()
        restore_trainer(self.trainer, found.weights(), tensors, state["optimizers"])
        self.step = found.step
        self.batches.epoch_seed = state["epoch_seed"]
        self.batches.num_done = state["num_batches_done"]
        self.seconds_before = state["seconds"] or 0.0
        self.is_finished = state["is_finished"]
        if self.is_finished:
            print(f"done: this run finished after step {self.step}; nothing is changed")
        else:
            print(f"resuming from {found.folder}")

    def _refuse_foreign_model(self) -> None:
        """Refuse to replace a model that no run of this folder made."""
        model = self.config.output / self.config.name / "checkpoints" / "last.ckpt"
        if model.exists():
            raise InputError(
                f"output folder: {model} exists, but no checkpoint to go on from. "
                "Choose another output folder or name, or move the model away."
            )
