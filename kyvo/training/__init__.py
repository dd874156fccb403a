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
from kyvo.training.resume import check_fingerprint, find_interrupted
from kyvo.training.runtime import (
    MetricsLog,
    PreemptionHandler,
    autocast,
    length_multiple,
)
from kyvo.training.setup import (
    apply_compile_and_float8,
    build_model,
    build_optimizer,
    build_soft_numbers,
    check_width,
    describe_run,
    fingerprint,
)
from kyvo.training.step import NonFiniteGradCheck, apply_gradients

__all__ = [
    "LossConfig",
    "LossSums",
    "MetricsLog",
    "NonFiniteGradCheck",
    "PreemptionHandler",
    "StepMeter",
    "TrainingConfig",
    "TrainingPlan",
    "apply_compile_and_float8",
    "apply_gradients",
    "autocast",
    "build_model",
    "build_optimizer",
    "build_soft_numbers",
    "check_fingerprint",
    "check_width",
    "describe_run",
    "find_interrupted",
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
