"""A folder of DICOM slices, through ITK."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ..problems import refusal
from .capacity import check_capacity, damaged
from .itk_files import itk_volume, load_itk
from .volume import Volume

__all__ = ["is_dicom_file", "is_dicom_folder", "read_dicom_series"]

MAX_GAP_DEVIATION = 0.1  # of the slice spacing
MAX_TILT = 0.5  # of the pixel spacing, over the whole series


@dataclass
class _Slice:
    """Header of one slice: position (3,) in LPS mm, normal (3,), pixel spacing (2,) in mm, size (3,), bytes."""

    name: str
    position_mm: np.ndarray
    normal: np.ndarray
    pixel_mm: np.ndarray
    shape: tuple[int, int, int]
    num_bytes: int


def is_dicom_file(path: Path) -> bool:
    """Tell whether a file is DICOM by the marker at byte 128, or by `.dcm`, where the file is cut off before it."""
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or not path.is_file():
        return False
    if path.suffix.lower() == ".dcm":
        return True
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def is_dicom_folder(path: Path) -> bool:
    """Tell whether a folder holds a DICOM file directly."""
    return path.is_dir() and any(is_dicom_file(p) for p in sorted(path.iterdir()))


def read_dicom_series(path: Path) -> Volume:
    """Read a folder that holds one DICOM series; see `read_volume`.

    Raises:
        DatasetError: If there is no series or more than one, a file that does not open, or a stack of slices that no
            affine describes.
    """
    itk = load_itk()
    names = _series_files(path, itk)
    slices = [_slice_header(path, itk, name) for name in names]
    shape = (*slices[0].shape[:2], sum(s.shape[2] for s in slices))
    num_bytes = sum(s.num_bytes for s in slices)
    check_capacity(path, shape, num_bytes, sum(Path(n).stat().st_size for n in names), compressed=True)
    if slices[0].shape[2] == 1:  # not a multi-frame file, which has its own slice spacing
        _check_stack(path, slices)
    return itk_volume(path, itk.imread(names if len(names) > 1 else names[0]))


def _series_files(path: Path, itk: ModuleType) -> list[str]:
    """Return the files of the only series of a folder, sorted by position, grouped as MONAI groups them."""
    files = [p for p in sorted(path.iterdir()) if is_dicom_file(p)]
    if not files:
        raise refusal(path, "must hold a DICOM series", "no DICOM file", "name the folder that holds the slices")
    generator = itk.GDCMSeriesFileNames.New()
    generator.SetUseSeriesDetails(True)
    generator.AddSeriesRestriction("0008|0021")
    generator.SetDirectory(str(path))
    series = [list(generator.GetFileNames(uid)) for uid in generator.GetSeriesUIDs()]
    known = {Path(name).name for names in series for name in names}
    lost = [p.name for p in files if p.name not in known]
    if lost:
        raise damaged(path, f"{len(lost)} of {len(files)} DICOM files that do not open: {_some(lost)}")
    if len(series) > 1:
        sizes = ", ".join(f"{len(names)} files from {Path(names[0]).name}" for names in series)
        raise refusal(
            path,
            "must hold one DICOM series",
            f"{len(series)} ({sizes})",
            "put each series (also scouts and reports) into a folder of its own",
        )
    return series[0]


def _slice_header(path: Path, itk: ModuleType, name: str) -> _Slice:
    """Read the header of one slice."""
    reader = itk.GDCMImageIO.New()
    reader.SetFileName(name)
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise damaged(path, f"the slice {Path(name).name} without readable pixels") from error
    size = [reader.GetDimensions(axis) for axis in range(reader.GetNumberOfDimensions())]
    return _Slice(
        name=Path(name).name,
        position_mm=np.array([reader.GetOrigin(axis) for axis in range(3)]),
        normal=np.array(reader.GetDirection(2)),
        pixel_mm=np.array([reader.GetSpacing(axis) for axis in range(2)]),
        shape=(size[0], size[1], size[2] if len(size) > 2 else 1),
        num_bytes=int(reader.GetImageSizeInBytes()),
    )


def _check_stack(path: Path, slices: list[_Slice]) -> None:
    """Refuse slices that are not evenly stacked along their normal: ITK would spread them evenly all the same."""
    if len(slices) < 2:
        raise refusal(
            path,
            "must hold at least two slices",
            "one, whose spacing to the next is unknown",
            "add the other slices, or convert it to NIfTI with the right spacing",
        )
    positions = np.stack([s.position_mm for s in slices])
    heights = positions @ slices[0].normal
    gaps = np.diff(heights)
    spacing = float(np.median(np.abs(gaps)))
    worst = int(np.argmax(np.abs(np.abs(gaps) - spacing)))
    deviation = abs(abs(float(gaps[worst])) - spacing)
    if spacing == 0 or deviation > MAX_GAP_DEVIATION * spacing:
        raise refusal(
            path,
            "must be evenly spaced",
            f"{abs(gaps[worst]):.4g} mm between {slices[worst].name} and {slices[worst + 1].name}, {spacing:.4g} mm "
            f"elsewhere ({len(slices)} slices)",
            "restore the missing slices or remove the doubled ones, or convert it with a tool that resamples",
        )
    drift = positions - positions[0]
    drift -= np.outer(heights - heights[0], slices[0].normal)
    drift_mm = float(np.linalg.norm(drift, axis=1).max())
    if drift_mm > MAX_TILT * float(slices[0].pixel_mm.min()):
        raise refusal(
            path,
            "must be stacked along the normal of its slices",
            f"slices shifted by up to {drift_mm:.4g} mm in plane (gantry tilt)",
            "convert it with a tool that corrects the tilt, such as dcm2niix, and use the NIfTI file",
        )


def _some(names: list[str], count: int = 3) -> str:
    """Name the first few."""
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
