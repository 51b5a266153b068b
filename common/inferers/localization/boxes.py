"""From extreme points in the network's grid to boxes in the scan, or to "not in this scan"."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.boxes import OrganBoxes, ScanBoxes, VoxelBox, bounds_in_grid
from ...data.extreme_points import grid_sides
from .localizer import FoundPoints
from .templates import OrganTemplate


def boxes_of_points(
    case: str,
    found: Sequence[FoundPoints],
    templates: Sequence[OrganTemplate],
    grid_affine: np.ndarray,
    grid_shape: Sequence[int],
    scan_affine: np.ndarray,
    scan_shape: Sequence[int],
    min_similarity: float = 0.5,
    min_inside: float = 0.5,
) -> ScanBoxes:
    """Span a box between the extreme points of each part of each organ, and judge whether to believe it.

    An organ is taken for absent, and gets no box, if the regression puts it outside the scan (less than `min_inside` of
    the expected box lies in it, the mean over the first step and the last: a step from the border of the scan looks at
    half a patch of air and tends to stay), or if its points are not similar to the supports' (`min_similarity`). Its
    confidence is the similarity, halved where a lower extreme point was found above its upper one, which is noted.

    Args:
        case: Name of the scan.
        found: Points of each template.
        templates: The templates.
        grid_affine: Voxel indices of the network's grid to RAS mm. Shape (4, 4).
        grid_shape: Size of that grid.
        scan_affine: Voxel indices of the scan as stored to RAS mm. Shape (4, 4).
        scan_shape: Size of the scan as stored.
        min_similarity: Mean similarity of an organ's points below which it is absent, as a share of the template's own.
        min_inside: Share of the expected box that must lie in the scan.

    Returns:
        Boxes in the grid of the scan as stored, clipped to it.
    """
    organs = []
    for template, points in zip(templates, found, strict=True):
        steps = (points.from_start, points.expected)
        inside = sum(_share_inside(step.numpy(), grid_shape) for step in steps) / len(steps)
        similarity = float(points.similarity.mean())
        confidence = inside if np.isnan(similarity) else min(max(similarity, 0.0), 1.0)
        crossed = _crossed_sides(points.voxels.numpy())
        note = ""
        if inside < min_inside:
            note = f"not in this scan: {1 - inside:.0%} of its expected box lie outside"
        elif similarity < min_similarity:
            note = f"not in this scan: nothing is similar enough ({similarity:.2f}, below {min_similarity:g})"
        elif crossed:
            note = f"doubtful: lower and upper end found in the wrong order in {crossed} of {template.num_parts} parts"
            confidence /= 2
        present = inside >= min_inside and not similarity < min_similarity
        parts = _parts(points, grid_affine, scan_affine, scan_shape) if present else ()
        if present and not parts:
            present, note = False, "not in this scan: its box lies outside"
        organs.append(OrganBoxes(template.organ, template.label, parts, confidence, present, note))
    shape = tuple(int(n) for n in scan_shape)
    return ScanBoxes(case, np.asarray(scan_affine, dtype=float), (shape[0], shape[1], shape[2]), tuple(organs))


def points_mm(found: FoundPoints, grid_affine: np.ndarray) -> np.ndarray:
    """Return the extreme points of a whole organ in RAS mm in the order of `SIDES`, over all of its parts.

    Args:
        found: Points of the organ.
        grid_affine: Voxel indices of the network's grid to RAS mm. Shape (4, 4).

    Returns:
        Shape (6, 3).
    """
    voxels = found.voxels.numpy()
    ends = [voxels[:, axis, axis].argmin() for axis in range(3)]
    ends += [voxels[:, 3 + axis, axis].argmax() for axis in range(3)]
    chosen = np.array([voxels[part, point] for point, part in enumerate(ends)])
    ordered = np.empty((6, 3))
    ordered[grid_sides(grid_affine)] = chosen @ grid_affine[:3, :3].T + grid_affine[:3, 3]
    return ordered


def _parts(
    points: FoundPoints, grid_affine: np.ndarray, scan_affine: np.ndarray, scan_shape: Sequence[int]
) -> tuple[VoxelBox, ...]:
    boxes = []
    for voxels, similarity in zip(points.voxels.numpy(), points.similarity.numpy(), strict=True):
        # a voxel's center is half a voxel behind its lower face
        ends = np.sort(np.stack([np.diagonal(voxels[:3]), np.diagonal(voxels[3:])]), axis=0) + 0.5
        lower, upper = bounds_in_grid(ends[0], ends[1], grid_affine, scan_affine)
        confidence = 1.0 if np.isnan(similarity).any() else float(np.clip(similarity.mean(), 0, 1))
        box = VoxelBox.around(lower, upper, confidence).clipped(scan_shape)
        if box is not None:
            boxes.append(box)
    return tuple(boxes)


def _share_inside(expected: np.ndarray, shape: Sequence[int]) -> float:
    """Share of the box between expected points that lies in a grid, the largest over the parts."""
    shares = []
    for voxels in expected:
        ends = np.sort(np.stack([np.diagonal(voxels[:3]), np.diagonal(voxels[3:])]), axis=0)
        size = np.maximum(ends[1] - ends[0], 1.0)
        visible = np.minimum(ends[0] + size, np.asarray(shape) - 0.5) - np.maximum(ends[0], -0.5)
        shares.append(float(np.prod(np.clip(visible / size, 0, 1))))
    return max(shares)


def _crossed_sides(voxels: np.ndarray) -> int:
    """In how many parts a lower end was found above an upper one."""
    lower, upper = (np.diagonal(voxels[:, s : s + 3], axis1=1, axis2=2) for s in (0, 3))
    return int((lower > upper).any(axis=1).sum())
