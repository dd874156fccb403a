"""From checkpoints to the paper's table."""

from kyvo.evaluation.report import main_table
from kyvo.evaluation.run import evaluate
from kyvo.evaluation.table import Table, check_table

__all__ = ["Table", "check_table", "evaluate", "main_table"]
