"""Dice, 95th percentile of the Hausdorff distance and normalized surface Dice of label maps, in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import find_objects

from .surfaces import compare_masks


class StructureScore(NamedTuple):
    """Scores of one structure in one case; NaN where it is in neither map.

    Attributes:
        dice: Dice overlap in [0, 1].
        hd95_mm: 95th percentile of the symmetric surface distance in mm.
        nsd: Share of both surfaces within the tolerance of the other, in [0, 1].
    """

    dice: float
    hd95_mm: float
    nsd: float


def score_structures(
    prediction: torch.Tensor,
    reference: torch.Tensor,
    labels: Sequence[int],
    spacing_mm: Sequence[float],
    nsd_tolerance_mm: float,
) -> dict[int, StructureScore]:
    """Score every structure of one case.

    A structure in neither map is not scored (NaN). A structure in only one of the two maps gets the worst value: Dice
    and surface Dice 0, distance the diagonal of the image in mm.

    Args:
        prediction: Label map, shape (D, H, W) or (H, W), whole numbers.
        reference: Label map of the same shape.
        labels: Values of the structures to score.
        spacing_mm: Voxel size per axis in mm, in the order of the axes.
        nsd_tolerance_mm: Tolerance of the surface Dice in mm.

    Returns:
        The scores by label.

    Raises:
        ValueError: If shapes differ, or the spacing does not fit them.
    """
    if prediction.shape != reference.shape or len(spacing_mm) != reference.ndim:
        raise ValueError(
            f"prediction and reference must have one shape and a spacing per axis, got {tuple(prediction.shape)}, "
            f"{tuple(reference.shape)} and {len(spacing_mm)} spacings."
        )
    spacing = [float(s) for s in spacing_mm]
    diagonal_mm = math.hypot(*(s * n for s, n in zip(spacing, reference.shape, strict=True)))
    predicted, true = (label_map.to("cpu", torch.int32).numpy() for label_map in (prediction, reference))
    windows = [label_windows(predicted), label_windows(true)]
    scores = {}
    for label in labels:
        found = [w[label] for w in windows if label in w]
        if len(found) == 2:
            window = joint_window(*found)
            score = compare_masks(predicted[window] == label, true[window] == label, spacing, nsd_tolerance_mm)
            scores[label] = StructureScore(score.dice, score.hd95_mm, score.nsd)
        else:
            scores[label] = StructureScore(0.0, diagonal_mm, 0.0) if found else StructureScore(*[math.nan] * 3)
    return scores


def label_windows(label_map: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """Return the smallest box of each label above zero, all in one pass.

    Args:
        label_map: Label map of any shape, whole numbers.

    Returns:
        One slice an axis for each label that is there.
    """
    return {label: window for label, window in enumerate(find_objects(label_map), start=1) if window is not None}


def joint_window(*windows: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return the smallest box that holds all of the given ones, of which there is at least one."""
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*windows, strict=True))
