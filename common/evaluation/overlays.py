"""Pictures of where a prediction and its reference differ."""

from __future__ import annotations

import glob
import io
import logging
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..data.problems import DatasetError
from ..data.readers import case_name, read_volume
from .masks import CroppedMask, Grid, canonical
from .protocols import METRICS
from .scores import ScoreTable

logger = logging.getLogger(__name__)

# both, only in the reference, only in the prediction: told apart with any color vision
COLORS = {"both": (0.75, 0.75, 0.75), "missed": (0.10, 0.45, 0.90), "too much": (0.95, 0.50, 0.05)}
MARGIN_VOXELS = 12


def worst_cases(table: ScoreTable, metric: str, count: int) -> list[tuple[str, str]]:
    """Return the cases that are worst on average over their structures, each with its worst structure.

    Args:
        table: Scores.
        metric: Metric to go by.
        count: How many.

    Returns:
        Case and structure, the worst case first; cases without any score are left out.
    """
    losses = np.abs(table.case_means(metric) - METRICS[metric].best)
    order = [i for i in np.argsort(-np.nan_to_num(losses, nan=-1.0), kind="stable") if not np.isnan(losses[i])]
    found = []
    for i in order[:count]:
        of_structures = np.abs(table.values[metric][i] - METRICS[metric].best)
        found.append((table.cases[i], table.structures[int(np.nanargmax(of_structures))]))
    return found


def find_image(images: str | Path, case: str) -> Path | None:
    """Return the image of a folder that is named after a case, with or without nnU-Net's `_0000`.

    Args:
        images: Folder.
        case: Name of the case.
    """
    paths = [Path(path) for path in sorted(glob.glob(str(Path(images) / f"{glob.escape(case)}*")))]  # noqa: PTH207
    return next((path for path in paths if case_name(path) in (case, f"{case}_0000")), None)


def read_backdrop(path: Path | None, case: str, grid: Grid) -> np.ndarray | None:
    """Return intensities of a case's image; None, with a log entry, where it does not lie on the grid.

    Args:
        path: The image; None where there is none.
        case: Name of the case.
        grid: Grid of its masks.

    Returns:
        The first channel of a volume, the brightness of a picture, in the shape of the grid.
    """
    try:
        volume = None if path is None else read_volume(path)
    except DatasetError as error:
        logger.warning("No image is shown: %s", error)
        return None
    if volume is not None:
        array, image_grid = canonical(volume)
        if image_grid.coincides(grid):
            channels = array.reshape(*grid.shape, -1)
            return channels[..., 0] if len(grid.shape) == 3 else channels.mean(axis=-1)
    logger.warning("No image is shown for case %s: %s", case, f"{path} lies on another grid" if path else "none found")
    return None


def draw_disagreement(
    prediction: CroppedMask | None, reference: CroppedMask | None, grid: Grid, image: np.ndarray | None, title: str
) -> bytes:
    """Draw one structure in three planes through its greatest disagreement (in 2D: the image).

    Args:
        prediction: Predicted mask in `grid`; None where it is empty.
        reference: Reference in `grid`; None where it is empty.
        grid: Grid in RAS orientation; pictures with rows first.
        image: Intensities in the shape of the grid; None for a plain backdrop.
        title: Heading.

    Returns:
        PNG.
    """
    masks = [mask for mask in (prediction, reference) if mask is not None]
    window = tuple(slice(0, n) for n in grid.shape)
    if masks:
        window = tuple(
            slice(max(0, min(s.start for s in axis) - MARGIN_VOXELS), min(n, max(s.stop for s in axis) + MARGIN_VOXELS))
            for n, axis in zip(grid.shape, zip(*[mask.window for mask in masks], strict=True), strict=True)
        )
    empty = np.zeros([s.stop - s.start for s in window], dtype=bool)
    predicted = empty if prediction is None else prediction.within(window)
    true = empty if reference is None else reference.within(window)
    # 1 both, 2 missed, 3 too much
    kinds = (predicted & true) + 2 * (true & ~predicted) + 3 * (predicted & ~true).astype(np.uint8)
    backdrop = np.zeros(empty.shape, dtype=np.float32) if image is None else image[window].astype(np.float32)
    low, high = np.percentile(backdrop, [1, 99])
    palette = np.array([(0, 0, 0, 0), *[(*color, 0.55) for color in COLORS.values()]])
    planes = [(None, None)] if kinds.ndim == 2 else [(2, "axial"), (1, "coronal"), (0, "sagittal")]
    figure = Figure(figsize=(max(6.4, 3.2 * len(planes)), 3.9), layout="constrained")
    for panel, (axis, plane) in zip(figure.subplots(1, len(planes), squeeze=False)[0], planes, strict=True):
        aspect = 1.0
        shown, colored = backdrop, palette[kinds]
        if axis is not None:
            rest = [a for a in range(3) if a != axis]
            aspect = grid.spacing_mm[rest[1]] / grid.spacing_mm[rest[0]]
            index = int(np.argmax((kinds > 1).sum(axis=tuple(rest)) * 4096 + (kinds > 0).sum(axis=tuple(rest))))
            shown, colored = cut_plane(backdrop, axis, index), palette[cut_plane(kinds, axis, index)]
            panel.set_title(f"{plane} {window[axis].start + index}", fontsize=9)
        panel.imshow(shown, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=aspect)
        panel.imshow(colored, aspect=aspect, interpolation="nearest")
        panel.set_axis_off()
    figure.suptitle(title, fontsize=10, wrap=True)
    patches = [Patch(color=color, label=name) for name, color in COLORS.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return stream.getvalue()


def cut_plane(volume: np.ndarray, axis: int, index: int) -> np.ndarray:
    """Return a plane of a RAS volume as radiologists look at it: right or front on the left, head or front up.

    Args:
        volume: Shape (R, A, S).
        axis: Axis that the plane lies across.
        index: Where on it.

    Returns:
        Rows and columns.
    """
    return np.take(volume, index, axis=axis)[::-1].T[::-1]
