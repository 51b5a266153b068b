"""Dice, 95th percentile of the Hausdorff distance and normalized surface Dice of label maps, in mm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice


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
    scores = {}
    for label in labels:
        predicted, true = prediction == label, reference == label
        if not true.any() and not predicted.any():
            scores[label] = StructureScore(math.nan, math.nan, math.nan)
        elif not true.any() or not predicted.any():
            scores[label] = StructureScore(0.0, diagonal_mm, 0.0)
        else:
            window = _joint_window(predicted | true)
            pair = (predicted[window][None, None], true[window][None, None])
            surface_dice = compute_surface_dice(*pair, [nsd_tolerance_mm], True, spacing=spacing, use_subvoxels=True)
            scores[label] = StructureScore(
                compute_dice(*pair).item(),
                compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing).item(),
                surface_dice.item(),
            )
    return scores


def _joint_window(mask: torch.Tensor) -> tuple[slice, ...]:
    """Smallest window around a mask, one voxel wider, so that surfaces do not lie on its border."""
    window = []
    for axis in range(mask.ndim):
        found = torch.nonzero(mask.amax(dim=[a for a in range(mask.ndim) if a != axis]))
        window.append(slice(max(0, int(found[0]) - 1), int(found[-1]) + 2))
    return tuple(window)
