"""One update of a VQGAN in training, in which the host never waits for the device.

``VQGANTrainer.forward`` is all that is compiled: it changes nothing but what it returns.

Shape legend: B batch, C channels, H height, W width, D embedding dimensions, N = B x H x W rows.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kyvo.images.quantizers import as_rows
from kyvo.images.vqgan import VQGAN
from kyvo.training.vqgan.codebook_training import CodebookTrainer
from kyvo.training.vqgan.config import CompileMode, VQGANTrainingConfig
from kyvo.training.vqgan.data import cut_into_crops
from kyvo.training.vqgan.discriminator import PatchDiscriminator
from kyvo.training.vqgan.feature_scale import pixel_metric, scale_features
from kyvo.training.vqgan.losses import (
    adaptive_weight,
    discriminator_loss,
    load_perceptual_loss,
    reconstruction_loss,
)
from kyvo.training.vqgan.optimizer import adam, model_optimizer, set_learning_rates

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Adversary:
    """The discriminator that the VQGAN is trained against, and its optimizer."""

    discriminator: PatchDiscriminator
    optimizer: Optimizer


class Forward(NamedTuple):
    """What a forward pass gives.

    Attributes:
        output_BCHW: the images as they come back, float32.
        terms: weighted terms of the loss.
        rows_ND: encoder outputs, float32, without gradient; None where they are not quantised.
        codes_N: their codes; likewise.
    """

    output_BCHW: Tensor
    terms: dict[str, Tensor]
    rows_ND: Tensor | None = None
    codes_N: Tensor | None = None


class VQGANTrainer:
    """Model, discriminator, optimizers and codebook statistics, and one update of them all.

    Everything random in an update comes from torch's global generator, ``crop_generator`` and the
    codebook's own.
    """

    def __init__(self, config: VQGANTrainingConfig, device: torch.device) -> None:
        self.config = config
        self.device = device
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        self.model = self._placed(VQGAN(config.model))
        self.codebook = CodebookTrainer(config.codebook, self.model.codebook, config.seed)
        trains_codebook = config.codebook.method == "gradient"
        self.optimizer = model_optimizer(config.optimizer, self.model, trains_codebook)
        perceptual = load_perceptual_loss(config.loss)
        self.perceptual = None if perceptual is None else perceptual.to(device)
        self.adversary: Adversary | None = None
        if config.loss.discriminator:
            discriminator = self._placed(PatchDiscriminator(config.model.out_ch))
            optimizer = adam(config.optimizer, discriminator.parameters())
            self.adversary = Adversary(discriminator, optimizer)
        self.crop_generator = torch.Generator().manual_seed(config.seed)
        self._compiled = self.forward
        if config.compile:
            self._compiled = compiled(self.forward, config.compile_mode)

    def prepare(self, images_BCHW: Tensor, progress: float) -> Tensor:
        """Images of the host on the device, cut into crops while the config asks for it.

        ``progress`` is the share of the run that is over.
        """
        images_BCHW = self.to_device(images_BCHW)
        data = self.config.data
        if data.crop_size is None or progress >= data.crop_until:
            return images_BCHW
        crops_BCHW = cut_into_crops(
            images_BCHW, data.crop_size, data.crop_candidates, self.crop_generator
        )
        return crops_BCHW.contiguous(memory_format=self.layout)

    def update(self, images_BCHW: Tensor, step: int, progress: float) -> dict[str, Tensor]:
        """Train on prepared images; the loss and its terms, still on the device.

        Args:
            images_BCHW: what ``prepare`` returned.
            step: number of updates before this one.
            progress: share of the run that is over.
        """
        set_learning_rates(self.optimizer, step, self.config.optimizer.warmup_steps, progress)
        # The gradients go before the pass: with CUDA graphs their memory is used again in it.
        self.optimizer.zero_grad()
        adversary = self.adversary if step >= self.config.loss.discriminator_start else None
        # The adaptive weight needs two backward passes, which a compiled forward pass cannot have.
        forward = self._compiled if adversary is None else self.forward
        output_BCHW, terms, rows_ND, codes_N = forward(
            images_BCHW, step >= self.config.codebook.start_step
        )
        if rows_ND is not None and codes_N is not None:
            self._update_codebook(rows_ND, codes_N, step, progress)
        if adversary is not None:
            terms |= self._adversarial(adversary, output_BCHW, terms["reconstruction"])
        loss = torch.stack(list(terms.values())).sum()
        _descend(self.optimizer, loss)
        if adversary is not None:
            terms |= self._update_adversary(adversary, images_BCHW, output_BCHW)
        return {name: term.detach() for name, term in {"loss": loss, **terms}.items()}

    def gradient_norm(self) -> Tensor:
        """Norm of all gradients of the last update, a scalar on the device."""
        weights = list(self.model.parameters())
        if self.adversary is not None:
            weights += self.adversary.discriminator.parameters()
        return nn.utils.get_total_norm([w.grad for w in weights if w.grad is not None])

    def start_codebook(self, batches: Iterable[Tensor], progress: float) -> None:
        """Scale the features to what shows in the images of ``batches``, and cluster them."""
        images = [self.prepare(batch, progress) for batch in batches]
        with self.autocast():
            metrics = [pixel_metric(self.model, batch, self.crop_generator) for batch in images]
            scale_features(self.model, torch.stack(metrics).mean(0))
            with torch.no_grad():
                rows = [as_rows(self.model.features(batch)) for batch in images]
        self.codebook.start(torch.cat(rows).float())

    def to_device(self, images_BCHW: Tensor) -> Tensor:
        """Images there, in the config's memory layout; from pinned memory without waiting."""
        moved_BCHW = images_BCHW.to(self.device, non_blocking=True)
        return moved_BCHW.contiguous(memory_format=self.layout)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass in the config's precision."""
        enabled = self.config.precision == "bf16_mixed"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def forward(self, images_BCHW: Tensor, quantises: bool) -> Forward:
        """Images through the model, and the weighted loss terms of that."""
        with self.autocast():
            z_BDHW = self.model.features(images_BCHW)
        z_BDHW = z_BDHW.float()
        if not quantises:
            output_BCHW, reconstruction = self._decode(z_BDHW, images_BCHW)
            return Forward(output_BCHW, {"reconstruction": reconstruction})
        codes_BHW = self.model.quantize.codes(z_BDHW)
        straight_BDHW, terms = self._quantise(z_BDHW, codes_BHW)
        output_BCHW, reconstruction = self._decode(straight_BDHW, images_BCHW)
        terms = {"reconstruction": reconstruction, **terms}
        return Forward(output_BCHW, terms, as_rows(z_BDHW.detach()), codes_BHW.flatten())

    def _decode(self, z_BDHW: Tensor, images_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Images of feature maps, and the weighted error against the images they came from."""
        weights = self.config.loss
        with self.autocast():
            output_BCHW = self.model.decode_embeddings(z_BDHW)
        output_BCHW = output_BCHW.float()
        reconstruction = reconstruction_loss(output_BCHW, images_BCHW, weights)
        if self.perceptual is not None:
            distance = self.perceptual(output_BCHW, images_BCHW)
            reconstruction = reconstruction + weights.perceptual * distance
        return output_BCHW, reconstruction

    def _quantise(self, z_BDHW: Tensor, codes_BHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Code vectors with the encoder's gradient passed straight through, and their terms."""
        config = self.config
        vectors_BDHW = self.model.embed_codes(codes_BHW)
        distance = (z_BDHW - vectors_BDHW.detach()).square().mean()
        terms = {"commitment": config.loss.commitment * distance}
        if config.codebook.method == "gradient":
            distance = (z_BDHW.detach() - vectors_BDHW).square().mean()
            terms["codebook"] = config.loss.codebook * distance
        return z_BDHW + (vectors_BDHW - z_BDHW).detach(), terms

    def _update_codebook(
        self, rows_ND: Tensor, codes_N: Tensor, step: int, progress: float
    ) -> None:
        rule = self.config.codebook
        self.codebook.update(rows_ND, codes_N)
        if (step + 1) % rule.revive_every == 0 and progress < rule.revive_until:
            self.codebook.revive(rows_ND)

    def _adversarial(
        self, adversary: Adversary, output_BCHW: Tensor, reconstruction: Tensor
    ) -> dict[str, Tensor]:
        """The term that rewards images which the discriminator takes for real."""
        with self.autocast():
            adversarial = -adversary.discriminator(output_BCHW).float().mean()
        balance = adaptive_weight(reconstruction, adversarial, self.model.decoder.last_layer)
        return {"adversarial": self.config.loss.discriminator * balance * adversarial}

    def _update_adversary(
        self, adversary: Adversary, images_BCHW: Tensor, output_BCHW: Tensor
    ) -> dict[str, Tensor]:
        with self.autocast():
            real_logits = adversary.discriminator(images_BCHW)
            fake_logits = adversary.discriminator(output_BCHW.detach())
        loss = discriminator_loss(real_logits.float(), fake_logits.float())
        _descend(adversary.optimizer, loss)
        return {"discriminator": loss}

    def _placed(self, module: Module) -> Module:
        placed = module.to(self.device, memory_format=self.layout)  # type: ignore[call-overload]
        return cast(Module, placed.train())


def compiled(forward: Callable[..., Forward], mode: CompileMode) -> Callable[..., Forward]:
    """The forward pass and its backward pass compiled for fixed shapes."""
    # Crops and whole images get a graph each; one for any size would be slower for both.
    run = torch.compile(forward, mode=mode, fullgraph=True, dynamic=False)

    def step(images_BCHW: Tensor, quantises: bool) -> Forward:
        # What the step before returned may be overwritten.
        torch.compiler.cudagraph_mark_step_begin()
        return run(images_BCHW, quantises)

    return step


def _descend(optimizer: Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
