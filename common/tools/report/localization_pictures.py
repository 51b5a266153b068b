"""How MedLAM found an organ: from the start over what the regression expects to what the search takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...data.boxes import ScanBoxes, boxes_file, read_boxes
from ...data.problems import refusal
from ...data.readers import read_volume
from ...evaluation.html import legend, panels
from ...evaluation.masks import CroppedMask, Grid, canonical, read_case_masks
from ...evaluation.overlays import cut_plane
from ...inferers.localization import unpack_points
from ..pictures import PLANES, Line, encode, gray
from .cases import label_set_of, window_of
from .records import Run, numbers
from .replay import Replay

MAX_ORGANS = 3
FOUND, REFERENCE, REGRESSION, SEARCH = "#ff7f0e", "#1f9bff", "#ffe119", "#ff4de1"


@dataclass
class OrganSearch:
    """One organ in one scan, in voxels of the scan in RAS, of which the first reaches from 0 to 1.

    Attributes:
        found: Lower and upper corner of the box that was found. Shape (2, 3); None where there is none.
        reference: The same of the reference.
        paths: Start, expected place and place taken, for each extreme point. Shape (points, 3, 3).
    """

    found: np.ndarray | None = None
    reference: np.ndarray | None = None
    paths: np.ndarray = field(default_factory=lambda: np.zeros((0, 3, 3)))


def draw_localization(run: Run, replay: Replay) -> Iterator[str]:
    """Draw boxes and paths of organs in the case that is worst by mean IoU, or the first one.

    The boxes are those that the run has written; the paths are searched for again with its weights and templates.

    Args:
        run: The run.
        replay: The run, built again.

    Yields:
        HTML.

    Raises:
        DatasetError: If the image has no geometry.
    """
    rows = numbers(run.rows("boxes.csv"))
    names = [entry["case"] for entry in run.settings["datalist"]]
    index = names.index(_worst_case(rows) or names[0])
    files = run.settings["datalist"][index]
    array, grid = canonical(read_volume(files["image"]))
    if grid.affine is None:
        raise refusal(files["image"], "must have a geometry", "none", "localize in 3D scans")
    boxes = read_boxes(boxes_file(run.folder, names[index])).in_grid(grid.affine, grid.shape)
    searches = _searches(boxes, _paths(replay, index, grid.affine), _masks(run, files))
    yield (
        f"<p>Case {escape(names[index])}. A path leads from the start, the middle of some random voxels, to "
        "where the regression expects an extreme point, and from there to the place that is taken.</p>"
    )
    meanings = ("box found", "box of the reference", "path: from the start to what is expected", "path: the search")
    yield legend(dict(zip(meanings, (FOUND, REFERENCE, REGRESSION, SEARCH), strict=True)))
    for organ in _chosen_organs(rows, names[index], searches):
        pictures = _planes(array, grid, searches[organ], window_of(run.settings))
        yield f"<h4>{escape(organ)}</h4>" + panels(pictures, 3, 1)


def _worst_case(rows: list[dict[str, Any]]) -> str | None:
    scores: dict[str, list[float]] = {}
    for row in rows:
        if isinstance(row["iou"], float) and not np.isnan(row["iou"]):
            scores.setdefault(str(row["case"]), []).append(row["iou"])
    return min(scores, key=lambda case: float(np.mean(scores[case])), default=None)


def _chosen_organs(rows: list[dict[str, Any]], case: str, searches: Mapping[str, OrganSearch]) -> list[str]:
    """The worst, the middle and the best organ by IoU; without scores the first ones."""
    drawn = [name for name, search in searches.items() if search.found is not None]
    scores = {str(r["organ"]): r["iou"] for r in rows if r["case"] == case and isinstance(r["iou"], float)}
    ranked = sorted((n for n in drawn if not np.isnan(scores.get(n, np.nan))), key=lambda name: scores[name])
    if len(ranked) <= MAX_ORGANS:
        return (ranked or drawn)[:MAX_ORGANS]
    return [ranked[0], ranked[len(ranked) // 2], ranked[-1]]


def _masks(run: Run, files: Mapping[str, str]) -> Mapping[str, CroppedMask | None]:
    label_set = label_set_of(run)
    if "label" not in files or label_set is None:
        return {}
    return read_case_masks(Path(files["label"]), label_set).masks


def _paths(replay: Replay, index: int, affine: np.ndarray) -> dict[str, np.ndarray]:
    """Search again. Paths by organ, in voxels of the scan in RAS, shape (points, 3, 3)."""
    inferer, network, image = replay["inferer"], replay["network"], replay["dataset"][index]["image"]
    network.eval()
    start = inferer.draw_starts(torch.as_tensor(image.as_tensor())).float().mean(dim=0)
    packed = inferer(image[None], network)[0]
    to_scan = np.linalg.inv(affine) @ np.asarray(image.affine, dtype=float)
    paths = {}
    for template, found in zip(inferer.templates, unpack_points(packed, inferer.templates), strict=True):
        expected, voxels = (points.reshape(-1, 3).float() for points in (found.expected, found.voxels))
        path = torch.stack([start.expand_as(expected), expected, voxels], dim=1).numpy()
        # the center of the first voxel lies at 0 there, at 0.5 here
        paths[template.organ] = path @ to_scan[:3, :3].T + to_scan[:3, 3] + 0.5
    return paths


def _searches(
    boxes: ScanBoxes, paths: Mapping[str, np.ndarray], masks: Mapping[str, CroppedMask | None]
) -> dict[str, OrganSearch]:
    searches = {}
    for organ in boxes.organs:
        search = searches[organ.organ] = OrganSearch()
        if organ.present and organ.whole is not None:
            search.found = np.array([organ.whole.lower, organ.whole.upper], dtype=float)
        mask = masks.get(organ.organ)
        if mask is not None:
            search.reference = np.array([[s.start for s in mask.window], [s.stop for s in mask.window]], dtype=float)
        if organ.organ in paths:
            search.paths = paths[organ.organ]
    return searches


def _planes(
    array: np.ndarray, grid: Grid, search: OrganSearch, window: tuple[float, float] | None
) -> Iterator[tuple[bytes, str]]:
    corners = search.found if search.reference is None else search.reference
    if corners is None:
        return
    center = np.clip(corners.mean(axis=0).astype(int), 0, np.array(grid.shape) - 1)
    low, high = np.percentile(array, (1, 99)) if window is None else window
    for axis, name in PLANES.items():
        columns, rows = (a for a in range(3) if a != axis)
        size = np.array([grid.shape[columns], grid.shape[rows]], dtype=float)
        # as `cut_plane` turns them; what lies outside of the scan is drawn at its border
        paths = np.clip(size - search.paths[..., [columns, rows]], 0, size)
        lines = [Line(path[:2], REGRESSION) for path in paths]
        lines += [Line(path[1:], SEARCH, dots=True) for path in paths]
        for box, color in ((search.reference, REFERENCE), (search.found, FOUND)):
            if box is not None:
                (x, y), (end_x, end_y) = np.clip(size - box[:, [columns, rows]], 0, size)
                sides = np.array([(x, y), (end_x, y), (end_x, end_y), (x, end_y), (x, y)])
                lines.append(Line(sides, color, dashed=color == REFERENCE))
        pixels = gray(cut_plane(array.reshape(grid.shape), axis, int(center[axis])), low, high)
        yield encode(pixels, grid.spacing_mm[rows] / grid.spacing_mm[columns], lines=lines), name
