"""Training a VQGAN on folders of images.

Shape legend: B batch, C channels, H height, W width, D embedding dimensions, N = B x H x W rows.
"""

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from kyvo.common.devices import resolve_device, resolve_precision
from kyvo.common.errors import InputError, Problems
from kyvo.images.checkpoint import save_vqgan
from kyvo.images.codebook import save_codebook
from kyvo.images.preprocessing import list_images, load_image, to_model_range
from kyvo.images.quantizers import as_rows
from kyvo.images.vqgan import VQGAN, VQGANConfig
from kyvo.training.muon import MuonAdamW
from kyvo.training.vqgan.codebook_training import CodebookConfig, CodebookTrainer, codebook_use
from kyvo.training.vqgan.discriminator import PatchDiscriminator
from kyvo.training.vqgan.feature_scale import pixel_metric, scale_features
from kyvo.training.vqgan.losses import (
    LossConfig,
    adaptive_weight,
    discriminator_loss,
    load_perceptual_loss,
    reconstruction_loss,
)


@dataclass(frozen=True)
class DataConfig:
    """Which images are read, and how."""

    train: tuple[Path, ...]  # folders FOLDER/images/*.png, or FOLDER/*.png
    validation: Path | None = None  # a folder likewise; None holds back a share of train
    validation_share: float = 0.05  # share held back, where validation is None
    validation_images: int = 256  # at most this many are validated on
    crop_size: int | None = None  # cut each image into as many squares of this side, pixels
    crop_candidates: int = 1  # of this many random squares the one with most contrast is taken
    crop_until: float = 1.0  # share of the run after which whole frames are taken
    num_workers: int = 0  # processes that read images; 0 reads in the training process


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam, or Muon and Adam, with a linear warm-up and a cosine fall to zero."""

    learning_rate: float  # of Adam, at its highest
    muon_learning_rate: float | None  # of Muon for inner convolutions; None: Adam for all weights
    warmup_steps: int  # steps of the linear rise
    betas: tuple[float, float]  # decay of the gradient's and of its square's moving averages


@dataclass(frozen=True)
class VQGANTrainingConfig:
    """One training run."""

    output: Path  # folder of metrics.jsonl, codebook.npy and the run folder NAME
    name: str  # name of the run folder
    seed: int  # of weights, batches and codebook
    model: VQGANConfig
    data: DataConfig
    loss: LossConfig
    codebook: CodebookConfig
    optimizer: OptimizerConfig
    batch_size: int  # images per step
    max_steps: int  # the run ends here
    max_seconds: float | None  # or here, where the learning rate has fallen likewise
    log_every: int  # steps
    validate_every: int  # steps
    save_every: int  # steps
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    precision: Literal["auto", "fp32", "bf16_mixed"] = "auto"  # of the convolutions
    channels_last: bool = False  # memory layout of images and weights

    def __post_init__(self) -> None:
        if self.model.quantizer != "nearest":
            raise InputError("model.quantizer must be nearest: a Gumbel VQGAN cannot be trained")
        crop = self.data.crop_size
        if crop is not None and (crop % self.model.downsampling_factor or crop <= 0):
            raise InputError(
                f"data.crop_size {crop} must be a positive multiple of "
                f"{self.model.downsampling_factor}"
            )


class ImageDataset(Dataset[Tensor]):
    """Images by index, float32 (3, size, size) in [-1, 1]."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths = paths
        self.size = size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return to_model_range(load_image(self.paths[index], self.size)[None])[0]


def plan_vqgan(config: VQGANTrainingConfig) -> str:
    """Check device, images and weight files of a run, and say what it would do.

    Raises:
        InputError: listing every problem.
    """
    problems = Problems()
    problems.attempt(resolve_device, config.device)
    images = problems.attempt(split_images, config.data, config.seed)
    if images is not None:
        problems.attempt(load_image, images[0][0], config.model.resolution)
    problems.attempt(_load_perceptual, config.loss)
    problems.raise_any()
    assert images is not None
    train, held_out = images
    return (
        f"{len(train)} images of {config.model.resolution} pixels a side, {len(held_out)} held "
        f"out\n{config.max_steps} steps of {config.batch_size} on {config.device}, towards "
        f"{config.model.n_embed} codes of {config.model.embed_dim} dimensions"
    )


def train_vqgan(config: VQGANTrainingConfig) -> VQGAN:
    """Train a VQGAN, writing metrics, checkpoints and codebook as it goes; returns the model.

    The same config gives the same weights, unless ``max_seconds`` cuts the run.

    Raises:
        InputError: no images, unreadable files, a missing device, or a loss that is not finite.
    """
    return VQGANTrainer(config).run()


class VQGANTrainer:
    """The state of a run: model, optimisers, codebook statistics, clock and log."""

    def __init__(self, config: VQGANTrainingConfig) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.precision, self.device, "bf16_mixed", "fp32")
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model = self._place(VQGAN(config.model))
        self.codebook = CodebookTrainer(config.codebook, self.model.codebook, config.seed)
        self.optimizer = self._model_optimizer()
        perceptual = _load_perceptual(config.loss)
        self.perceptual = None if perceptual is None else perceptual.to(self.device)
        self.discriminator: nn.Module | None = None
        if config.loss.discriminator:
            self.discriminator = self._place(PatchDiscriminator(config.model.out_ch))
            self.discriminator_optimizer = self._adam(self.discriminator.parameters())
        train, validation = split_images(config.data, config.seed)
        self.train_set = ImageDataset(train, config.model.resolution)
        self.validation_set = ImageDataset(validation, config.model.resolution)
        self.crops = torch.Generator().manual_seed(config.seed)
        self.log = config.output / "metrics.jsonl"

    def run(self) -> VQGAN:
        """Train to the end of the budget."""
        config = self.config
        config.output.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        self.started = self.logged = time.perf_counter()
        batches = self._batches()
        step = 0
        with tqdm(total=config.max_steps, desc="vqgan", unit="step", disable=None) as bar:
            while self._progress(step) < 1:
                terms = self._train_step(next(batches), step)
                step += 1
                bar.update()
                if step % config.log_every == 0:
                    bar.set_postfix(self._log_training(step, terms), refresh=False)
                if step % config.validate_every == 0:
                    self.validate(step)
                if step % config.save_every == 0:
                    self.save()
        if step % config.validate_every:
            self.validate(step)
        if step % config.save_every:
            self.save()
        return self.model.eval()

    def validate(self, step: int) -> None:
        """Log the error of held-out images, coded and decoded: mean squared error and PSNR."""
        self.model.eval()
        counts_K = torch.zeros(self.config.model.n_embed)
        errors_B = []
        with torch.inference_mode(), self._precision():
            for images_BCHW in self._loader(self.validation_set, shuffle=False):
                images_BCHW = self._images(images_BCHW)
                codes_BHW = self.model.encode(images_BCHW)
                error_BCHW = (self.model.decode(codes_BHW).float() - images_BCHW) / 2
                errors_B.append(error_BCHW.square().mean(dim=(1, 2, 3)))
                counts_K += torch.bincount(codes_BHW.flatten().cpu(), minlength=len(counts_K))
        self.model.train()
        mse = torch.cat(errors_B).mean().item()
        use = codebook_use(counts_K)
        self._write(
            step=step,
            val_mse=mse,
            val_psnr=-10 * math.log10(max(mse, 1e-12)),
            val_codebook_usage=use.usage,
            val_codebook_perplexity=use.perplexity,
        )

    def save(self) -> None:
        """Write the run folder and the codebook."""
        save_vqgan(self.model, self.config.output / self.config.name, self.config.name)
        codebook_KD = self.model.codebook.detach().float().cpu().numpy()
        save_codebook(self.config.output / "codebook.npy", codebook_KD)

    def _train_step(self, images_BCHW: Tensor, step: int) -> dict[str, Tensor]:
        """One update of the model and, once it plays, of the discriminator."""
        images_BCHW = self._crop(self._images(images_BCHW), step)
        if step == self.config.codebook.start_step:
            self._start_codebook(step)
        self._set_learning_rates(step)
        output_BCHW, terms = self._reconstruct(images_BCHW, step)
        if self._adversarial(step):
            terms.update(self._adversarial_terms(output_BCHW, terms["reconstruction"]))
        loss = torch.stack(list(terms.values())).sum()
        if not loss.isfinite():
            raise InputError(
                f"VQGAN training: the loss is {loss.item()} at step {step}. The last checkpoint "
                "stays. Lower optimizer.learning_rate or use precision fp32."
            )
        _update(self.optimizer, loss)
        if self._adversarial(step):
            terms["discriminator"] = self._update_discriminator(images_BCHW, output_BCHW)
        return {"loss": loss, **terms}

    def _reconstruct(self, images_BCHW: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Images through the model, and the weighted loss terms of that."""
        weights = self.config.loss
        with self._precision():
            z_BDHW = self.model.features(images_BCHW)
        terms: dict[str, Tensor] = {}
        quantised_BDHW = z_BDHW.float()
        if step >= self.config.codebook.start_step:
            quantised_BDHW, terms = self._quantise(z_BDHW.float(), step)
        with self._precision():
            output_BCHW = self.model.decode_embeddings(quantised_BDHW)
        output_BCHW = output_BCHW.float()
        reconstruction = reconstruction_loss(output_BCHW, images_BCHW, weights)
        if self.perceptual is not None:
            distance = self.perceptual(output_BCHW, images_BCHW)
            reconstruction = reconstruction + weights.perceptual * distance
        return output_BCHW, {"reconstruction": reconstruction, **terms}

    def _quantise(self, z_BDHW: Tensor, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Code vectors with the encoder's gradient passed straight through, and their terms."""
        config = self.config
        codes_BHW = self.model.quantize.codes(z_BDHW)
        vectors_BDHW = self.model.embed_codes(codes_BHW)
        distance = (z_BDHW - vectors_BDHW.detach()).square().mean()
        terms = {"commitment": config.loss.commitment * distance}
        if config.codebook.method == "gradient":
            distance = (z_BDHW.detach() - vectors_BDHW).square().mean()
            terms["codebook"] = config.loss.codebook * distance
        straight_BDHW = z_BDHW + (vectors_BDHW - z_BDHW).detach()
        self._update_codebook(as_rows(z_BDHW.detach()), codes_BHW.flatten(), step)
        return straight_BDHW, terms

    def _update_codebook(self, rows_ND: Tensor, codes_N: Tensor, step: int) -> None:
        rule = self.config.codebook
        self.codebook.update(rows_ND, codes_N)
        if (step + 1) % rule.revive_every == 0 and self._progress(step) < rule.revive_until:
            self.codebook.revive(rows_ND)

    def _start_codebook(self, step: int) -> None:
        """Scale the features to what shows in images, and cluster them."""
        num_batches = -(-self.config.codebook.start_images // self.config.batch_size)
        loader = itertools.islice(self._loader(self.train_set, shuffle=True), num_batches)
        batches = [self._crop(self._images(images_BCHW), step) for images_BCHW in loader]
        with self._precision():
            metrics = [pixel_metric(self.model, images, self.crops) for images in batches]
            scale_features(self.model, torch.stack(metrics).mean(0))
            with torch.no_grad():
                rows = [as_rows(self.model.features(images)) for images in batches]
        self.codebook.start(torch.cat(rows).float())

    def _adversarial(self, step: int) -> bool:
        return self.discriminator is not None and step >= self.config.loss.discriminator_start

    def _adversarial_terms(self, output_BCHW: Tensor, reconstruction: Tensor) -> dict[str, Tensor]:
        assert self.discriminator is not None
        with self._precision():
            adversarial = -self.discriminator(output_BCHW).float().mean()
        balance = adaptive_weight(reconstruction, adversarial, self.model.decoder.last_layer)
        return {"adversarial": self.config.loss.discriminator * balance * adversarial}

    def _update_discriminator(self, images_BCHW: Tensor, output_BCHW: Tensor) -> Tensor:
        assert self.discriminator is not None
        with self._precision():
            real_logits = self.discriminator(images_BCHW)
            fake_logits = self.discriminator(output_BCHW.detach())
        loss = discriminator_loss(real_logits.float(), fake_logits.float())
        _update(self.discriminator_optimizer, loss)
        return loss.detach()

    def _progress(self, step: int) -> float:
        """Share of the budget that is spent, in steps or in seconds."""
        spent = step / self.config.max_steps
        if self.config.max_seconds is not None:
            seconds = time.perf_counter() - self.started
            spent = max(spent, seconds / self.config.max_seconds)
        return spent

    def _set_learning_rates(self, step: int) -> None:
        rise = min(1, (step + 1) / max(self.config.optimizer.warmup_steps, 1))
        fall = (1 + math.cos(math.pi * min(self._progress(step), 1))) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = group.setdefault("highest_lr", group["lr"]) * rise * fall

    def _log_training(self, step: int, terms: dict[str, Tensor]) -> dict[str, str]:
        now = time.perf_counter()
        use = self.codebook.take_use()
        speed = self.config.log_every * self.config.batch_size / (now - self.logged)
        self.logged = now
        values = {name: value.item() for name, value in terms.items()}
        self._write(
            step=step,
            **values,
            learning_rate=self.optimizer.param_groups[-1]["lr"],
            codebook_usage=use.usage,
            codebook_perplexity=use.perplexity,
            images_per_second=speed,
        )
        return {"loss": f"{values['loss']:.4f}", "codes": f"{use.usage:.0%}"}

    def _write(self, **row: Any) -> None:
        with self.log.open("ab") as stream:
            stream.write(orjson.dumps(row) + b"\n")

    def _batches(self) -> Iterator[Tensor]:
        loader = self._loader(self.train_set, shuffle=True, drop_last=True)
        while True:
            yield from loader

    def _loader(
        self, images: ImageDataset, shuffle: bool, drop_last: bool = False
    ) -> DataLoader[Tensor]:
        size = min(self.config.batch_size, len(images))
        workers = self.config.data.num_workers
        return DataLoader(images, size, shuffle, num_workers=workers, drop_last=drop_last)

    def _images(self, images_BCHW: Tensor) -> Tensor:
        return images_BCHW.to(self.device, memory_format=self.layout)

    def _crop(self, images_BCHW: Tensor, step: int) -> Tensor:
        data = self.config.data
        if data.crop_size is None or self._progress(step) >= data.crop_until:
            return images_BCHW
        per_image = (images_BCHW.shape[-1] // data.crop_size) ** 2
        crops = [
            busiest_crop(image_CHW, data.crop_size, data.crop_candidates, self.crops)
            for image_CHW in images_BCHW
            for _ in range(per_image)
        ]
        return torch.stack(crops).contiguous(memory_format=self.layout)

    def _place(self, module: Any) -> Any:
        return module.to(self.device, memory_format=self.layout).train()

    def _adam(self, parameters: Any) -> torch.optim.Adam:
        rule = self.config.optimizer
        return torch.optim.Adam(parameters, rule.learning_rate, rule.betas, fused=True)

    def _model_optimizer(self) -> torch.optim.Optimizer:
        """Adam, and Muon for the convolutions between features where it is wanted."""
        rule, model = self.config.optimizer, self.model
        table = model.codebook if self.config.codebook.method == "ema" else None
        trained = [weight for weight in model.parameters() if weight is not table]
        if rule.muon_learning_rate is None:
            return self._adam(trained)
        ends = {
            id(conv.weight)
            for half in (model.encoder, model.decoder)
            for conv in (half.conv_in, half.conv_out)
        }
        inner = [weight for weight in trained if weight.ndim == 4 and id(weight) not in ends]
        chosen = {id(weight) for weight in inner}
        rest = [weight for weight in trained if id(weight) not in chosen]
        groups: list[dict[str, Any]] = [{"params": inner, "is_hidden": True}, {"params": rest}]
        return MuonAdamW(
            groups, rule.learning_rate, rule.muon_learning_rate, rule.betas, momentum=0.9
        )

    def _precision(self) -> torch.autocast:
        enabled = self.precision == "bf16_mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)


def busiest_crop(
    image_CHW: Tensor, size: int, candidates: int, generator: torch.Generator
) -> Tensor:
    """The square of side ``size`` with most contrast among ``candidates`` random ones."""
    height, width = image_CHW.shape[1:]
    crops = []
    for _ in range(candidates):
        top = int(torch.randint(height - size + 1, (), generator=generator))
        left = int(torch.randint(width - size + 1, (), generator=generator))
        crops.append(image_CHW[:, top : top + size, left : left + size])
    return (
        max(crops, key=lambda crop: crop.var(dim=(1, 2)).sum().item())
        if candidates > 1
        else crops[0]
    )


def split_images(config: DataConfig, seed: int) -> tuple[list[Path], list[Path]]:
    """Paths of the training and of the validation images.

    Raises:
        InputError: a folder has no images, or none are left to train or validate on.
    """
    train = [path for folder in config.train for path in list_images(folder)]
    if config.validation is not None:
        held_out = list_images(config.validation)
    else:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed)).tolist()
        num_held = round(len(train) * config.validation_share)
        held_out = sorted(train[i] for i in order[:num_held])
        train = sorted(train[i] for i in order[num_held:])
    if not train or not held_out:
        raise InputError(
            f"images: {len(train)} to train on and {len(held_out)} to validate on. "
            "Give more images, data.validation, or another data.validation_share."
        )
    return train, held_out[: config.validation_images]


def _load_perceptual(weights: LossConfig) -> nn.Module | None:
    if not weights.perceptual:
        return None
    assert weights.vgg16_weights is not None
    assert weights.lpips_weights is not None
    return load_perceptual_loss(weights.vgg16_weights, weights.lpips_weights)


def _update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
