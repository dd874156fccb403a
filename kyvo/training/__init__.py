"""Parts of a training run that the recipes share."""

from kyvo.training.checkpoints import (
    Checkpoint,
    find_weights,
    latest_checkpoint,
    save_checkpoint,
)
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
from kyvo.training.runtime import (
    MetricsLog,
    StopRequest,
    autocast,
    folder_lock,
    resolve_device,
)
from kyvo.training.setup import (
    build_model,
    build_optimizer,
    check_fingerprint,
    check_lengths,
    fingerprint,
)

__all__ = [
    "Checkpoint",
    "LossConfig",
    "LossSums",
    "MetricsLog",
    "StepMeter",
    "StopRequest",
    "TrainingConfig",
    "autocast",
    "build_model",
    "build_optimizer",
    "check_fingerprint",
    "check_lengths",
    "find_weights",
    "fingerprint",
    "folder_lock",
    "language_loss",
    "latest_checkpoint",
    "log_line",
    "loss_weight",
    "optimizer_state",
    "random_state",
    "resolve_device",
    "restore_optimizer",
    "restore_random_state",
    "restore_scheduler",
    "save_checkpoint",
]
