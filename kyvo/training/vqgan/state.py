"""Everything that the next update of a VQGAN depends on, as named tensors and JSON values.

The discriminator's weights are named as in taming-transformers' checkpoints.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from kyvo.training.optimizer_state import (
    optimizer_state,
    random_state,
    restore_optimizer,
    restore_random_state,
)
from kyvo.training.vqgan.step import VQGANTrainer

_DISCRIMINATOR = "loss.discriminator."
_CROPS = "crops-random"


def trainer_weights(trainer: VQGANTrainer) -> dict[str, Tensor]:
    """Weights and buffers of the model and, if there is one, of the discriminator."""
    weights = trainer.model.state_dict()
    if trainer.adversary is None:
        return weights
    discriminator = trainer.adversary.discriminator.state_dict()
    return weights | {_DISCRIMINATOR + name: value for name, value in discriminator.items()}


def trainer_state(trainer: VQGANTrainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Optimizers, codebook statistics and generators: tensors, and the JSON values beside them."""
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for name, (optimizer, parameters) in _optimizers(trainer).items():
        found, values[name] = optimizer_state(optimizer, parameters)
        tensors |= found
    tensors |= trainer.codebook.tensors()
    return tensors | random_state() | {_CROPS: trainer.crop_generator.get_state()}, values


def restore_trainer(
    trainer: VQGANTrainer,
    weights: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    values: Mapping[str, Any],
) -> None:
    """Put what ``trainer_weights`` and ``trainer_state`` returned into a fresh ``trainer``."""
    own = {name: value for name, value in weights.items() if not name.startswith(_DISCRIMINATOR)}
    trainer.model.load_state_dict(own)
    if trainer.adversary is not None:
        others = {
            name.removeprefix(_DISCRIMINATOR): value
            for name, value in weights.items()
            if name.startswith(_DISCRIMINATOR)
        }
        trainer.adversary.discriminator.load_state_dict(others)
    for name, (optimizer, parameters) in _optimizers(trainer).items():
        of_these = {k: v for k, v in tensors.items() if k.partition("|")[0] in parameters}
        restore_optimizer(optimizer, parameters, of_these, values[name])
    trainer.codebook.restore(tensors)
    trainer.crop_generator.set_state(tensors[_CROPS])
    restore_random_state(tensors)


def _optimizers(
    trainer: VQGANTrainer,
) -> dict[str, tuple[Optimizer, dict[str, nn.Parameter]]]:
    """The optimizers by name, each with the parameters that it may hold a state of."""
    found = {"model": (trainer.optimizer, dict(trainer.model.named_parameters()))}
    if trainer.adversary is not None:
        discriminator = trainer.adversary.discriminator
        named = {_DISCRIMINATOR + name: p for name, p in discriminator.named_parameters()}
        found["discriminator"] = (trainer.adversary.optimizer, named)
    return found
