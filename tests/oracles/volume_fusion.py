"""Volume Fusion the slow way: NumPy and SciPy, one step after the other, as the specification lists them.

Written from arXiv:2306.16925 and doi:10.1109/TIP.2025.3610249 (sub-volumes, contrast, blocks or boxes, mixing). It
takes the plan that `VolumeFusion.randomize` drew, so fast and slow code can be compared voxel by voxel; the benchmark
uses it as the straightforward implementation of the published pipeline.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from common.transforms.volume_fusion import BlockRegions, BoxRegions, CropPlan, SamplePlan


def crop_and_resize(volume: np.ndarray, plan: CropPlan, roi_size: tuple[int, int, int]) -> np.ndarray:
    crop = volume[tuple(slice(a, a + n) for a, n in zip(plan.start, plan.size, strict=True))]
    crop = ndimage.zoom(crop, [n / c for n, c in zip(roi_size, crop.shape, strict=True)], order=1)
    for axis, flip in enumerate(plan.flips):
        if flip:
            crop = np.flip(crop, axis)
    return crop


def adjust_contrast(crop: np.ndarray, percentiles: tuple[float, float], gamma: float) -> np.ndarray:
    low, high = np.percentile(crop, percentiles[0]), np.percentile(crop, percentiles[1])
    lowest, highest = crop.min(), crop.max()
    if high <= low:
        return np.zeros_like(crop)
    below, above = crop < low, crop > high
    middle = ~below & ~above
    curve = np.zeros_like(crop)
    if below.any():
        curve[below] = 0.1 * (crop[below] - lowest) / (low - lowest)
    curve[middle] = 0.1 + 0.8 * (crop[middle] - low) / (high - low)
    if above.any():
        curve[above] = 0.9 + 0.1 * (crop[above] - high) / (highest - high)
    curve = (curve - curve.min()) / (curve.max() - curve.min())
    return np.power(curve, gamma)


def paint_regions(regions: BlockRegions | BoxRegions, roi_size: tuple[int, int, int]) -> np.ndarray:
    label = np.zeros(roi_size, dtype=np.uint8)
    if isinstance(regions, BoxRegions):
        for (d0, h0, w0), (d1, h1, w1), value in zip(regions.starts, regions.stops, regions.classes, strict=True):
            label[d0:d1, h0:h1, w0:w1] = value
        return label
    (bd, bh, bw), (od, oh, ow) = regions.block_size, regions.offset
    cells_d, cells_h, cells_w = regions.classes.shape
    for d in range(cells_d):
        for h in range(cells_h):
            for w in range(cells_w):
                d0, h0, w0 = od + d * bd, oh + h * bh, ow + w * bw
                label[d0 : d0 + bd, h0 : h0 + bh, w0 : w0 + bw] = regions.classes[d, h, w]
    return label


def augment(
    volume: np.ndarray, plan: CropPlan, roi_size: tuple[int, int, int], intensity: bool, invert: bool
) -> np.ndarray:
    crop = crop_and_resize(volume, plan, roi_size)
    if intensity:
        crop = adjust_contrast(crop, plan.percentiles, plan.gamma)
    return 1.0 - crop if invert else crop


def fuse(background: np.ndarray, foreground: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    alpha = label.astype(np.float32) / (num_classes - 1)
    return alpha * foreground + (1.0 - alpha) * background


def fuse_blocks_sample(
    volume: np.ndarray, plan: SamplePlan, roi_size: tuple[int, int, int], num_classes: int, intensity: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """One sample of the variant `blocks`: volume (D, H, W) -> fused and label, both of `roi_size`."""
    background, foreground = (augment(volume, crop, roi_size, intensity, plan.invert) for crop in plan.crops)
    label = paint_regions(plan.regions, roi_size)
    return fuse(background, foreground, label, num_classes), label
