"""Metrics of one case, per structure."""

from .boxes import BoxScore, box_iou, score_box, wall_distance_mm
from .channels import ChannelScore, score_channels
from .segmentation import StructureScore, score_structures
from .structure_measures import e_measure, s_measure
from .surfaces import MaskScore, compare_masks

__all__ = [
    "BoxScore",
    "ChannelScore",
    "MaskScore",
    "StructureScore",
    "box_iou",
    "compare_masks",
    "e_measure",
    "s_measure",
    "score_box",
    "score_channels",
    "score_structures",
    "wall_distance_mm",
]
