"""Ignite handlers: checkpoints, progress, and what a run leaves behind about each case."""

from .case_metrics import CaseMetrics
from .case_report import CaseReport
from .checkpoint import TrainingCheckpoint
from .progress import LossProgressBar

__all__ = ["CaseMetrics", "CaseReport", "LossProgressBar", "TrainingCheckpoint"]
