"""The HTML report of a run: images, plots and tables in one file that needs nothing else."""

from kyvo.report.inputs import ReportInputs
from kyvo.report.page import write_report

__all__ = ["ReportInputs", "write_report"]
