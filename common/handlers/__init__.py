"""Ignite handlers: checkpoints, progress, and what a run leaves behind about each case."""

from .adaptation import AdaptationState, DomainReset
from .adaptation_trace import AdaptationTrace
from .box_metrics import BoxMetrics
from .case_report import CaseReport, FailedCasesError
from .case_scores import CaseScores
from .checkpoint import TrainingCheckpoint
from .domain_metrics import DomainMetrics
from .epoch_seeds import EpochSeeds
from .finite_loss import FiniteLoss
from .progress import LossProgressBar
from .run_record import RunRecord
from .shared_buffers import SharedBuffers

__all__ = [
    "AdaptationState",
    "AdaptationTrace",
    "BoxMetrics",
    "CaseReport",
    "CaseScores",
    "DomainMetrics",
    "DomainReset",
    "EpochSeeds",
    "FailedCasesError",
    "FiniteLoss",
    "LossProgressBar",
    "RunRecord",
    "SharedBuffers",
    "TrainingCheckpoint",
]
