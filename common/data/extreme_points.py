"""Six extreme points of an organ: from a label map, from a JSON file, from and to Slicer's Markups."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..files import write_text_atomically
from .boxes import ScanBoxes
from .problems import DatasetError, Problem, refusal

__all__ = [
    "SIDES",
    "cut_sides",
    "extreme_points_of_mask",
    "grid_sides",
    "read_extreme_points",
    "slab_points_of_mask",
    "write_box_markups",
    "write_extreme_points",
    "write_point_markups",
]

# Ends of the axes (superior, anterior, left): the lower ends, then the upper ones.
SIDES = ("inferior", "posterior", "right", "superior", "anterior", "left")
AXCODES = "SAL"
_ENDS = dict(zip("IPRSAL", SIDES, strict=True))
_OPPOSITE = dict(zip("IPRSAL", "SALIPR", strict=True))
_RAS_FROM_LPS = np.array([-1.0, -1.0, 1.0])
MARKUPS_SCHEMA = (
    "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/"
    "markups-schema-v1.0.3.json#"
)


def grid_sides(affine: np.ndarray) -> list[int]:
    """Return which of `SIDES` the ends of a grid's axes are, the lower ends first, then the upper ones.

    Args:
        affine: Voxel indices to RAS mm. Shape (4, 4).
    """
    upper = nib.aff2axcodes(affine)
    names = [_ENDS[_OPPOSITE[code]] for code in upper] + [_ENDS[code] for code in upper]
    return [SIDES.index(name) for name in names]


def extreme_points_of_mask(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return where an organ ends on its six sides.

    As MedLSAM's code (its localization stage): on the outermost slice of a side the middle one of the organ's voxels in
    raster order, in the axes (superior, anterior, left), so that the point lies on the organ whatever its shape. Here
    the point is on the outer face of that voxel, where a person would put it, and the label map is not resampled.

    Args:
        mask: The organ's voxels, in any orientation. Shape (X, Y, Z), bool, not empty.
        affine: Voxel indices to RAS mm. Shape (4, 4).

    Returns:
        Points in RAS mm in the order of `SIDES`. Shape (6, 3).
    """
    turned, turned_affine = _turn(mask, affine)
    return _points(turned, turned_affine, 0, turned.shape[0])


def slab_points_of_mask(mask: np.ndarray, affine: np.ndarray, num_slabs: int) -> np.ndarray:
    """Return the extreme points of equal slabs of an organ along the body.

    MedLSAM's sub-patch localization: the slabs share the organ's height, and each has six extreme points of its own, of
    which the lower and upper lie on its first and last slice that holds any of the organ.

    Args:
        mask: The organ's voxels, in any orientation. Shape (X, Y, Z), bool, not empty.
        affine: Voxel indices to RAS mm. Shape (4, 4).
        num_slabs: Number of slabs, at most the number of slices with the organ.

    Returns:
        Points in RAS mm, slabs from the lowest up, in the order of `SIDES`. Shape (num_slabs, 6, 3).
    """
    turned, turned_affine = _turn(mask, affine)
    slices = np.flatnonzero(turned.any(axis=(1, 2)))
    # of the slices with the organ, so that no slab is empty where it has a gap
    shares = np.array_split(slices, num_slabs)
    return np.stack([_points(turned, turned_affine, int(share[0]), int(share[-1]) + 1) for share in shares])


def cut_sides(mask: np.ndarray, affine: np.ndarray) -> list[str]:
    """Return the sides on which an organ reaches the border of the scan, so that its extreme point there means nothing.

    Args:
        mask: The organ's voxels, in any orientation. Shape (X, Y, Z), bool.
        affine: Voxel indices to RAS mm. Shape (4, 4).
    """
    turned, _ = _turn(mask, affine)
    lower = [bool(turned.take(0, axis).any()) for axis in range(3)]
    upper = [bool(turned.take(-1, axis).any()) for axis in range(3)]
    return [side for side, is_cut in zip(SIDES, lower + upper, strict=True) if is_cut]


def _turn(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a view of a mask in the axes (superior, anterior, left), and its affine."""
    codes = nib.orientations.axcodes2ornt(tuple(AXCODES))
    turn = nib.orientations.ornt_transform(nib.io_orientation(affine), codes)
    turned = nib.orientations.apply_orientation(mask, turn)
    return turned, np.asarray(affine) @ nib.orientations.inv_ornt_aff(turn, mask.shape)


def _points(mask: np.ndarray, affine: np.ndarray, first: int, stop: int) -> np.ndarray:
    slab = mask[first:stop]
    points = np.zeros((6, 3))
    for axis in range(3):
        found = np.flatnonzero(slab.any(axis=tuple(other for other in range(3) if other != axis)))
        for end, (index, step) in enumerate(((found[0], -0.5), (found[-1], 0.5))):
            on_slice = np.argwhere(slab.take(index, axis))
            point = np.insert(on_slice[len(on_slice) // 2].astype(float), axis, index + step)
            points[3 * end + axis] = point + np.array([first, 0, 0])
    return points @ affine[:3, :3].T + affine[:3, 3]


def write_extreme_points(points_mm: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write extreme points as the JSON file that `read_extreme_points` reads.

    Args:
        points_mm: Organ to points in RAS mm in the order of `SIDES`, shape (6, 3).
        path: File to write.
    """
    organs = {
        organ: {side: [round(float(v), 3) for v in point] for side, point in zip(SIDES, points, strict=True)}
        for organ, points in points_mm.items()
    }
    content = {"coordinate_system": "RAS", "unit": "mm", "organs": organs}
    write_text_atomically(json.dumps(content, indent=2) + "\n", Path(path))


def read_extreme_points(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read extreme points of organs in a scan.

    Either `{"organs": {"liver": {"inferior": [R, A, S], "posterior": ..., "right": ..., "superior": ..., "anterior":
    ..., "left": ...}}}` in RAS mm, or a point list that 3D Slicer saved (.mrk.json, LPS or RAS): its control points are
    named after the organ, six each ("liver superior", ..., or "liver-1", ...); without sides, which is which follows
    from where they are.

    Args:
        path: The file.

    Returns:
        Organ to points in RAS mm in the order of `SIDES`, shape (6, 3).

    Raises:
        DatasetError: If there is no such file, or it is of another form; the message names every broken rule.
    """
    file = Path(path)
    if not file.is_file():
        raise refusal(file, "must be a file of extreme points", "nothing", "correct the path in dataset.json")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise refusal(file, "must be JSON in UTF-8", str(error), "repair the file at this place") from error
    if isinstance(content, dict) and isinstance(content.get("markups"), list):
        return _from_markups(file, content["markups"])
    if not isinstance(content, dict) or not isinstance(content.get("organs"), dict) or not content["organs"]:
        found = f"an object with {', '.join(content)}" if isinstance(content, dict) else type(content).__name__
        raise refusal(file, "must have `organs` or Slicer's `markups`", found, "see the README of medlsam for the form")
    problems = [p for organ, sides in content["organs"].items() for p in _check_sides(file, organ, sides)]
    if problems:
        raise DatasetError(problems)
    return {
        str(organ): np.array([sides[side] for side in SIDES], dtype=float) for organ, sides in content["organs"].items()
    }


def _check_sides(file: Path, organ: str, sides: Any) -> list[Problem]:
    place = f"{file} {organ}"
    if not isinstance(sides, dict) or set(sides) != set(SIDES):
        found = ", ".join(sides) if isinstance(sides, dict) else str(sides)
        return [Problem(place, f"must have the points {', '.join(SIDES)}", found, "add or rename points")]
    wrong = [side for side in SIDES if not _is_point(sides[side])]
    if wrong:
        found = f"{wrong[0]} {sides[wrong[0]]}"
        return [Problem(place, "must have three numbers a point, RAS in mm", found, "correct this point")]
    points = np.array([sides[side] for side in SIDES], dtype=float)
    # RAS mm along (superior, anterior, left)
    along = points[:, [2, 1, 0]] * [1, 1, -1]
    problems = []
    # Nothing is asked of other points: in a tilted scan one of them may lie beyond the end of the organ.
    for axis in range(3):
        low, high = along[axis, axis], along[3 + axis, axis]
        if low >= high:
            rule = f"must have its {SIDES[axis]} point on the {SIDES[axis]} side of its {SIDES[3 + axis]} one"
            found = f"{SIDES[axis]} {sides[SIDES[axis]]}, {SIDES[3 + axis]} {sides[SIDES[3 + axis]]}"
            problems.append(Problem(place, rule, found, "check the points, and that they are RAS, not LPS"))
    return problems


def _is_point(value: Any) -> bool:
    is_triple = isinstance(value, list) and len(value) == 3
    return is_triple and all(isinstance(v, (int, float)) and np.isfinite(v) for v in value)


def _from_markups(file: Path, markups: list[Any]) -> dict[str, np.ndarray]:
    found: dict[str, list[np.ndarray]] = {}
    named: dict[str, dict[str, np.ndarray]] = {}
    for markup in markups:
        factor = np.ones(3) if markup.get("coordinateSystem", "LPS") == "RAS" else _RAS_FROM_LPS
        for control in markup.get("controlPoints", []):
            if not _is_point(control.get("position")):
                raise refusal(file, "must have a position for each point", str(control), "place or delete this point")
            organ, side = _split_label(str(control.get("label", "")))
            found.setdefault(organ, []).append(np.array(control["position"], dtype=float) * factor)
            named.setdefault(organ, {})[side] = found[organ][-1]
    wrong = {organ: len(points) for organ, points in found.items() if len(points) != len(SIDES) or not organ}
    if wrong or not found:
        shown = ", ".join(f"{count} of {organ!r}" for organ, count in wrong.items()) or "no point"
        remedy = 'label them "liver superior" or "liver-1", ...; six for each organ'
        raise refusal(file, "must have six points named after each organ", shown, remedy)
    return {
        organ: np.array([named[organ][side] for side in SIDES])
        if set(named[organ]) == set(SIDES)
        else _order_points(file, organ, np.array(points))
        for organ, points in found.items()
    }


def _split_label(label: str) -> tuple[str, str]:
    """Split a control point's label into the organ, and the side or the number at its end."""
    head, separator, tail = label.strip().replace("-", " ").rpartition(" ")
    if separator and (tail.isdigit() or tail.lower() in SIDES):
        return head.strip(), tail.lower()
    return label.strip(), ""


def _order_points(file: Path, organ: str, points: np.ndarray) -> np.ndarray:
    along = points[:, [2, 1, 0]] * [1, 1, -1]
    order = [*along.argmin(axis=0).tolist(), *along.argmax(axis=0).tolist()]
    if len(set(order)) != len(SIDES):
        doubled = next(SIDES[i] for i, index in enumerate(order) if order.index(index) != i)
        rule = "must have a point of its own on each of six sides"
        raise refusal(f"{file} {organ}", rule, f"one point twice, also as {doubled}", "move the points to the ends")
    return points[order]


def write_point_markups(points_mm: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> None:
    """Write extreme points as a point list that 3D Slicer opens, labelled "<organ> <side>".

    Args:
        points_mm: Organ to points in RAS mm in the order of `SIDES`, shape (6, 3).
        path: File to write, ending in `.mrk.json`.
    """
    controls = [
        {"id": str(number), "label": label, "position": [round(float(v), 3) for v in point * _RAS_FROM_LPS]}
        for number, (label, point) in enumerate(
            [(f"{o} {side}", p) for o, points in points_mm.items() for side, p in zip(SIDES, points, strict=True)], 1
        )
    ]
    _write_markup({"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": controls}, path)


def write_box_markups(boxes: ScanBoxes, folder: str | os.PathLike[str]) -> list[Path]:
    """Write the box of each present organ as a region that 3D Slicer opens, one file each, as Slicer has it.

    Args:
        boxes: Boxes in the grid of the scan.
        folder: Where to write `<case>_<organ>.mrk.json`.

    Returns:
        The files.
    """
    files = []
    matrix = np.asarray(boxes.affine, dtype=float)
    spacing_mm = np.linalg.norm(matrix[:3, :3], axis=0)
    for organ in boxes.organs:
        whole = organ.whole
        if not organ.present or whole is None:
            continue
        lower, upper = np.array(whole.lower), np.array(whole.upper)
        center = (matrix[:3, :3] @ ((lower + upper - 1) / 2) + matrix[:3, 3]) * _RAS_FROM_LPS
        directions = matrix[:3, :3] / spacing_mm * _RAS_FROM_LPS[:, None]
        region = {
            "type": "ROI",
            "coordinateSystem": "LPS",
            "roiType": "Box",
            "center": center.round(3).tolist(),
            "orientation": directions.round(6).ravel().tolist(),
            "size": ((upper - lower) * spacing_mm).round(3).tolist(),
            "controlPoints": [
                {"id": "1", "label": f"{organ.organ} ({organ.confidence:.2f})", "position": center.round(3).tolist()}
            ],
        }
        files.append(Path(folder) / f"{boxes.case}_{organ.organ}.mrk.json")
        _write_markup(region, files[-1])
    return files


def _write_markup(markup: dict[str, Any], path: str | os.PathLike[str]) -> None:
    content = {"@schema": MARKUPS_SCHEMA, "markups": [{"coordinateUnits": "mm", **markup}]}
    write_text_atomically(json.dumps(content, indent=2) + "\n", Path(path))
