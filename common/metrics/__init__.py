"""Metrics of one case, per structure."""

from .boxes import BoxScore, box_iou, score_box, wall_distance_mm
from .channels import ChannelScore, score_channels
from .structure_measures import e_measure, s_measure
from .surfaces import MaskScore, compare_masks

__all__ = [
    "BoxScore",
    "ChannelScore",
    "MaskScore",
    "box_iou",
    "compare_masks",
    "e_measure",
    "s_measure",
    "score_box",
    "score_channels",
    "wall_distance_mm",
]
