"""Dice, NSD, HD95 and ASD of two masks by loops and full distance tables, written from the definitions.

Nothing here is cropped, cached or looked up: borders are found voxel by voxel, the area of each surface element by a
marching cubes of its own (Lorensen and Cline 1987, with complementary cases taken as their complement), and each
distance as the minimum over all points of the other surface. For masks of a few thousand voxels.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from skimage.measure import marching_cubes, mesh_surface_area


def dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    both = sum(bool(p and r) for p, r in zip(prediction.flat, reference.flat, strict=True))
    return 2 * both / (int(prediction.sum()) + int(reference.sum()))


def border_points(mask: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Centers of the voxels that have a face neighbor outside, in mm."""
    points = []
    for voxel in map(tuple, np.argwhere(mask)):
        for axis, step in itertools.product(range(mask.ndim), (-1, 1)):
            neighbor = list(voxel)
            neighbor[axis] += step
            if not 0 <= neighbor[axis] < mask.shape[axis] or not mask[tuple(neighbor)]:
                points.append([v * s for v, s in zip(voxel, spacing, strict=True)])
                break
    return np.array(points)


def nearest_mm(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.array([np.sqrt(((others - point) ** 2).sum(1)).min() for point in points])


def hd95_and_asd_mm(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, float]:
    predicted, true = border_points(prediction, spacing), border_points(reference, spacing)
    forward, backward = nearest_mm(predicted, true), nearest_mm(true, predicted)
    percentiles = []
    for distances in (forward, backward):
        ordered = sorted(distances)
        position = 0.95 * (len(ordered) - 1)
        low = math.floor(position)
        high = min(low + 1, len(ordered) - 1)
        percentiles.append(ordered[low] + (position - low) * (ordered[high] - ordered[low]))
    return max(percentiles), (forward.sum() + backward.sum()) / (len(forward) + len(backward))


def element_area_mm2(corner: np.ndarray, spacing: tuple[float, ...]) -> float:
    """Area (in 2D length) of the surface that separates the voxels around one corner."""
    inside = corner if 2 * corner.sum() <= corner.size else ~corner
    if corner.ndim == 3:
        vertices, faces, _, _ = marching_cubes(inside.astype(float), 0.5, spacing=spacing, method="lorensen")
        return float(mesh_surface_area(vertices, faces))
    half_diagonal = 0.5 * math.hypot(*spacing)
    if inside.sum() == 1:
        return half_diagonal
    if inside[0, 0] == inside[1, 1]:  # two opposite pixels: two cut corners
        return 2 * half_diagonal
    return spacing[0] if inside[0, 0] == inside[1, 0] else spacing[1]


def surface_elements(mask: np.ndarray, spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Positions in mm and areas of all surface elements; outside of the array there is no mask."""
    padded = np.pad(mask, 1)
    points, areas = [], []
    for start in np.ndindex(*[n - 1 for n in padded.shape]):
        corner = padded[tuple(slice(s, s + 2) for s in start)]
        if corner.any() and not corner.all():
            points.append([i * s for i, s in zip(start, spacing, strict=True)])
            areas.append(element_area_mm2(corner, spacing))
    return np.array(points), np.array(areas)


def nsd(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], tolerance_mm: float) -> float:
    predicted, predicted_areas = surface_elements(prediction, spacing)
    true, true_areas = surface_elements(reference, spacing)
    near_predicted = nearest_mm(predicted, true) <= tolerance_mm + 1e-9
    near_true = nearest_mm(true, predicted) <= tolerance_mm + 1e-9
    right = predicted_areas[near_predicted].sum() + true_areas[near_true].sum()
    return float(right / (predicted_areas.sum() + true_areas.sum()))
