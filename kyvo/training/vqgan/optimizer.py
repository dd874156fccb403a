"""The optimizers of a VQGAN run, and the schedule of their learning rates."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from kyvo.images.vqgan import VQGAN
from kyvo.training.muon import MuonAdamW
from kyvo.training.vqgan.config import OptimizerConfig

_MUON_MOMENTUM = 0.9


def adam(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> Optimizer:
    """Adam with the config's rate and decays."""
    return torch.optim.Adam(parameters, config.learning_rate, config.betas, fused=True)


def model_optimizer(config: OptimizerConfig, model: VQGAN, trains_codebook: bool) -> Optimizer:
    """Adam, and Muon for the convolutions between features where the config asks for it."""
    table = None if trains_codebook else model.codebook
    trained = [weight for weight in model.parameters() if weight is not table]
    if config.muon_learning_rate is None:
        return adam(config, trained)
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
        groups,
        config.learning_rate,
        config.muon_learning_rate,
        config.betas,
        momentum=_MUON_MOMENTUM,
    )


def set_learning_rates(optimizer: Optimizer, step: int, warmup_steps: int, progress: float) -> None:
    """Linear rise over ``warmup_steps``, cosine fall with ``progress``, the share of the run."""
    rise = min(1, (step + 1) / max(warmup_steps, 1))
    fall = (1 + math.cos(math.pi * min(progress, 1))) / 2
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("highest_lr", group["lr"]) * rise * fall
