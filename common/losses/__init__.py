"""Losses of the bundles."""

from .deep_supervision import DeepSupervisionDiceCELoss
from .pooled_dice_bce import PooledDiceBCELoss

__all__ = ["DeepSupervisionDiceCELoss", "PooledDiceBCELoss"]
