"""The six extreme points of an organ, taken together."""

from __future__ import annotations

import torch


def fit_shape(voxels: torch.Tensor, shape: torch.Tensor, weight: float) -> torch.Tensor:
    """Move and scale the supports' points, along each axis by itself, to where the points of a scan were found.

    Each end of an organ is found by one point alone, and each point is found with all three coordinates: the ends of an
    axis are better known from all six. The scale is that of least squares, drawn towards 1, the size of the supports;
    the place is then the median, so that a single point found far away does not count.

    Args:
        voxels: Points as found. Shape (parts, 6, 3).
        shape: The supports' points relative to their mean, in the same voxels. Shape (parts, 6, 3).
        weight: How much a scale of 1 counts, beside all six points, which count 1; 0 leaves the scale to the points.

    Returns:
        The supports' points in the scan. Shape (parts, 6, 3).
    """
    extent = shape.square().sum(dim=1, keepdim=True).clamp_min(torch.finfo(shape.dtype).tiny)
    slope = (shape * (voxels - voxels.mean(dim=1, keepdim=True))).sum(dim=1, keepdim=True) / extent
    fitted = (slope + weight) / (1 + weight) * shape
    rest = (voxels - fitted).sort(dim=1).values
    return fitted + (rest[:, 2:3] + rest[:, 3:4]) / 2
