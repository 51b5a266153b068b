"""Losses of the bundles."""

from .consistency import ConsistencyLoss
from .continuous_pseudo_label import ContinuousPseudoLabelLoss, continuous_pseudo_labels
from .deep_supervision import DeepSupervisionDiceCELoss
from .gated_crf import GatedCRFLoss
from .multi_scale_similarity import MultiScaleSimilarityLoss
from .paired_patches import PairedPatchLoss
from .partial_cross_entropy import PartialCrossEntropy, PartialDiceCELoss
from .pooled_dice_bce import PooledDiceBCELoss
from .relative_distance import RelativeDistanceLoss

__all__ = [
    "ConsistencyLoss",
    "ContinuousPseudoLabelLoss",
    "DeepSupervisionDiceCELoss",
    "GatedCRFLoss",
    "MultiScaleSimilarityLoss",
    "PairedPatchLoss",
    "PartialCrossEntropy",
    "PartialDiceCELoss",
    "PooledDiceBCELoss",
    "RelativeDistanceLoss",
    "continuous_pseudo_labels",
]
