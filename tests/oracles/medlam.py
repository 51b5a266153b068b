"""MedLAM's losses and search as slow loops, written from the specification."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F


def similarity_loss(
    original_maps, deformed_maps, points, points_mm, coordinates_mm, sharpness, positive_mm, negative_mm
):
    """Multi-scale similarity of one patch of each pair, one voxel of interest at a time."""
    total = 0.0
    for original, deformed in zip(original_maps, deformed_maps, strict=True):
        stride = coordinates_mm.shape[-1] // original.shape[-1]
        positive_sum = negative_sum = num_positive = num_negative = 0.0
        for item in range(len(original)):
            for point, point_mm in zip(points.tolist(), points_mm[item], strict=True):
                z, y, x = (index // stride for index in point)
                query = original[item, :, z, y, x]
                query = query / query.norm()
                keys = deformed[item] / deformed[item].norm(dim=0, keepdim=True)
                cosine = torch.einsum("c,cdhw->dhw", query, keys)
                share = torch.softmax(sharpness * cosine.flatten(), 0)
                distance = (coordinates_mm[item] - point_mm[:, None, None, None]).square().sum(0).sqrt()
                if stride > 1:
                    distance = F.interpolate(distance[None, None], scale_factor=1 / stride, mode="trilinear")[0, 0]
                for value, gap in zip(share.tolist(), distance.flatten().tolist(), strict=True):
                    if gap <= positive_mm * stride:
                        positive_sum += math.log(value)
                        num_positive += 1
                    elif gap >= negative_mm * stride:
                        negative_sum += math.log(1 - value)
                        num_negative += 1
        total += -positive_sum / max(num_positive, 1) - negative_sum / max(num_negative, 1)
    return total / (len(original_maps) * len(points))


def middle_extreme_points(mask: np.ndarray) -> np.ndarray:
    """Six voxels (zmin, ymin, xmin, zmax, ymax, xmax): the middle of the raster-ordered list on each bounding slice."""
    voxels = np.argwhere(mask)  # raster order
    points = []
    for bound in (np.min, np.max):
        for axis in range(3):
            on_slice = voxels[voxels[:, axis] == bound(voxels[:, axis])]
            points.append(on_slice[len(on_slice) // 2])
    return np.array(points)


def similarity_map(query_maps, templates):
    """Mean cosine between templates and query features for every offset of a window, summed over scales.

    Args:
        query_maps: Features of the query patch, coarse to fine. Shape (C, d, h, w) each.
        templates: Unit vectors around the point in the support, coarse to fine. Shape (C, k, k, k) each.

    Returns:
        Shape (D + 1, H + 1, W + 1); the middle is no offset.
    """
    fine = query_maps[-1].shape[1:]
    total = np.zeros([n + 1 for n in fine])
    for features, template in zip(query_maps, templates, strict=True):
        stride = fine[0] // features.shape[1]
        kernel = template.shape[1]
        unit = F.normalize(features, dim=0).numpy()
        half = kernel // 2
        padded = np.pad(unit, [(0, 0), *[(half, half)] * 3])
        scores = np.zeros([n + 1 for n in features.shape[1:]])
        for place in np.ndindex(scores.shape):
            window = padded[(slice(None), *[slice(p, p + kernel) for p in place])]
            scores[place] = (window * template.numpy()).sum() / kernel**3
        for axis in range(3):  # linear between the places of this scale
            places = np.arange(total.shape[axis]) / stride
            scores = np.apply_along_axis(
                lambda line, at=places: np.interp(at, np.arange(len(line)), line), axis, scores
            )
        total += scores
    return total
