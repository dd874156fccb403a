"""From checkpoints to the paper's table."""

from kyvo.evaluation.report import write_report
from kyvo.evaluation.run import evaluate

__all__ = ["evaluate", "write_report"]
