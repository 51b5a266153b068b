"""Small pictures of cases, and the page that shows them all."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from ..readers import Volume

__all__ = ["draw_planes", "write_overview"]

SIDE_PX = 144
OPACITY = 0.45
# Distinct hues in turn, for label values from 1.
COLORS = np.array(
    [(230, 60, 50), (60, 170, 75), (65, 105, 225), (250, 190, 20), (150, 60, 180), (60, 200, 210), (245, 130, 50)],
    dtype=np.float32,
)


def draw_planes(volume: Volume, label: Volume | None) -> np.ndarray:
    """Draw three planes through the middle of the label, or of the image; in 2D the picture as it is.

    Args:
        volume: Image.
        label: Label map of the same size, or None.

    Returns:
        Colors. Shape (height, width, 3), uint8.
    """
    values = np.asarray(volume.array, dtype=np.float32)
    if values.ndim > len(volume.spatial_shape):  # colors as they are, otherwise the first channel
        values = values[..., :3] if len(volume.spatial_shape) == 2 and values.shape[-1] >= 3 else values[..., 0]
    mask = None if label is None else np.asarray(label.array).reshape(volume.spatial_shape)
    if len(volume.spatial_shape) == 2:
        flat = np.swapaxes(values, 0, 1)
        return _panel(flat, None if mask is None else mask.T, (flat.shape[1], flat.shape[0]), _range(values))
    affine = np.eye(4) if volume.affine is None else volume.affine
    orientation = nib.io_orientation(affine)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    spacing = np.array([spacing[int(np.argwhere(orientation[:, 0] == axis)[0, 0])] for axis in range(3)])
    values = nib.apply_orientation(values, orientation)
    mask = None if mask is None else nib.apply_orientation(mask, orientation)
    middle = [n // 2 for n in values.shape]
    if mask is not None and mask.any():
        middle = [int(np.median(axis)) for axis in np.nonzero(mask)]
    shown = _range(values)
    panels = []
    for axis in (2, 1, 0):
        # head or front above, the patient's right at the left, as radiologists look at it
        plane = np.flip(np.take(values, middle[axis], axis).T)
        part = None if mask is None else np.flip(np.take(mask, middle[axis], axis).T)
        width, height = (spacing[a] * values.shape[a] for a in range(3) if a != axis)
        panels.append(_panel(plane, part, (width, height), shown))
    return np.concatenate(panels, axis=1)


def _range(values: np.ndarray) -> tuple[float, float]:
    """Values shown black and white; percentiles of a sparse sample, as all would take seconds."""
    sample = values.ravel()[:: max(1, values.size // 100_000)]
    low, high = np.percentile(sample, (1, 99))
    return float(low), float(max(high, low + 1e-6))


def _panel(
    plane: np.ndarray, mask: np.ndarray | None, size: tuple[float, float], shown: tuple[float, float]
) -> np.ndarray:
    """Scale a plane to its true proportions within a square, and color the labels."""
    gray = np.clip((plane - shown[0]) / (shown[1] - shown[0]), 0, 1) * 255
    colors = np.repeat(gray[..., None], 3, axis=2) if gray.ndim == 2 else gray
    if mask is not None:
        painted = COLORS[(mask.astype(np.int64) - 1) % len(COLORS)]
        colors = np.where(mask[..., None] > 0, (1 - OPACITY) * colors + OPACITY * painted, colors)
    scale = SIDE_PX / max(size)
    pixels = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))
    picture = Image.fromarray(colors.astype(np.uint8)).resize(pixels, Image.Resampling.BILINEAR)
    square = Image.new("RGB", (SIDE_PX, SIDE_PX))
    square.paste(picture, ((SIDE_PX - pixels[0]) // 2, (SIDE_PX - pixels[1]) // 2))
    return np.asarray(square)


def write_overview(
    folder: Path, pictures: Mapping[str, np.ndarray], captions: Mapping[str, str], warnings: Sequence[str]
) -> Path:
    """Write a picture of every case and a page that shows them; no network is needed to look at it.

    Args:
        folder: Where to write.
        pictures: Colors by case. Shape (height, width, 3), uint8.
        captions: What to say below, by case.
        warnings: What to say above all.

    Returns:
        The page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    for number, (case, colors) in enumerate(pictures.items()):
        name = f"{number:04d}_{Path(case).name}.png"
        Image.fromarray(colors).save(folder / name)
        text = html.escape(captions.get(case, case))
        figures.append(f'<figure><img src="{html.escape(name)}" alt="{text}"><figcaption>{text}</figcaption></figure>')
    listed = "".join(f"<li>{html.escape(warning)}</li>" for warning in warnings)
    style = (
        "body{font-family:sans-serif;margin:1rem}main{display:flex;flex-wrap:wrap;gap:1rem}figure{margin:0;width:27rem;"
        "max-width:100%}img{width:100%;background:#000}figcaption{font-size:.85rem;overflow-wrap:anywhere}"
    )
    page = folder / "index.html"
    page.write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Cases</title>'
        f'<meta name="viewport" content="width=device-width"><style>{style}</style></head><body>'
        f"<h1>{len(figures)} cases</h1><p>The patient's right is at the left.</p>"
        f"<ul>{listed}</ul><main>{''.join(figures)}</main></body></html>\n"
    )
    return page
