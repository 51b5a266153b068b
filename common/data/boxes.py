"""Boxes of organs in a scan: in memory, between voxel grids, and as a JSON file that other programs can read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ..files import write_text_atomically
from .problems import refusal

__all__ = [
    "MARGIN_GRID",
    "OrganBoxes",
    "ScanBoxes",
    "VoxelBox",
    "bounds_in_grid",
    "boxes_file",
    "boxes_of_labels",
    "read_boxes",
    "write_boxes",
]

FORMAT = "frugal-bundles boxes 1"
SPATIAL_DIMS = 3
HALF_VOXEL = 0.5
# Pixels along a slice in which MedLSAM and MedSAM give shifts of a box's sides.
MARGIN_GRID = 1024


@dataclass(frozen=True)
class VoxelBox:
    """A box along the axes of a voxel grid.

    Attributes:
        lower: First voxel per axis of the grid.
        upper: First voxel behind the box per axis (half-open), above `lower` on each.
        confidence: How much the box is to be trusted, in [0, 1]; 1 for boxes that a person drew.

    Raises:
        ValueError: If there are not three axes, or the box is empty on one.
    """

    lower: tuple[int, int, int]
    upper: tuple[int, int, int]
    confidence: float = 1.0

    def __post_init__(self) -> None:
        if len(self.lower) != SPATIAL_DIMS or len(self.upper) != SPATIAL_DIMS:
            raise ValueError(f"A box must have {SPATIAL_DIMS} axes; found lower {self.lower} and upper {self.upper}.")
        if any(low >= high for low, high in zip(self.lower, self.upper, strict=True)):
            raise ValueError(
                f"A box must hold a voxel on each axis, `lower` below `upper` (half-open); found lower {self.lower} "
                f"and upper {self.upper}. Leave out a part that is empty."
            )

    @classmethod
    def around(
        cls, lower: Sequence[float] | np.ndarray, upper: Sequence[float] | np.ndarray, confidence: float = 1.0
    ) -> VoxelBox:
        """Return the box whose faces are nearest to real ones, at least one voxel wide.

        Args:
            lower: Lower face per axis, where the face between the voxels i - 1 and i is at i.
            upper: Upper face per axis, not below `lower`.
            confidence: Confidence of the box.
        """
        low = np.floor(np.asarray(lower, dtype=float) + HALF_VOXEL).astype(int)
        high = np.floor(np.asarray(upper, dtype=float) + HALF_VOXEL).astype(int)
        thin = high <= low
        # The voxel that the middle of a thin box lies in.
        low[thin] = np.floor((np.asarray(lower) + np.asarray(upper))[thin] / 2).astype(int)
        high[thin] = low[thin] + 1
        return cls(_triple(low), _triple(high), confidence)

    @property
    def window(self) -> tuple[slice, slice, slice]:
        """The box as an index of an array of the grid; clip it to the grid first."""
        return tuple(slice(low, high) for low, high in zip(self.lower, self.upper, strict=True))  # type: ignore[return-value]

    def clipped(self, spatial_shape: Sequence[int]) -> VoxelBox | None:
        """Return the part of the box inside a grid, or None if there is none.

        Args:
            spatial_shape: Size per axis of the grid.
        """
        lower = _triple(max(low, 0) for low in self.lower)
        upper = _triple(min(high, size) for high, size in zip(self.upper, spatial_shape, strict=True))
        if any(low >= high for low, high in zip(lower, upper, strict=True)):
            return None
        return replace(self, lower=lower, upper=upper)

    def in_grid(self, affine: np.ndarray, other_affine: np.ndarray) -> VoxelBox:
        """Return the box of another grid around this one, its faces rounded to the nearest.

        Exact where the grids differ in the order and direction of their axes only.

        Args:
            affine: Voxel indices of this grid to mm. Shape (4, 4).
            other_affine: Voxel indices of the other grid to mm. Shape (4, 4).
        """
        return VoxelBox.around(*bounds_in_grid(self.lower, self.upper, affine, other_affine), self.confidence)

    def bounds_mm(self, affine: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return the least and greatest coordinate of the box's outer faces.

        Args:
            affine: Voxel indices of the grid to RAS mm. Shape (4, 4).

        Returns:
            Lower and upper bound per axis (right, anterior, superior) in mm. Where the grid is oblique, the box in mm
            encloses the box in voxels.
        """
        corners = _corners(np.asarray(self.lower, float), np.asarray(self.upper, float)) - HALF_VOXEL
        world_mm = corners @ affine[:3, :3].T + affine[:3, 3]
        return tuple(world_mm.min(0).tolist()), tuple(world_mm.max(0).tolist())


@dataclass(frozen=True)
class OrganBoxes:
    """Where one organ is in one scan.

    Attributes:
        organ: Name.
        label: Value of the organ in label maps, from 1.
        parts: One box around the whole organ, or one for each range of slices; none where it is not present.
        confidence: How much the localization is to be trusted, in [0, 1].
        present: Whether the organ is in the scan; a box of an absent organ is never segmented.
        note: Why the organ is taken for absent or doubtful; empty otherwise.

    Raises:
        ValueError: If the label is below 1, or an organ is present without a box.
    """

    organ: str
    label: int
    parts: tuple[VoxelBox, ...]
    confidence: float = 1.0
    present: bool = True
    note: str = ""

    def __post_init__(self) -> None:
        if self.label < 1:
            raise ValueError(f"The label of {self.organ!r} must be at least 1, as 0 is background; found {self.label}.")
        if self.present and not self.parts:
            raise ValueError(f"{self.organ!r} is present, so it must have a box; give one, or set present to false.")

    @property
    def whole(self) -> VoxelBox | None:
        """The smallest box around all parts; None where there is no part."""
        if not self.parts:
            return None
        lower = _triple(np.min([part.lower for part in self.parts], axis=0))
        upper = _triple(np.max([part.upper for part in self.parts], axis=0))
        return VoxelBox(lower, upper, self.confidence)


@dataclass(frozen=True, eq=False)
class ScanBoxes:
    """The boxes of one scan, in the grid of the scan as it was read, whatever its orientation.

    Attributes:
        case: Name of the scan.
        affine: Voxel indices of the grid to RAS mm. Shape (4, 4).
        spatial_shape: Size per axis of the grid.
        organs: One entry for each organ that was looked for.
    """

    case: str
    affine: np.ndarray
    spatial_shape: tuple[int, int, int]
    organs: tuple[OrganBoxes, ...]

    def in_grid(self, affine: np.ndarray, spatial_shape: Sequence[int]) -> ScanBoxes:
        """Return the boxes in another grid of the same scan, for example after `Orientationd`.

        Args:
            affine: Voxel indices of that grid to RAS mm. Shape (4, 4).
            spatial_shape: Size per axis of that grid.
        """
        if np.array_equal(affine, self.affine):
            return self
        organs = tuple(
            replace(organ, parts=tuple(part.in_grid(self.affine, affine) for part in organ.parts))
            for organ in self.organs
        )
        return ScanBoxes(self.case, np.asarray(affine, dtype=float), _triple(spatial_shape), organs)


def bounds_in_grid(
    lower: Sequence[float] | np.ndarray,
    upper: Sequence[float] | np.ndarray,
    affine: np.ndarray,
    other_affine: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds, in another grid, of the smallest box that encloses a box.

    Args:
        lower: Lower face per axis, where the face between the voxels i - 1 and i is at i.
        upper: Upper face per axis.
        affine: Voxel indices of the box's grid to mm; the identity for a box in mm (then without half voxels). Shape
            (4, 4).
        other_affine: Voxel indices of the other grid to mm. Shape (4, 4).

    Returns:
        Lower and upper face per axis of the other grid, as real numbers.
    """
    corners = _corners(np.asarray(lower, float), np.asarray(upper, float)) - HALF_VOXEL
    between = np.linalg.solve(other_affine, affine)
    moved = corners @ between[:3, :3].T + between[:3, 3] + HALF_VOXEL
    return moved.min(0), moved.max(0)


def boxes_of_labels(
    label_map: np.ndarray,
    affine: np.ndarray,
    label_names: Mapping[int, str],
    case: str,
    slice_axis: int | None = None,
) -> ScanBoxes:
    """Return the tight boxes of the organs of a label map: the truth that a localization is measured against.

    Args:
        label_map: Label of each voxel. Three axes, any order.
        affine: Voxel indices of the label map to RAS mm. Shape (4, 4).
        label_names: Name of each organ by its label.
        case: Name of the scan.
        slice_axis: Gives one part for each slice along this axis that the organ is on, its box tight on that slice;
            None gives one box around the whole organ.

    Returns:
        Boxes in the grid of the label map, one entry for each of `label_names`.
    """
    windows = ndimage.find_objects(label_map, max_label=max(label_names, default=0))
    organs = []
    for label, name in label_names.items():
        parts: tuple[VoxelBox, ...] = ()
        if (window := windows[label - 1]) is not None:
            mask = label_map[window] == label
            offset = np.asarray([side.start for side in window])
            if slice_axis is None:
                parts = (VoxelBox(_triple(offset), _triple(offset + mask.shape)),)
            else:
                parts = tuple(_slice_boxes(mask, offset, slice_axis))
        organs.append(OrganBoxes(name, label, parts, present=bool(parts), confidence=float(bool(parts))))
    return ScanBoxes(case, np.asarray(affine, dtype=float), _triple(label_map.shape), tuple(organs))


def boxes_file(folder: str | os.PathLike[str], case: str) -> Path:
    """Return the path of the boxes of a case in a folder of boxes.

    Args:
        folder: Folder that a localization wrote.
        case: Name of the case.
    """
    return Path(folder) / f"{case}_boxes.json"


def write_boxes(boxes: ScanBoxes, path: str | os.PathLike[str]) -> None:
    """Write boxes as JSON: each in voxels of the scan as read, and in RAS mm.

    Args:
        boxes: Boxes in the grid of the scan as it was read.
        path: File to write; it appears complete or not at all.
    """
    content = {
        "format": FORMAT,
        "case": boxes.case,
        "axes": "voxels: [lower, upper) along the axes of the image as stored; mm: right, anterior, superior",
        "spatial_shape": list(boxes.spatial_shape),
        "affine": np.asarray(boxes.affine, dtype=float).tolist(),
        "organs": [_organ_entry(organ, boxes.affine) for organ in boxes.organs],
    }
    write_text_atomically(json.dumps(content, indent=2) + "\n", Path(path))


def read_boxes(
    path: str | os.PathLike[str],
    affine: np.ndarray | None = None,
    spatial_shape: Sequence[int] | None = None,
) -> ScanBoxes:
    """Read boxes that `write_boxes`, another program or a person wrote.

    Required are `organs`, each with `organ`, `label` and `parts`, each part with `voxels` or `mm`. Boxes in mm, and
    files of another grid of the same scan, are turned into the grid asked for.

    Args:
        path: JSON file.
        affine: Voxel indices of the scan to RAS mm, shape (4, 4); None takes the file's.
        spatial_shape: Size per axis of the scan; None takes the file's.

    Returns:
        Boxes in the grid asked for. They may reach outside it.

    Raises:
        DatasetError: If there is no such file, or it breaks a rule; the message names file, rule and remedy.
    """
    file = Path(path)
    if not file.is_file():
        raise refusal(file, "must be a file of boxes", "nothing", "localize first, or give the right path")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise refusal(file, "must be JSON in UTF-8", str(error), "repair the file at this place") from error
    if not isinstance(content, dict) or not isinstance(content.get("organs"), list):
        raise refusal(
            file, "must be an object with the list `organs`", _kind(content), "see the README of medlsam for the form"
        )
    target = content.get("affine") if affine is None else affine
    shape = content.get("spatial_shape") if spatial_shape is None else spatial_shape
    if target is None or shape is None:
        raise refusal(file, "must have `affine` and `spatial_shape`", "none", "add them, or read it with its scan")
    target = np.asarray(target, dtype=float)
    file_affine = np.asarray(content.get("affine", target), dtype=float)
    if file_affine.shape != (4, 4):
        raise refusal(file, "must have an `affine` of 4 x 4 numbers", f"shape {file_affine.shape}", "correct it")
    organs = [
        _read_organ(f"{file} organs[{index}]", entry, file_affine, target)
        for index, entry in enumerate(content["organs"])
    ]
    doubled = {organ.label for organ in organs if [other.label for other in organs].count(organ.label) > 1}
    if doubled:
        raise refusal(file, "must name each label once", f"{sorted(doubled)} twice", "give its boxes as parts of one")
    return ScanBoxes(str(content.get("case", file.stem)), target, _triple(shape), tuple(organs))


def _slice_boxes(mask: np.ndarray, offset: np.ndarray, slice_axis: int) -> Iterator[VoxelBox]:
    """Tight boxes of a mask on each slice, shifted by an offset."""
    for number in np.flatnonzero(mask.any(axis=tuple(axis for axis in range(SPATIAL_DIMS) if axis != slice_axis))):
        lower, upper = np.empty(SPATIAL_DIMS, int), np.empty(SPATIAL_DIMS, int)
        lower[slice_axis], upper[slice_axis] = number, number + 1
        plane = mask.take(number, axis=slice_axis)
        for plane_axis, axis in enumerate(axis for axis in range(SPATIAL_DIMS) if axis != slice_axis):
            found = np.flatnonzero(plane.any(axis=1 - plane_axis))
            lower[axis], upper[axis] = found[0], found[-1] + 1
        yield VoxelBox(_triple(offset + lower), _triple(offset + upper))


def _organ_entry(organ: OrganBoxes, affine: np.ndarray) -> dict[str, Any]:
    whole = organ.whole
    return {
        "organ": organ.organ,
        "label": organ.label,
        "present": organ.present,
        "confidence": round(float(organ.confidence), 4),
        "note": organ.note,
        "box": None if whole is None else _box_entry(whole, affine),
        "parts": [_box_entry(part, affine) for part in organ.parts],
    }


def _box_entry(box: VoxelBox, affine: np.ndarray) -> dict[str, Any]:
    return {
        "voxels": [list(box.lower), list(box.upper)],
        "mm": [[round(value, 3) for value in bound] for bound in box.bounds_mm(affine)],
        "confidence": round(float(box.confidence), 4),
    }


def _read_organ(place: str, entry: Any, affine: np.ndarray, target: np.ndarray) -> OrganBoxes:
    try:
        parts = tuple(_read_box(part, affine, target) for part in entry["parts"])
        return OrganBoxes(
            str(entry["organ"]),
            int(entry["label"]),
            parts,
            float(entry.get("confidence", 1.0)),
            bool(entry.get("present", bool(parts))),
            str(entry.get("note", "")),
        )
    except (KeyError, TypeError, ValueError) as error:
        found = f"no {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        rule = "must have `organ`, `label` and `parts`, each part with `voxels` or `mm`"
        raise refusal(place, rule, found, "correct this entry") from error


def _read_box(entry: dict[str, Any], affine: np.ndarray, target: np.ndarray) -> VoxelBox:
    confidence = float(entry.get("confidence", 1.0))
    if "voxels" in entry:
        lower, upper = entry["voxels"]
        box = VoxelBox(_triple(lower), _triple(upper), confidence)
        return box if np.array_equal(affine, target) else box.in_grid(affine, target)
    world_mm = np.asarray(entry["mm"], dtype=float)
    if world_mm.shape != (2, SPATIAL_DIMS) or (world_mm[0] > world_mm[1]).any():
        raise ValueError(f"`mm` must be [[three lower], [three upper]], lower not above upper; found {entry['mm']}")
    # A box in mm is one in a grid of voxels of 1 mm whose faces lie at whole numbers.
    millimeters = np.eye(4)
    millimeters[:3, 3] = HALF_VOXEL
    return VoxelBox.around(*bounds_in_grid(world_mm[0], world_mm[1], millimeters, target), confidence)


def _corners(lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """The eight corners of a box, shape (8, 3)."""
    return np.stack(np.meshgrid(*zip(lower, upper, strict=True), indexing="ij"), axis=-1).reshape(-1, SPATIAL_DIMS)


def _triple(values: Iterable[Any]) -> tuple[int, int, int]:
    first, second, third = (int(value) for value in values)
    return first, second, third


def _kind(content: object) -> str:
    return f"an object with {', '.join(content) or 'nothing'}" if isinstance(content, dict) else type(content).__name__
