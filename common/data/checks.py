"""Look at every image of a data list before the first iteration, and say everything that is wrong with it."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from monai.utils import ensure_tuple
from nibabel.orientations import aff2axcodes
from tqdm import tqdm

from .problems import DatasetError, Problem, refusal
from .readers import GEOMETRY_TOLERANCE_MM, Volume, displacement_mm, image_suffix, load_itk, read_volume
from .screening import mark_bad_cases
from .scribbles import ScribbleMode, coarsest_axis, conversion_table, find_scribble_problems

__all__ = ["CaseSummary", "check_datalist", "inspect_datalist"]

logger = logging.getLogger(__name__)

IMAGE = "image"
SCRIBBLE = "scribble"
BLOCK_VOXELS = 1 << 22  # voxels looked at together, which bounds the memory beside the image's own
MAX_LISTED = 8
MAX_FLOAT = float(np.finfo(np.float32).max)


@dataclass
class CaseSummary:
    """What a case that breaks no rule contains.

    Attributes:
        case: Name.
        spatial_shape: Size per spatial axis.
        spacing_mm: Voxel size per spatial axis; `None` where the format has no geometry.
        intensity_range: Least and greatest value of the image, in its own unit.
        label_voxels: Voxels per label value, of a scribble per class; empty where no annotation was asked for.
        warnings: What can be read but is doubtful.
    """

    case: str
    spatial_shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] | None = None
    intensity_range: tuple[float, float] | None = None
    label_voxels: dict[int, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Rules:
    """The arguments of `check_datalist` that concern one case."""

    keys: tuple[str, ...]
    num_classes: int | None
    spatial_dims: int
    in_channels: int
    ignore_label: int | None
    tolerance_mm: float
    scribble_mode: ScribbleMode


def check_datalist(
    datalist: Sequence[Mapping[str, Any]],
    keys: str | Sequence[str] = ("image", "label"),
    num_classes: int | None = None,
    spatial_dims: int = 3,
    in_channels: int = 1,
    ignore_label: int | None = None,
    tolerance_mm: float = GEOMETRY_TOLERANCE_MM,
    num_workers: int | None = None,
    enabled: bool = True,
    scribble_mode: ScribbleMode = "user",
    isolate: bool = False,
) -> list[dict[str, Any]]:
    """Return the same list if every case can be used, else say everything that is wrong with it.

    Each file is read once, as `LoadImaged` will read it: it exists, opens, is complete, has `spatial_dims` axes and
    `in_channels` channels and finite values; annotations have the size and the geometry of the image, and whole
    numbers of the classes. A scribble has strokes, some of them background, and is no mask. What is doubtful but usable
    is logged as a warning.

    Args:
        datalist: Cases with paths, as `load_datalist` gives them.
        keys: What to check: `image` as intensities, `scribble` as strokes, every other key as a label map.
        num_classes: Labels must lie in [0, num_classes); `None` checks only that they are whole numbers from 0.
        spatial_dims: 2 or 3.
        in_channels: Channels of an image (over all files, where it is a list of channel files).
        ignore_label: One more value that label maps may hold, such as 255 for what is unknown.
        tolerance_mm: How far apart image and annotation may put the same voxel, anywhere in the field of view.
        num_workers: Cases read at the same time, each in memory once; `None` takes the CPUs there are, at most 4.
        enabled: `False` returns the list unread, for data that was checked before, or on ranks other than the first.
        scribble_mode: How scribble files are written; see `common.data.scribbles.conversion_table`.
        isolate: Return cases that break a rule, too, with what is wrong under the key `failure`, so that the others can
            be run.

    Returns:
        The cases as given.

    Raises:
        DatasetError: If the list is empty, or any case breaks a rule and is not isolated; the message has one line for
            each problem, with file, rule, found value and remedy.
        ValueError: If `spatial_dims` is neither 2 nor 3, or scribbles are checked and `scribble_mode` is unknown or
            `num_classes` missing.
    """
    cases = [dict(case) for case in datalist]
    if enabled:
        try:
            inspect_datalist(
                cases,
                keys,
                num_classes,
                spatial_dims,
                in_channels,
                ignore_label,
                tolerance_mm,
                num_workers,
                scribble_mode,
            )
        except DatasetError as error:
            if not isolate:
                raise
            return mark_bad_cases(cases, error)
    return cases


def inspect_datalist(
    datalist: Sequence[Mapping[str, Any]],
    keys: str | Sequence[str] = ("image", "label"),
    num_classes: int | None = None,
    spatial_dims: int = 3,
    in_channels: int = 1,
    ignore_label: int | None = None,
    tolerance_mm: float = GEOMETRY_TOLERANCE_MM,
    num_workers: int | None = None,
    scribble_mode: ScribbleMode = "user",
) -> list[CaseSummary]:
    """Check every case and say what it contains; the arguments and errors are those of `check_datalist`.

    Returns:
        One summary a case, in order.

    Raises:
        DatasetError: See `check_datalist`.
        ValueError: See `check_datalist`.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3; found {spatial_dims}.")
    if not datalist:
        raise refusal("datalist", "must have a case", "an empty list", "check dataset_dir and section")
    rules = _Rules(
        ensure_tuple(keys), num_classes, spatial_dims, in_channels, ignore_label, tolerance_mm, scribble_mode
    )
    if SCRIBBLE in rules.keys:
        if num_classes is None:
            raise ValueError("num_classes must be given to check scribbles: it tells which value is background.")
        conversion_table(scribble_mode, num_classes)
    if any(_needs_itk(case, rules.keys) for case in datalist):
        load_itk()
    start_s = time.perf_counter()
    num_workers = num_workers or min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(num_workers) as pool:
        inspections = pool.map(lambda case: _inspect_case(case, rules), datalist)
        # A check of a second shows no bar.
        results = list(tqdm(inspections, "Checking data", len(datalist), unit="case", delay=1))
    problems = [problem for found, _ in results for problem in found]
    summaries = [summary for _, summary in results]
    for summary in summaries:
        for warning in summary.warnings:
            logger.warning(warning)
    if problems:
        raise DatasetError(problems)
    logger.info("Checked %d cases in %.1f s: no problem", len(summaries), time.perf_counter() - start_s)
    return summaries


def _needs_itk(case: Mapping[str, Any], keys: tuple[str, ...]) -> bool:
    paths = [path for key in keys for path in ensure_tuple(case.get(key, ()))]
    return any(image_suffix(path) in (None, ".mha", ".mhd", ".nrrd") for path in paths)


def _inspect_case(case: Mapping[str, Any], rules: _Rules) -> tuple[list[Problem], CaseSummary]:
    """Return every problem of a case, and what it contains."""
    problems: list[Problem] = []
    summary = CaseSummary(str(case.get("case", case.get(IMAGE, "a case without name"))))
    reference: tuple[str, Volume] | None = None
    for key in rules.keys:
        if key not in case:
            found = ", ".join(f"`{k}`" for k in case) or "nothing"
            problems.append(Problem(summary.case, f"must have `{key}`", found, f"add it, or leave {key!r} out of keys"))
            continue
        paths = ensure_tuple(case[key])
        volumes: list[Volume] = []
        for path in paths:
            try:
                volume = read_volume(path)
            except DatasetError as error:
                problems += error.problems
                continue
            problems += _check_rank(path, volume, rules)
            problems += _check_values(path, volume, rules, summary, key)
            volume.array = np.empty(0)  # from here on the geometry is enough
            if reference is None:
                reference = (path, volume)
                summary.spatial_shape, summary.spacing_mm = volume.spatial_shape, volume.spacing_mm
            else:
                problems += _check_geometry(path, volume, *reference, rules)
            summary.warnings += [f"{path}: {warning}" for warning in volume.warnings]
            volumes.append(volume)
        if len(volumes) == len(paths):
            problems += _check_channels(paths, volumes, rules.in_channels if key == IMAGE else 1)
    return problems, summary


def _check_rank(path: str, volume: Volume, rules: _Rules) -> Iterator[Problem]:
    """Find a volume where slices are wanted, or the reverse."""
    if len(volume.spatial_shape) != rules.spatial_dims:
        found = f"{len(volume.spatial_shape)} ({_extents(volume.spatial_shape)})"
        remedy = "use 3D volumes or DICOM series" if rules.spatial_dims == 3 else "use 2D images, one slice a file"
        yield Problem(path, f"must have {rules.spatial_dims} spatial axes", found, remedy)


def _check_channels(paths: tuple[str, ...], volumes: list[Volume], expected: int) -> Iterator[Problem]:
    """Find another number of channels than the network takes."""
    num_channels = sum(volume.num_channels for volume in volumes)
    if num_channels != expected:
        rule = f"must have {expected} channel" + ("s" if expected > 1 else "")
        remedy = "convert it (RGB to gray, one time point of a series), or set in_channels if it is an image"
        yield Problem(paths[0], rule, f"{num_channels} channels or time points", remedy)


def _check_geometry(path: str, volume: Volume, other_path: str, other: Volume, rules: _Rules) -> Iterator[Problem]:
    """Find an annotation (or channel) that does not lie on its image."""
    name = os.path.basename(other_path)  # noqa: PTH119 - a DICOM folder may end with a slash
    if volume.spatial_shape != other.spatial_shape:
        found = f"{_extents(volume.spatial_shape)} against {_extents(other.spatial_shape)}"
        yield Problem(path, f"must have the size of {name}", found, "resample it to the image, or pair the right files")
    elif volume.affine is not None and other.affine is not None and rules.spatial_dims == 3:
        shift_mm = displacement_mm(volume.affine, other.affine, volume.spatial_shape)
        if shift_mm > rules.tolerance_mm:
            found = f"voxels up to {shift_mm:.4g} mm apart ({_geometry(volume)} against {_geometry(other)})"
            remedy = "save it again with the affine of the image if they fit voxel by voxel, else resample it"
            yield Problem(path, f"must lie where {name} lies, within {rules.tolerance_mm:g} mm", found, remedy)


def _check_values(path: str, volume: Volume, rules: _Rules, summary: CaseSummary, key: str) -> Iterator[Problem]:
    """Find values that are not numbers or no labels, and note the range of an image and the voxels per label."""
    array = volume.array
    num_bad = 0
    if array.dtype.kind == "f":  # `LoadImaged` gives 32 bits, where larger numbers are infinite
        num_bad = sum(block.size - int((np.abs(block) <= MAX_FLOAT).sum()) for block in _blocks(array))
    if num_bad:
        found = f"NaN, infinity or more than {MAX_FLOAT:.2g} in {_voxels(num_bad)} of {array.size:,}"
        yield Problem(path, "must be finite", found, "replace them (numpy.nan_to_num), or remove the case")
    elif key == SCRIBBLE:
        yield from _check_scribble(path, volume, rules, summary)
    elif key != IMAGE:
        yield from _check_labels(path, array, rules, summary)
    elif volume.is_palette:
        yield Problem(path, "must hold intensities", "indices into a palette", "convert it to grayscale or RGB")
    else:
        low, high = summary.intensity_range or (np.inf, -np.inf)
        for block in _blocks(array):
            low, high = min(low, float(block.min())), max(high, float(block.max()))
        summary.intensity_range = (low, high)


def _check_labels(path: str, array: np.ndarray, rules: _Rules, summary: CaseSummary) -> Iterator[Problem]:
    """Find label values that are fractions or outside the classes, and count the voxels of each."""
    values = _count_values(array)
    fractions = [value for value in values if value != round(value)]
    if fractions:
        found = f"fractions such as {fractions[0]:.4g} in {_voxels(sum(values[f] for f in fractions))}"
        remedy = "threshold probabilities, and resample labels by nearest neighbor"
        yield Problem(path, "must hold whole numbers", found, remedy)
        return
    counts = {int(value): count for value, count in values.items()}
    upper = np.inf if rules.num_classes is None else rules.num_classes
    outside = {v: n for v, n in counts.items() if not 0 <= v < upper and v != rules.ignore_label}
    if outside:
        rule = "must hold labels " + ("from 0" if rules.num_classes is None else f"in [0, {rules.num_classes})")
        rule += "" if rules.ignore_label is None else f" or {rules.ignore_label}"
        some = ", ".join(map(str, list(outside)[:MAX_LISTED]))
        some += f" and {len(outside) - MAX_LISTED} more values" if len(outside) > MAX_LISTED else ""
        found = f"{some} in {_voxels(sum(outside.values()))}"
        lossy = str(path).lower().endswith((".jpg", ".jpeg"))
        remedy = "threshold it and save it as PNG, as JPEG changes labels" if lossy else "map them, or set num_classes"
        yield Problem(path, rule, found, remedy)
    summary.label_voxels = counts


def _check_scribble(path: str, volume: Volume, rules: _Rules, summary: CaseSummary) -> Iterator[Problem]:
    """Find what keeps a scribble from being one, and count the voxels of each class."""
    if volume.num_channels != 1 or rules.num_classes is None:
        return  # the channels are reported elsewhere
    slice_axis = -1 if volume.affine is None else coarsest_axis(volume.affine)
    counts = _count_values(volume.array)
    problems, doubts, summary.label_voxels = find_scribble_problems(
        path, volume.array, counts, rules.scribble_mode, rules.num_classes, slice_axis
    )
    summary.warnings += [f"{path}: {doubt}" for doubt in doubts]
    yield from problems


def _count_values(array: np.ndarray) -> dict[float, int]:
    """Count the voxels of each value, in order of the values."""
    totals: Counter[float] = Counter()
    for block in _blocks(array):
        low, high = float(block.min()), float(block.max())
        small = low >= 0 and high < np.iinfo(np.uint16).max
        if small and (block.dtype.kind in "bu" or np.array_equal(block, np.rint(block))):
            counts = np.bincount(block.astype(np.uint16))  # ten times as fast as sorting
            values = np.flatnonzero(counts)
            totals.update(dict(zip(values.tolist(), counts[values].tolist(), strict=True)))
        else:
            values, counts = np.unique(block, return_counts=True)
            totals.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
    return dict(sorted(totals.items()))


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield all values in pieces of bounded size."""
    flat = array.ravel(order="K")
    for start in range(0, flat.size, BLOCK_VOXELS):
        yield flat[start : start + BLOCK_VOXELS]


def _voxels(count: int) -> str:
    return f"{count:,} voxel" + ("s" if count != 1 else "")


def _extents(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _geometry(volume: Volume) -> str:
    """Describe an affine: orientation, spacing, position of the first voxel."""
    if volume.affine is None or volume.spacing_mm is None:
        return "no geometry"
    axes = "".join(code or "?" for code in aff2axcodes(volume.affine))
    spacing = " x ".join(f"{s:.4g}" for s in volume.spacing_mm)
    origin = ", ".join(f"{x:.4g}" for x in volume.affine[:3, 3])
    return f"{axes}, {spacing} mm, origin {origin}"
