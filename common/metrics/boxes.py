"""How well a box fits another one, and extreme points others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..data.boxes import VoxelBox

__all__ = ["BoxScore", "box_iou", "extreme_point_errors_mm", "score_box", "wall_distance_mm"]


class BoxScore(NamedTuple):
    """Scores of the box of one organ in one scan; NaN where the organ is neither there nor found.

    Attributes:
        iou: Intersection over union of the boxes in [0, 1].
        wall_distance_mm: Mean distance of the six faces in mm.
        point_error_mm: Mean distance of the six extreme points in mm.
        superior_mm: Mean distance of the extreme points along the body in mm.
        anterior_mm: The same from back to front.
        left_mm: The same from right to left.
    """

    iou: float
    wall_distance_mm: float
    point_error_mm: float
    superior_mm: float
    anterior_mm: float
    left_mm: float


def box_iou(box: VoxelBox, other: VoxelBox) -> float:
    """Return intersection over union of two half-open boxes of one grid, in [0, 1].

    Unlike MedLSAM's code, a box from voxel 3 to voxel 3 has one voxel, not none.

    Args:
        box: A box.
        other: Another one.
    """
    lower = np.maximum(box.lower, other.lower)
    upper = np.minimum(box.upper, other.upper)
    intersection = float(np.prod(np.maximum(upper - lower, 0)))
    volumes = [float(np.prod(np.subtract(b.upper, b.lower))) for b in (box, other)]
    return intersection / (sum(volumes) - intersection)


def wall_distance_mm(box: VoxelBox, other: VoxelBox, spacing_mm: Sequence[float]) -> float:
    """Return the mean distance in mm between the six pairs of faces (MedLSAM, arXiv:2306.14752, wall distance).

    Args:
        box: A box.
        other: Another one, in the same grid.
        spacing_mm: Voxel size per axis in mm.
    """
    gaps = np.abs([np.subtract(box.lower, other.lower), np.subtract(box.upper, other.upper)]) * np.asarray(spacing_mm)
    return float(gaps.mean())


def extreme_point_errors_mm(points_mm: np.ndarray, true_mm: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean distance of extreme points, and its mean size along each axis.

    Args:
        points_mm: Points in RAS mm. Shape (6, 3).
        true_mm: Where they should be. Shape (6, 3).

    Returns:
        Mean Euclidean distance in mm, and mean absolute difference along (superior, anterior, left), shape (3,).
    """
    gap = np.asarray(points_mm) - np.asarray(true_mm)
    return float(np.linalg.norm(gap, axis=1).mean()), np.abs(gap).mean(axis=0)[[2, 1, 0]]


def score_box(
    box: VoxelBox | None,
    points_mm: np.ndarray | None,
    true_box: VoxelBox | None,
    true_mm: np.ndarray | None,
    spacing_mm: Sequence[float],
    spatial_shape: Sequence[int],
) -> BoxScore:
    """Score one organ in one scan.

    An organ that is neither there nor found is not scored (NaN). One that is only there, or only found, gets the worst
    values: IoU 0, and the diagonal of the scan for each distance.

    Args:
        box: Box that was found; None if the organ was said not to be in the scan.
        points_mm: Extreme points that were found, RAS mm. Shape (6, 3).
        true_box: Box of the organ; None if it is not in the scan.
        true_mm: Extreme points of the organ, RAS mm. Shape (6, 3).
        spacing_mm: Voxel size of the scan per axis in mm.
        spatial_shape: Size of the scan per axis.
    """
    if box is None and true_box is None:
        return BoxScore(*[math.nan] * len(BoxScore._fields))
    if box is None or true_box is None or points_mm is None or true_mm is None:
        diagonal_mm = math.hypot(*(s * n for s, n in zip(spacing_mm, spatial_shape, strict=True)))
        return BoxScore(0.0, *[diagonal_mm] * (len(BoxScore._fields) - 1))
    error_mm, along_mm = extreme_point_errors_mm(points_mm, true_mm)
    return BoxScore(box_iou(box, true_box), wall_distance_mm(box, true_box, spacing_mm), error_mm, *along_mm.tolist())
