"""Small pictures as PNG, for a page to lay out: one plane each, with structures in color."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw

from ..evaluation.masks import CaseMasks, Grid
from ..evaluation.overlays import cut_plane

SOFT_TISSUE_HU = (-160.0, 240.0)
PLANES: Mapping[int, str] = {2: "axial", 1: "coronal", 0: "sagittal"}
# Pixels on the longer side.
SIDE = 288
FILL = 0.35
# Nothing in the body is green or blue.
PHOTOGRAPH_COLORS = ("#00d5ff", "#39ff14", "#d9b3ff", "#ffffff")
DASH, DOT = 6.0, 3.0


@dataclass(frozen=True)
class Line:
    """A line over a picture, such as the sides of a box or a path.

    Attributes:
        points: Columns and rows in pixels of the picture, of which the first reaches from 0 to 1. Shape (N, 2).
        color: As CSS writes it.
        dashed: Whether it is broken.
        dots: Whether its points are marked.
    """

    points: np.ndarray
    color: str
    dashed: bool = False
    dots: bool = False


def structure_colors(names: Sequence[str], on_photograph: bool = False) -> dict[str, str]:
    """Return a color of each structure, as CSS writes it, the same for the same position.

    Args:
        names: Structures, in order.
        on_photograph: Whether they must stand out from red and orange.
    """
    if on_photograph:
        return dict(zip(names, itertools.cycle(PHOTOGRAPH_COLORS)))
    palette = mpl.colormaps["tab10" if len(names) <= 10 else "tab20"]
    return {name: mpl.colors.to_hex(palette(i % palette.N)) for i, name in enumerate(names)}


def draw_planes(
    image: np.ndarray,
    grid: Grid,
    masks: Mapping[str, CaseMasks],
    colors: Mapping[str, str],
    center: Sequence[int],
    window: tuple[float, float] | None,
) -> Iterator[tuple[bytes, str]]:
    """Draw an image, and over it each set of masks, in three planes; a picture in its one.

    Args:
        image: Intensities; shape of the grid, with a last axis of three colors in a photograph.
        grid: Where its voxels are: RAS, or rows and columns.
        masks: By title masks in the same grid, such as `prediction` and `reference`.
        colors: Color of each structure; those behind cover those before.
        center: Voxel that the planes go through.
        window: Intensities shown black and white; None for percentiles 1 and 99 of the image.

    Yields:
        PNG and caption: for each plane the image, then one picture for each set of masks.
    """
    layers = {title: _label_map(case, grid, list(colors)) for title, case in masks.items()}
    palette = [mpl.colors.to_rgb(color) for color in colors.values()]
    low, high = np.percentile(image, (1, 99)) if window is None else window
    planes: list[tuple[int | None, str]] = list(PLANES.items()) if len(grid.shape) == 3 else [(None, "")]
    for axis, name in planes:
        step = 1.0
        if axis is not None:
            columns, rows = (a for a in range(3) if a != axis)
            step = grid.spacing_mm[rows] / grid.spacing_mm[columns]
        pixels = gray(image if axis is None else cut_plane(image, axis, center[axis]), low, high)
        suffix = f", {name}" if name else ""
        yield encode(pixels, step), f"image{suffix}"
        for title, labels in layers.items():
            shown = labels if axis is None else cut_plane(labels, axis, center[axis])
            yield encode(pixels, step, shown, palette), f"{title}{suffix}"


def center_of(masks: Sequence[CaseMasks], structure: str | None, grid: Grid) -> list[int]:
    """Return the median voxel of a structure in the first of some masks that have it.

    Args:
        masks: Masks in one grid, such as those of the reference, then of the prediction.
        structure: Name; None, or one that is nowhere, for all structures together.
        grid: The grid, whose middle it is where all masks are empty.
    """
    for names in ([structure], None):
        for case in masks:
            found = [m for name, m in case.masks.items() if m is not None and (names is None or name in names)]
            if found:
                voxels = [np.nonzero(m.crop) for m in found]
                return [
                    int(
                        np.median(
                            np.concatenate([v[axis] + m.window[axis].start for v, m in zip(voxels, found, strict=True)])
                        )
                    )
                    for axis in range(len(grid.shape))
                ]
    return [n // 2 for n in grid.shape]


def gray(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return intensities as pixels.

    Args:
        values: Shape (H, W) or, in color, (H, W, 3).
        low: What is shown black.
        high: What is shown white.

    Returns:
        Shape (H, W, 3), uint8.
    """
    scaled = np.clip((values.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    pixels = (scaled * 255).round().astype(np.uint8)
    return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)


def colored(values: np.ndarray, low: float, high: float, colormap: str) -> np.ndarray:
    """Return numbers as colors.

    Args:
        values: Shape (H, W).
        low: Number at the lower end of the colors.
        high: Number at the upper end.
        colormap: Name that matplotlib knows.

    Returns:
        Shape (H, W, 3), uint8.
    """
    scaled = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    return (mpl.colormaps[colormap](scaled)[..., :3] * 255).round().astype(np.uint8)


def encode(
    pixels: np.ndarray,
    row_step: float = 1.0,
    labels: np.ndarray | None = None,
    palette: Sequence[Sequence[float]] = (),
    smooth: bool = True,
    lines: Sequence[Line] = (),
) -> bytes:
    """Return pixels, with structures filled and outlined over them, as PNG of the page's size.

    Args:
        pixels: Shape (H, W, 3), uint8.
        row_step: Distance of rows in distances of columns.
        labels: 0, or the number of the structure. Shape (H, W).
        palette: Colors of the structures 1, 2, ...; red, green and blue in [0, 1].
        smooth: Whether pixels are interpolated; what is no image should not be.
        lines: What is drawn over them.

    Returns:
        PNG.
    """
    height, width = pixels.shape[0] * row_step, float(pixels.shape[1])
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    resampling = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
    shown = np.asarray(Image.fromarray(pixels).resize(size, resampling), dtype=np.float32)
    if labels is not None and labels.any():
        layer = np.asarray(Image.fromarray(labels.astype(np.uint8)).resize(size, Image.Resampling.NEAREST))
        table = np.array([(0.0, 0.0, 0.0), *palette], dtype=np.float32) * 255
        weight = np.where(_outline(layer), 1.0, FILL * (layer > 0))[..., None]
        shown = shown * (1 - weight) + table[layer] * weight
    picture = Image.fromarray(shown.round().astype(np.uint8))
    for line in lines:
        _draw_line(picture, line, np.array(size) / (pixels.shape[1], pixels.shape[0]))
    stream = io.BytesIO()
    picture.quantize(256).save(stream, format="png", optimize=True)
    return stream.getvalue()


def _draw_line(picture: Image.Image, line: Line, scale: np.ndarray) -> None:
    draw = ImageDraw.Draw(picture)
    points = line.points * scale
    for start, end in itertools.pairwise(points):
        length = float(np.linalg.norm(end - start))
        # a whole line is one dash
        count = max(1, round(length / (2 * DASH))) if line.dashed else 1
        for k in range(count):
            share = np.array([k / count, (k + (0.5 if line.dashed else 1.0)) / count])
            draw.line([tuple(start + s * (end - start)) for s in share], fill=line.color, width=2)
    if line.dots:
        for x, y in points:
            draw.ellipse((x - DOT, y - DOT, x + DOT, y + DOT), fill=line.color, outline="black")


def _label_map(case: CaseMasks, grid: Grid, names: Sequence[str]) -> np.ndarray:
    labels = np.zeros(grid.shape, dtype=np.uint8)
    for number, name in enumerate(names, start=1):
        mask = case.masks.get(name)
        if mask is not None:
            labels[mask.window][mask.crop] = number
    return labels


def _outline(layer: np.ndarray) -> np.ndarray:
    """Pixels of structures beside a pixel of another kind, two deep."""
    padded = np.pad(layer, 2, mode="edge")
    inner = padded[2:-2, 2:-2]
    height, width = layer.shape
    shifts = ((0, 2), (1, 2), (3, 2), (4, 2), (2, 0), (2, 1), (2, 3), (2, 4))
    differs = [padded[y : y + height, x : x + width] != inner for y, x in shifts]
    return np.logical_or.reduce(differs) & (layer > 0)
