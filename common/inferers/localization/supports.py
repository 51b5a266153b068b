"""Support scans: where each organ ends in them, from label maps or from a file of points."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np

from ...data.extreme_points import cut_sides, extreme_points_of_mask, read_extreme_points, slab_points_of_mask
from ...data.problems import DatasetError, Problem, refusal
from ...data.readers import Volume, read_volume

_logger = logging.getLogger(__name__)

# How far outside the scan a point may be, in voxels of the scan: its outermost face is half a voxel away.
_MARGIN_VOXELS = 1.0


@dataclass
class Support:
    """What one support scan shows.

    Attributes:
        case: Name.
        image: Path of the scan.
        points_mm: Organ to extreme points in RAS mm in the order of `SIDES`. Shape (parts, 6, 3).
        cut: Organ to the sides on which it reaches the border of the scan.
    """

    case: str
    image: str
    points_mm: dict[str, np.ndarray] = field(default_factory=dict)
    cut: dict[str, list[str]] = field(default_factory=dict)


def read_supports(
    datalist: Sequence[Mapping[str, Any]],
    label_names: Mapping[int, str],
    slab_mm: float | None = None,
    max_slabs: int | None = 6,
) -> list[Support]:
    """Read where the organs end in each support.

    Where all supports of an organ have label maps and `slab_mm` is given, the organ is divided into slabs along the
    body, as many as of `slab_mm` fit into its smallest support (MedLSAM's sub-patch localization).

    Args:
        datalist: Supports with `case`, `image`, and `label` (a label map) or `points` (a file of extreme points).
        label_names: Label to organ; other organs are left out.
        slab_mm: Height of a slab in mm; None localizes whole organs.
        max_slabs: Most slabs of an organ; None for no bound.

    Returns:
        The supports, each with the organs that it shows.

    Raises:
        DatasetError: If a file breaks a rule, points lie outside their scan, slabs are asked for of points, or no
            support shows any organ.
        ValueError: If `slab_mm` or `max_slabs` is not positive.
    """
    if (slab_mm is not None and slab_mm <= 0) or (max_slabs is not None and max_slabs < 1):
        raise ValueError(f"slab_mm must be positive and max_slabs at least 1, got {slab_mm} and {max_slabs}.")
    if not datalist:
        raise refusal("supports", "must have a scan", "an empty list", "check support_dir and support_section")
    num_slabs = _count_slabs(datalist, label_names, slab_mm, max_slabs) if slab_mm is not None else {}
    supports = []
    for case in datalist:
        support = Support(str(case["case"]), str(case["image"]))
        if "label" in case:
            for organ, mask, affine in _masks(read_volume(case["label"]), label_names):
                support.points_mm[organ] = (
                    slab_points_of_mask(mask, affine, num_slabs[organ])
                    if organ in num_slabs
                    else extreme_points_of_mask(mask, affine)[None]
                )
                support.cut[organ] = cut_sides(mask, affine)
        else:
            points = read_extreme_points(case["points"])
            _check_inside(case["points"], points, read_volume(case["image"]))
            known = {organ: p for organ, p in points.items() if organ in label_names.values()}
            unknown = sorted(set(points) - set(known))
            if unknown:
                found = ", ".join(unknown)
                rule = f"must name organs among {', '.join(label_names.values())}"
                raise refusal(case["points"], rule, found, "rename them, or list them in label_names")
            support.points_mm = {organ: p[None] for organ, p in known.items()}
        supports.append(support)
    if not any(support.points_mm for support in supports):
        found = f"none in {', '.join(s.case for s in supports)}"
        raise refusal("supports", f"must show one of {', '.join(label_names.values())}", found, "check label_names")
    return supports


def choose_supports(supports: Sequence[Support], organ: str) -> list[Support]:
    """Return the supports that show an organ, whole ones only where there is one, and say what is left out.

    Args:
        supports: All supports.
        organ: Name of the organ.
    """
    shown = [support for support in supports if organ in support.points_mm]
    whole = [support for support in shown if not support.cut.get(organ)]
    for support in (s for s in shown if s.cut.get(organ)):
        consequence = "is left out" if whole else "is used all the same, for want of a whole one"
        sides = ", ".join(support.cut[organ])
        _logger.warning("Support %s: %s is cut off (%s) and %s.", support.case, organ, sides, consequence)
    return whole or shown


def _masks(volume: Volume, label_names: Mapping[int, str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield the organs of a label map that are there."""
    array = volume.array.reshape(volume.spatial_shape)
    affine = np.eye(4) if volume.affine is None else volume.affine
    for label, organ in label_names.items():
        mask = array == label
        if mask.any():
            yield organ, mask, affine


def _count_slabs(
    datalist: Sequence[Mapping[str, Any]], label_names: Mapping[int, str], slab_mm: float, max_slabs: int | None
) -> dict[str, int]:
    """How many slabs each organ has: what fits into its smallest support."""
    without = [
        Problem(str(c["case"]), "must have a label map for slabs", "points", "set slab_mm to null, or label it")
        for c in datalist
        if "label" not in c
    ]
    if without:
        raise DatasetError(without)
    counts: dict[str, int] = {}
    for case in datalist:
        for organ, mask, affine in _masks(read_volume(case["label"]), label_names):
            axis = int(np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)[0])
            num_slices = int(mask.any(axis=tuple(a for a in range(3) if a != axis)).sum())
            height_mm = num_slices * float(np.linalg.norm(affine[:3, axis]))
            fitting = min(int(height_mm // slab_mm), num_slices)
            counts[organ] = min(counts.get(organ, fitting), fitting)
    return {organ: max(1, count if max_slabs is None else min(count, max_slabs)) for organ, count in counts.items()}


def _check_inside(path: str, points: Mapping[str, np.ndarray], volume: Volume) -> None:
    affine = np.eye(4) if volume.affine is None else volume.affine
    size = np.array(volume.spatial_shape)
    problems = []
    for organ, points_mm in points.items():
        indices = np.linalg.solve(affine, np.c_[points_mm, np.ones(len(points_mm))].T)[:3].T
        outside = ((indices < -_MARGIN_VOXELS) | (indices > size - 1 + _MARGIN_VOXELS)).any(axis=1)
        if outside.any():
            first = int(np.flatnonzero(outside)[0])
            place_mm, voxel = points_mm[first].round(1).tolist(), indices[first].round(1).tolist()
            found = f"{organ} at {place_mm} mm, voxel {voxel}"
            rule = f"must lie in the scan, of {' x '.join(map(str, size))} voxels"
            problems.append(Problem(path, rule, found, "check that the points are of this scan, and RAS, not LPS"))
    if problems:
        raise DatasetError(problems)
