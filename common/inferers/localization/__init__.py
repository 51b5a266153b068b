"""Localization of organs from a few supports: templates, search, boxes."""

from .boxes import boxes_of_points, points_mm
from .localizer import FoundPoints, LocalizationInferer, unpack_points
from .outputs import PointsToBoxesd, SaveBoxesd
from .supports import Support, read_supports
from .templates import OrganTemplate, build_templates, load_templates

__all__ = [
    "FoundPoints",
    "LocalizationInferer",
    "OrganTemplate",
    "PointsToBoxesd",
    "SaveBoxesd",
    "Support",
    "boxes_of_points",
    "build_templates",
    "load_templates",
    "points_mm",
    "read_supports",
    "unpack_points",
]
