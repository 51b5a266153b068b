"""Metrics of one case, per structure."""

from .channels import ChannelScore, score_channels
from .segmentation import StructureScore, score_structures
from .structure_measures import e_measure, s_measure
from .surfaces import MaskScore, compare_masks

__all__ = [
    "ChannelScore",
    "MaskScore",
    "StructureScore",
    "compare_masks",
    "e_measure",
    "s_measure",
    "score_channels",
    "score_structures",
]
