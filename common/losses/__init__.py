"""Losses of the bundles."""

from .deep_supervision import DeepSupervisionDiceCELoss

__all__ = ["DeepSupervisionDiceCELoss"]
