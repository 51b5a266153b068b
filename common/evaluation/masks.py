"""The masks of one case, from a label map, a multi-channel file, or one file per structure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from nibabel.affines import voxel_sizes
from nibabel.orientations import aff2axcodes, apply_orientation, inv_ornt_aff, io_orientation
from scipy.ndimage import affine_transform

from ..data.photographs import read_mask
from ..data.problems import refusal
from ..data.readers import GEOMETRY_TOLERANCE_MM, Volume, case_name, displacement_mm, image_suffix, read_volume
from ..metrics.windows import joint_window, label_windows, mask_window
from .structures import MAX_LABEL, LabelSet, Structure

# Folder inside a case's folder that AbdomenAtlas puts its files into.
INNER_FOLDER = "segmentations"


@dataclass(frozen=True)
class Grid:
    """Where voxels are.

    Attributes:
        shape: Size per spatial axis.
        affine: Voxel indices to RAS mm, shape (4, 4); None for formats without geometry.
        spacing_mm: Voxel size per axis in mm, 1 (a pixel) where there is no geometry.
    """

    shape: tuple[int, ...]
    affine: np.ndarray | None
    spacing_mm: tuple[float, ...]

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        if self.affine is None:
            return f"{size} without geometry"
        origin = ", ".join(f"{x:.4g}" for x in self.affine[:3, 3])
        spacing = " x ".join(f"{s:.4g}" for s in self.spacing_mm)
        return f"{size} of {spacing} mm, {''.join(aff2axcodes(self.affine))}, origin {origin}"

    def coincides(self, other: Grid) -> bool:
        """Tell whether both put each voxel at the same place, within `GEOMETRY_TOLERANCE_MM`."""
        if self.shape != other.shape or self.affine is None or other.affine is None:
            return self.shape == other.shape
        return displacement_mm(self.affine, other.affine, self.shape) <= GEOMETRY_TOLERANCE_MM


@dataclass(frozen=True)
class CroppedMask:
    """A mask that is not empty, without the empty space around it.

    Attributes:
        window: Where the crop lies in its grid, one slice an axis.
        crop: The mask inside, bool.
    """

    window: tuple[slice, ...]
    crop: np.ndarray

    @property
    def num_voxels(self) -> int:
        """Voxels of the mask."""
        return int(np.count_nonzero(self.crop))

    def within(self, window: tuple[slice, ...]) -> np.ndarray:
        """Return the mask in a larger window, which must hold its own."""
        mask = np.zeros([s.stop - s.start for s in window], dtype=bool)
        pairs = zip(self.window, window, strict=True)
        mask[tuple(slice(own.start - s.start, own.stop - s.start) for own, s in pairs)] = self.crop
        return mask


@dataclass
class CaseMasks:
    """All masks of one case in one grid, in the orientation closest to RAS.

    Attributes:
        grid: The grid.
        masks: Mask by structure; None where it is empty.
        missing: Structures without a file.
    """

    grid: Grid
    masks: dict[str, CroppedMask | None]
    missing: list[str] = field(default_factory=list)


def common_window(first: CroppedMask, second: CroppedMask) -> tuple[slice, ...]:
    """Return the smallest window that holds both masks."""
    return joint_window(first.window, second.window)


def read_case_masks(path: Path, label_set: LabelSet) -> CaseMasks:
    """Read the masks of one case, whatever orientation they were stored in.

    Args:
        path: Label map; file with one channel per structure, in the order of the set; or folder with one file per
            structure, named after it, in the folder itself or in `segmentations`; where the set has gray ranges, a
            picture as `read_mask` takes it.
        label_set: Structures to read.

    Returns:
        The masks.

    Raises:
        DatasetError: If a file cannot be read, holds something else than masks of these structures, or the files of
            a folder do not share one grid.
    """
    if path.is_dir():
        return _read_folder(path, label_set)
    if label_set.is_gray:
        return _read_picture(path, label_set)
    volume = read_volume(path)
    array, grid = canonical(volume)
    array = _whole_numbers(path, array)
    if volume.num_channels == 1:
        return CaseMasks(grid, split_label_map(path, array.reshape(grid.shape), label_set))
    if volume.num_channels != len(label_set.structures):
        found = f"{volume.num_channels} channels or time points"
        rule = f"must be a label map or have a channel for each of the {len(label_set.structures)} structures"
        raise refusal(path, rule, found, "convert it, or use the label set that it was made for")
    masks = {
        structure.name: _crop(_binary(path, array[..., channel]))
        for channel, structure in enumerate(label_set.structures)
    }
    return CaseMasks(grid, masks)


def canonical(volume: Volume) -> tuple[np.ndarray, Grid]:
    """Turn a 3D volume to the orientation closest to RAS, a picture to rows and columns; values stay.

    Args:
        volume: As read.

    Returns:
        Values, and their grid.
    """
    array, affine, shape = volume.array, volume.affine, volume.spatial_shape
    if affine is not None and len(shape) == 3:
        orientation = io_orientation(affine)
        array = apply_orientation(array, orientation)
        affine = affine @ inv_ornt_aff(orientation, shape)
        shape = array.shape[:3]
    elif affine is None and len(shape) == 2:  # the reader of pictures gives columns first
        array, shape = np.swapaxes(array, 0, 1), shape[::-1]
    spacing_mm = (1.0,) * len(shape)
    if affine is not None:
        spacing_mm = tuple(float(s) for s in voxel_sizes(affine)[: len(shape)])
    return array, Grid(tuple(shape), affine, spacing_mm)


def resample_masks(case: CaseMasks, grid: Grid) -> CaseMasks:
    """Put masks into another grid: each voxel takes the value of the nearest one, outside there is nothing.

    Args:
        case: Masks in a grid with geometry.
        grid: Grid with geometry and the same number of axes.

    Returns:
        The same masks in `grid`.

    Raises:
        ValueError: If one of the grids has no geometry.
    """
    if case.grid.affine is None or grid.affine is None or len(grid.shape) != 3 or len(case.grid.shape) != 3:
        raise ValueError(f"Only 3D grids with geometry can be resampled; found {case.grid} and {grid}.")
    to_source = np.linalg.inv(case.grid.affine) @ grid.affine
    masks = {name: mask and _resample(mask, to_source, grid) for name, mask in case.masks.items()}
    return CaseMasks(grid, masks, case.missing)


def split_label_map(path: str | Path, label_map: np.ndarray, label_set: LabelSet) -> dict[str, CroppedMask | None]:
    """Cut each structure out of a label map, which is looked at as a whole only once.

    Args:
        path: Its file, for messages.
        label_map: Whole numbers from 0, of any shape.
        label_set: Structures to cut out.

    Returns:
        Mask by structure; None where it is not there.

    Raises:
        DatasetError: If the structures have no labels, or the map holds others than theirs.
    """
    windows = label_windows(label_map)
    known = {label for structure in label_set.structures for label in structure.labels}
    if not known:
        rule = "must have a channel per structure, or be a folder with a file per structure"
        raise refusal(path, rule, "a label map", "convert it: the structures of this label set overlap")
    outside = sorted(set(windows) - known - set(label_set.ignore_labels))
    if outside:
        some = ", ".join(map(str, outside[:8])) + (", ..." if len(outside) > 8 else "")
        remedy = "use the label set of this data, map the values, or list them in its ignore_labels"
        raise refusal(path, "must hold labels of the label set", f"{some} outside of it", remedy)
    return {structure.name: _cut(label_map, windows, structure) for structure in label_set.structures}


def structure_files(folder: Path) -> dict[str, Path]:
    """List the images of a case's folder by name without suffix, those in `segmentations` included.

    Raises:
        DatasetError: If two files have one name.
    """
    files: dict[str, Path] = {}
    for path in sorted([*folder.iterdir(), *_inner_files(folder)]):
        if path.is_file() and image_suffix(path) and not path.name.startswith("."):
            name = case_name(path)
            if name in files:
                raise refusal(path, "must be the only file of its structure", str(files[name]), "remove one of them")
            files[name] = path
    return files


def _inner_files(folder: Path) -> Iterator[Path]:
    inner = folder / INNER_FOLDER
    return inner.iterdir() if inner.is_dir() else iter(())


def _read_folder(folder: Path, label_set: LabelSet) -> CaseMasks:
    files = structure_files(folder)
    case: CaseMasks | None = None
    missing = [name for name in label_set.names if name not in files]
    for name in label_set.names:
        if name in missing:
            continue
        volume = read_volume(files[name])
        if volume.num_channels != 1:
            raise refusal(files[name], "must hold one mask", f"{volume.num_channels} channels", "split it into files")
        array, grid = canonical(volume)
        case = case or CaseMasks(grid, {}, missing)
        if not grid.coincides(case.grid):
            raise refusal(files[name], f"must lie where {next(iter(case.masks))} lies", f"{grid} against {case.grid}",
                          "save all structures of a case in one grid")  # fmt: skip
        array = _whole_numbers(files[name], array)
        case.masks[name] = _crop(_binary(files[name], array.reshape(grid.shape)))
    if case is None:
        found = ", ".join(list(files)[:5]) or "no image"
        raise refusal(
            folder, "must hold a file for a structure", found, f"name files such as {label_set.names[0]}.nii.gz"
        )
    return case


def _read_picture(path: Path, label_set: LabelSet) -> CaseMasks:
    """Read a picture whose gray values say what a pixel is; structures may lie inside of each other."""
    gray = read_mask(path)
    masks = {}
    for structure in label_set.structures:
        low, high = structure.gray_range or (0, 0)
        masks[structure.name] = _crop((gray >= low) & (gray <= high))
    return CaseMasks(Grid(gray.shape, None, (1.0, 1.0)), masks)


def _whole_numbers(path: Path, array: np.ndarray) -> np.ndarray:
    if array.dtype == bool or array.dtype in (np.uint8, np.uint16):
        return array.view(np.uint8) if array.dtype == bool else array
    whole = array if array.dtype.kind in "iu" else np.rint(array)
    if not np.array_equal(whole, array):  # NaN equals nothing
        raise refusal(path, "must hold whole numbers", "fractions or NaN", "threshold probabilities, save labels")
    low, high = float(whole.min()), float(whole.max())
    if low < 0 or high > MAX_LABEL:
        raise refusal(path, f"must hold labels from 0 to {MAX_LABEL}", f"values from {low:g} to {high:g}", "map them")
    return whole.astype(np.uint16)


def _cut(label_map: np.ndarray, windows: dict[int, tuple[slice, ...]], structure: Structure) -> CroppedMask | None:
    found = [label for label in structure.labels if label in windows]
    if not found:
        return None
    window = joint_window(*(windows[label] for label in found))
    return CroppedMask(window, np.isin(label_map[window], found))


def _binary(path: Path, array: np.ndarray) -> np.ndarray:
    """Return a mask; its voxels may be 1 or, as some programs write, 255."""
    mask = array > 0
    high = int(array.max())
    if high > 1 and not np.array_equal(array, mask * np.array(high, dtype=array.dtype)):
        raise refusal(path, "must be a mask of one structure", f"several values up to {high}", "write 0 and 1")
    return mask


def _crop(mask: np.ndarray) -> CroppedMask | None:
    window = mask_window(mask)
    return CroppedMask(window, mask[window].copy()) if mask[window].size else None


def _resample(mask: CroppedMask, to_source: np.ndarray, grid: Grid) -> CroppedMask | None:
    """Resample one mask; only the part of the grid that its corners reach is computed."""
    corners = np.stack(np.meshgrid(*[(s.start - 1, s.stop) for s in mask.window], indexing="ij")).reshape(3, -1)
    from_source = np.linalg.inv(to_source)
    reached = from_source[:3, :3] @ corners + from_source[:3, 3:]
    start = np.clip(np.floor(reached.min(1)).astype(int), 0, grid.shape)
    stop = np.clip(np.ceil(reached.max(1)).astype(int) + 1, 0, grid.shape)
    if (stop <= start).any():
        return None
    offset = to_source[:3, :3] @ start + to_source[:3, 3] - [s.start for s in mask.window]
    # a margin, so that nothing outside of the crop is ever its nearest voxel
    padded = np.pad(mask.crop.view(np.uint8), 1)
    values = affine_transform(padded, to_source[:3, :3], offset + 1, tuple(stop - start), order=0)
    cropped = _crop(values > 0)
    if cropped is None:
        return None
    window = tuple(slice(w.start + int(s), w.stop + int(s)) for w, s in zip(cropped.window, start, strict=True))
    return CroppedMask(window, cropped.crop)
