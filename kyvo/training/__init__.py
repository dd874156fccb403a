"""Parts of a training run that the recipes share."""

from kyvo.training.config import LossConfig, TrainingConfig
from kyvo.training.loss import LossSums, language_loss, loss_weight
from kyvo.training.meter import StepMeter, log_line
from kyvo.training.optimizer_state import (
    optimizer_state,
    random_state,
    restore_optimizer,
    restore_random_state,
    restore_scheduler,
)
from kyvo.training.plan import TrainingPlan, plan_training
from kyvo.training.runtime import (
    MetricsLog,
    StopRequest,
    autocast,
    length_multiple,
)
from kyvo.training.setup import (
    accelerate,
    build_model,
    build_optimizer,
    check_fingerprint,
    fingerprint,
)
from kyvo.training.step import GradientWatch, apply_gradients, batch_loss

__all__ = [
    "GradientWatch",
    "LossConfig",
    "LossSums",
    "MetricsLog",
    "StepMeter",
    "StopRequest",
    "TrainingConfig",
    "TrainingPlan",
    "accelerate",
    "apply_gradients",
    "autocast",
    "batch_loss",
    "build_model",
    "build_optimizer",
    "check_fingerprint",
    "fingerprint",
    "language_loss",
    "length_multiple",
    "log_line",
    "loss_weight",
    "optimizer_state",
    "plan_training",
    "random_state",
    "restore_optimizer",
    "restore_random_state",
    "restore_scheduler",
]
