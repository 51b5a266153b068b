"""Overlays and panels as PNG, for a person to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import nibabel as nib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..data.mask_values import MaskConvention
from ..data.photographs import read_mask, read_photograph
from ..transforms import VolumeFusion

SOFT_TISSUE_HU = (-160.0, 240.0)
PLANES = ("axial", "coronal", "sagittal")


def draw_case(
    image_file: str | Path,
    prediction_file: str | Path,
    reference_file: str | Path | None,
    output_file: str | Path,
    label_names: Mapping[int, str] | None = None,
    window: tuple[float, float] | None = SOFT_TISSUE_HU,
) -> None:
    """Draw image, prediction and reference in three planes through the middle of the labelled voxels.

    Args:
        image_file: NIfTI image.
        prediction_file: NIfTI label map in the image's geometry.
        reference_file: The same, or None.
        output_file: PNG to write.
        label_names: Names for the legend; None leaves it out.
        window: Intensities shown black and white, by default a soft-tissue window in HU; None for percentiles 1 and 99
            of the image, as suits MR.
    """
    image = nib.as_closest_canonical(nib.load(image_file))
    maps = [nib.as_closest_canonical(nib.load(f)) for f in (prediction_file, reference_file) if f is not None]
    labels = [np.asarray(m.dataobj).round().astype(int).reshape(image.shape[:3]) for m in maps]
    shown = labels[-1] if labels[-1].any() else np.ones_like(labels[-1])
    center = [int(np.median(axis)) for axis in np.nonzero(shown)]
    values = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    low, high = np.percentile(values, (1, 99)) if window is None else window
    spacing_mm = image.header.get_zooms()[:3]
    colors = _label_colors(max(int(m.max()) for m in labels))
    size_mm = [step * count for step, count in zip(spacing_mm, values.shape, strict=True)]
    heights = [size_mm[1] / size_mm[0], size_mm[2] / size_mm[0], size_mm[2] / size_mm[1]]
    columns = 1 + len(labels)
    figure = Figure(figsize=(4 * columns, 4 * sum(heights) + 2), layout="constrained")
    axes = figure.subplots(3, columns, squeeze=False, height_ratios=heights)
    titles = ["image", "prediction", "reference"]
    for row, (plane, axis) in enumerate(zip(PLANES, (2, 1, 0), strict=True)):
        rest = [a for a in (0, 1, 2) if a != axis]
        aspect = spacing_mm[rest[1]] / spacing_mm[rest[0]]
        for column, panel in enumerate(axes[row]):
            panel.imshow(_slice(values, axis, center[axis]), cmap="gray", vmin=low, vmax=high, aspect=aspect)
            if column:
                panel.imshow(colors[_slice(labels[column - 1], axis, center[axis])], aspect=aspect)
            panel.set_axis_off()
            panel.set_title(f"{titles[column]}, {plane}")
    if label_names:
        present = sorted({int(value) for m in labels for value in np.unique(m)} & set(label_names))
        patches = [Patch(color=colors[value], label=label_names[value]) for value in present]
        figure.legend(handles=patches, loc="outside lower center", ncols=4)
    _save(figure, output_file)


def draw_fusion(image_file: str | Path, output_file: str | Path, num_samples: int = 3, seed: int = 0) -> None:
    """Draw fused volumes and their label maps, made from one CT.

    Args:
        image_file: NIfTI image in HU.
        output_file: PNG to write.
        num_samples: Number of fused samples.
        seed: Seed of the fusion.
    """
    image = nib.as_closest_canonical(nib.load(image_file))
    values = np.asarray(image.dataobj, dtype=np.float32).reshape(image.shape[:3])
    # (D, H, W) as the network sees it: upward, backward, leftward
    volume = torch.from_numpy(np.clip((values + 1000) / 2000, 0, 1).transpose(2, 1, 0)[:, ::-1, ::-1].copy())[None]
    fusion = VolumeFusion((32, 64, 64), block_size_min=(3, 4, 4), block_size_max=(10, 16, 16), seed=seed)
    fused, label = fusion([volume] * num_samples)
    figure = Figure(figsize=(4 * num_samples, 8), layout="constrained")
    axes = figure.subplots(2, num_samples, squeeze=False)
    for column in range(num_samples):
        depth = fused.shape[2] // 2
        axes[0, column].imshow(fused[column, 0, depth], cmap="gray", vmin=0, vmax=1)
        axes[1, column].imshow(label[column, 0, depth], cmap="viridis", vmin=0, vmax=fusion.num_classes - 1)
        axes[0, column].set_title("fused volume")
        axes[1, column].set_title("fusion classes")
    for panel in axes.flat:
        panel.set_axis_off()
    _save(figure, output_file)


def draw_photograph(
    image_file: str | Path,
    prediction_file: str | Path,
    reference_file: str | Path | None,
    output_file: str | Path,
    convention: MaskConvention,
    channel_names: Sequence[str],
) -> None:
    """Draw a color photograph, and beside it the same with the contours of prediction and reference.

    Args:
        image_file: Photograph.
        prediction_file: Mask of its size.
        reference_file: The same, or None.
        output_file: PNG to write.
        convention: What the gray values of the masks mean.
        channel_names: Names for the legend.
    """
    pixels = read_photograph(image_file)
    figure = Figure(figsize=(8, 4.4 * pixels.shape[0] / pixels.shape[1]), layout="constrained")
    panels = figure.subplots(1, 2)
    for panel in panels:
        panel.imshow(pixels)
        panel.set_axis_off()
    colors = mpl.colormaps["Set1"](np.arange(convention.num_channels))
    for file, style in ((prediction_file, "solid"), (reference_file, "dashed")):
        if file is None:
            continue
        for channel, color in zip(convention.decode(read_mask(file)), colors, strict=True):
            if channel.any() and not channel.all():  # matplotlib warns of a contour that is nowhere
                panels[1].contour(channel, levels=[0.5], colors=[color], linestyles=style, linewidths=1.5)
    patches = [Patch(color=color, label=name) for color, name in zip(colors, channel_names, strict=True)]
    figure.legend(handles=patches, loc="outside lower center", ncols=4)
    _save(figure, output_file)


def _slice(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """A plane of a RAS volume as radiologists look at it: patient's right or front on the left, head or front up."""
    return np.take(volume, index, axis=axis)[::-1].T[::-1]


def _label_colors(largest: int) -> np.ndarray:
    """RGBA by label, background transparent. Shape (largest + 1, 4)."""
    palette = mpl.colormaps["tab20"](np.arange(max(largest, 1)) % 20)
    palette[:, 3] = 0.55
    return np.concatenate([np.zeros((1, 4)), palette])


def _save(figure: Figure, output_file: str | Path) -> None:
    path = Path(output_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=70)
