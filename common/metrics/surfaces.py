"""Dice and surface distances of two masks: one crop, each surface found once, each distance searched once.

Two notions of a surface are in use, and both are kept because published figures depend on them:

* HD95 and ASD are measured between border voxels (voxels of the mask with a face neighbor outside), as
  `monai.metrics.compute_hausdorff_distance` and `compute_average_surface_distance(symmetric=True)` do.
* NSD is measured between surface elements at the corners where eight (in 2D four) voxels meet, each weighted with its
  area from marching cubes (Nikolov et al. 2018, arXiv:1809.04430, section on the surface Dice), as
  `monai.metrics.compute_surface_dice(use_subvoxels=True)` does with the table that is used here, too.

The values agree with those functions; the time does not: they crop, find edges and search neighbors once a metric.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics.utils import get_code_to_measure_table
from scipy.spatial import KDTree

from .windows import mask_window

# A spacing in a file is a 32-bit number: ten steps of 0.1 mm must lie within a tolerance of 1 mm.
ROUNDING = 1e-6


class MaskScore(NamedTuple):
    """How well two masks agree, neither of them empty.

    Attributes:
        dice: Dice overlap in [0, 1].
        nsd: Area of both surfaces that lies within the tolerance of the other, over the whole area, in [0, 1].
        hd95_mm: Greater one of the two directed 95th percentiles of the distances between border voxels, in mm.
        asd_mm: Mean over all border voxels of both masks of the distance to the other's border, in mm.
    """

    dice: float
    nsd: float
    hd95_mm: float
    asd_mm: float


def compare_masks(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float], nsd_tolerance_mm: float
) -> MaskScore:
    """Score one mask against another.

    Args:
        prediction: Mask, shape (D, H, W) or (H, W), bool.
        reference: Mask of the same shape.
        spacing_mm: Voxel size per axis in mm, in the order of the axes.
        nsd_tolerance_mm: Distance in mm up to which a surface element is right.

    Returns:
        The four scores; they do not change when the two masks change places.

    Raises:
        ValueError: If shapes differ, the spacing does not fit them, a mask is empty (what that is worth is a rule of
            the protocol and not of a metric), or the tolerance is negative.
    """
    if prediction.shape != reference.shape or len(spacing_mm) != reference.ndim or reference.ndim not in (2, 3):
        raise ValueError(
            f"prediction and reference must have one shape of 2 or 3 axes and a spacing per axis, got "
            f"{prediction.shape}, {reference.shape} and {len(spacing_mm)} spacings."
        )
    if not min(spacing_mm) > 0 or not nsd_tolerance_mm >= 0:
        raise ValueError(
            f"spacing_mm must be above zero and nsd_tolerance_mm not below, got {spacing_mm}, {nsd_tolerance_mm}."
        )
    window = mask_window(prediction | reference)
    predicted, true = np.pad(prediction[window], 1), np.pad(reference[window], 1)
    num_predicted, num_true = int(np.count_nonzero(predicted)), int(np.count_nonzero(true))
    if not num_predicted or not num_true:
        raise ValueError(f"masks must not be empty, got {num_predicted} and {num_true} voxels.")
    if num_predicted == num_true and np.array_equal(predicted, true):
        return MaskScore(1.0, 1.0, 0.0, 0.0)
    spacing = np.asarray(spacing_mm, dtype=float)
    forward_mm, backward_mm = border_distances_mm(prediction[window], reference[window], spacing_mm)
    return MaskScore(
        dice=2 * int(np.count_nonzero(predicted & true)) / (num_predicted + num_true),
        nsd=_surface_dice(predicted, true, spacing, nsd_tolerance_mm * (1 + ROUNDING)),
        hd95_mm=float(max(np.percentile(forward_mm, 95), np.percentile(backward_mm, 95))),
        asd_mm=float((forward_mm.sum() + backward_mm.sum()) / (forward_mm.size + backward_mm.size)),
    )


def border_distances_mm(
    prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each border voxel of a mask is from the nearest border voxel of the other.

    Args:
        prediction: Mask of 2 or 3 axes, bool, not empty.
        reference: Mask of the same shape, not empty.
        spacing_mm: Voxel size per axis in mm, in the order of the axes.

    Returns:
        Distances in mm from the prediction's border, and from the reference's, both of shape (n,).
    """
    borders = [_border(np.pad(mask, 1)) for mask in (prediction, reference)]
    return _distances_mm(borders[0], borders[1], np.asarray(spacing_mm, dtype=float))


def _border(mask: np.ndarray) -> np.ndarray:
    """Mark the voxels of a mask that have a face neighbor outside; the mask must not touch the end of its array."""
    inside = mask.copy()
    for axis in range(mask.ndim):
        first = (slice(None),) * axis + (slice(None, -1),)
        last = (slice(None),) * axis + (slice(1, None),)
        inside[first] &= mask[last]
        inside[last] &= mask[first]
    return mask & ~inside


def _surface_dice(predicted: np.ndarray, true: np.ndarray, spacing: np.ndarray, tolerance_mm: float) -> float:
    """Weigh the surface elements of both masks by their area, and return the share within the tolerance."""
    areas_mm2 = _element_areas_mm2(tuple(spacing.tolist()))
    codes = _corner_codes(predicted), _corner_codes(true)
    surfaces = [(code != 0) & (code != areas_mm2.size - 1) for code in codes]
    distances_mm = _distances_mm(surfaces[0], surfaces[1], spacing, tolerance_mm)
    within = total = 0.0
    for code, surface, distance_mm in zip(codes, surfaces, distances_mm, strict=True):
        area_mm2 = areas_mm2[code[surface]]
        total += area_mm2.sum()
        within += area_mm2[distance_mm <= tolerance_mm].sum()
    return float(within / total)


def _corner_codes(mask: np.ndarray) -> np.ndarray:
    """Return which of the voxels around each inner corner are in the mask, one bit each, in MONAI's order."""
    voxels = mask.view(np.uint8)
    codes = np.zeros([n - 1 for n in mask.shape], dtype=np.uint8)
    for bit, offsets in enumerate(np.ndindex((2,) * mask.ndim)):
        corner = tuple(slice(o, n - 1 + o) for o, n in zip(offsets, mask.shape, strict=True))
        codes |= voxels[corner] << (2**mask.ndim - 1 - bit)
    return codes


@lru_cache(maxsize=256)
def _element_areas_mm2(spacing_mm: tuple[float, ...]) -> np.ndarray:
    """Area (in 2D length) of the surface element of each corner code. Shape (256,) or (16,)."""
    table: torch.Tensor = get_code_to_measure_table(spacing_mm)[0]
    return table.numpy().astype(float)


def _distances_mm(
    first: np.ndarray, second: np.ndarray, spacing: np.ndarray, limit_mm: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Return for each point of a set the distance to the nearest one of the other set; infinity beyond the limit.

    Args:
        first: Points marked in a grid, bool.
        second: The same for the other set.
        spacing: Step per axis in mm.
        limit_mm: Distances above are not looked for.

    Returns:
        Distances in mm of the points of `first` and of `second`, in the order of the grid.
    """
    points = [np.argwhere(grid) * spacing for grid in (first, second)]
    # points of both sets have distance zero, and in a good segmentation these are many
    alone = [~second[first], ~first[second]]
    bound_mm = np.nextafter(limit_mm, np.inf)  # the tree excludes the bound itself
    results = []
    for own, other in ((0, 1), (1, 0)):
        distance_mm = np.zeros(len(points[own]))
        if alone[own].any():
            # a tree that is quickly built: each is asked once; a distance map of the box takes five times as long
            tree = KDTree(points[other], leafsize=32, balanced_tree=False, compact_nodes=False)
            distance_mm[alone[own]] = tree.query(points[own][alone[own]], distance_upper_bound=bound_mm)[0]
        results.append(distance_mm)
    return results[0], results[1]
