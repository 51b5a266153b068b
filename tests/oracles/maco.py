"""Learning from scribbles, pixel by pixel, as the formulas read; slow on purpose."""

from __future__ import annotations

import math
from itertools import product

import numpy as np


def distance_maps(labels, num_classes, spacing_mm):
    """Distance of each pixel to the nearest pixel of each class, by comparing with every one of them."""
    maps = np.full((num_classes, *labels.shape), np.inf)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in labels.shape), indexing="ij"), axis=-1) * np.asarray(spacing_mm)
    for label in range(num_classes):
        for point in np.argwhere(labels == label) * np.asarray(spacing_mm):
            maps[label] = np.minimum(maps[label], np.sqrt(((grid - point) ** 2).sum(axis=-1)))
    return maps


def distance_maps_scipy(labels, num_classes, spacing_mm):
    """The usual way: one double precision transform a class."""
    from scipy import ndimage

    maps = np.full((num_classes, *labels.shape), np.inf)
    for label in range(num_classes):
        if (labels == label).any():
            maps[label] = ndimage.distance_transform_edt(labels != label, sampling=spacing_mm)
    return maps


def neighbor_pairs(shape):
    """Every pixel with every neighbor behind it."""
    for place in np.ndindex(*shape):
        for step in product((-1, 0, 1), repeat=len(shape)):
            other = tuple(p + s for p, s in zip(place, step, strict=True))
            if step > (0,) * len(shape) and all(0 <= o < size for o, size in zip(other, shape, strict=True)):
                yield place, other, step


def geodesic_distance(image, strokes, spacing_mm, intensity_mm):
    """Bellman and Ford: shorten over every link until nothing changes."""
    distance = np.where(strokes, 0.0, math.inf)
    changed = True
    while changed:
        changed = False
        for one, other, step in neighbor_pairs(image.shape):
            length = math.sqrt(sum((s * side) ** 2 for s, side in zip(step, spacing_mm, strict=True)))
            length += intensity_mm * abs(image[one] - image[other])
            for here, there in ((one, other), (other, one)):
                if distance[here] + length < distance[there]:
                    distance[there] = distance[here] + length
                    changed = True
    return distance


def softmax(logits):
    shifted = np.exp(logits - logits.max())
    return shifted / shifted.sum()


def weighted_pseudo_label_loss(logits, distances_mm, tau_mm):
    """- sum y log p / sum y with y = exp(-d / tau); arrays of shape (C, H, W)."""
    numerator = denominator = 0.0
    num_classes, height, width = logits.shape
    for row, column in product(range(height), range(width)):
        p = softmax(logits[:, row, column])
        for c in range(num_classes):
            y = math.exp(-distances_mm[c, row, column] / tau_mm)
            numerator -= y * math.log(p[c])
            denominator += y
    return numerator / denominator


def normalized_pseudo_label_loss(logits, distances_mm, tau_mm):
    """Mean of - sum q log p with q the softmax of -d / tau; arrays of shape (C, H, W)."""
    total = 0.0
    num_classes, height, width = logits.shape
    for row, column in product(range(height), range(width)):
        p = softmax(logits[:, row, column])
        q = softmax(-distances_mm[:, row, column] / tau_mm)
        total -= sum(q[c] * math.log(p[c]) for c in range(num_classes) if q[c] > 0)
    return total / (height * width)


def gated_crf(probability, image, sigma_position, sigma_intensity, radius):
    """Double loop over pixels and their windows; `probability` (C, H, W), `image` (H, W)."""
    total = 0.0
    _, height, width = probability.shape
    for row, column in product(range(height), range(width)):
        for other_row, other_column in product(
            range(max(0, row - radius), min(height, row + radius + 1)),
            range(max(0, column - radius), min(width, column + radius + 1)),
        ):
            if (row, column) == (other_row, other_column):
                continue
            space = ((row - other_row) ** 2 + (column - other_column) ** 2) / (2 * sigma_position**2)
            color = (image[row, column] - image[other_row, other_column]) ** 2 / (2 * sigma_intensity**2)
            alike = float(probability[:, row, column] @ probability[:, other_row, other_column])
            total += math.exp(-space - color) * (1 - alike)
    return total / (height * width)
