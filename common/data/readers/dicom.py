"""A folder of DICOM slices, through ITK."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np

from ..problems import refusal
from .capacity import check_capacity, damaged
from .dicom_elements import DicomElements, read_dicom_elements
from .itk_files import itk_volume, load_itk
from .volume import Volume

__all__ = ["is_dicom_file", "is_dicom_folder", "read_dicom_series"]

SAMPLES, BITS_ALLOCATED, BITS_STORED, SIGN = 0x00280002, 0x00280100, 0x00280101, 0x00280103
PHOTOMETRIC = 0x00280004
PHOTOMETRIC_KINDS = ("MONOCHROME2", "RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
RESCALE_SLOPE = 0x00281053
PIXEL_SPACING = 0x00280030
# What every slice has to have, and alike: name, count of numbers, how far apart they may be.
GEOMETRY = {
    0x00200037: ("ImageOrientationPatient", 6, 1e-4),
    PIXEL_SPACING: ("PixelSpacing", 2, 1e-3),
    0x00200032: ("ImagePositionPatient", 3, math.inf),
}
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
    component: str


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
    _refuse_pipes(path)
    elements = {str(file): read_dicom_elements(file) for file in sorted(path.iterdir()) if is_dicom_file(file)}
    names = _series_files(path, itk)
    slices = [_slice_header(path, itk, name) for name in names]
    _check_pixels(path, slices, [elements[name] for name in names])
    shape = (*slices[0].shape[:2], sum(s.shape[2] for s in slices))
    num_bytes = sum(s.num_bytes for s in slices)
    check_capacity(path, shape, num_bytes, sum(Path(n).stat().st_size for n in names), compressed=True)
    if slices[0].shape[2] == 1:  # not a multi-frame file, which has its own slice spacing
        _check_geometry(path, slices, [elements[name] for name in names])
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
        component=reader.GetComponentTypeAsString(reader.GetComponentType()),
    )


def _refuse_pipes(path: Path) -> None:
    """Refuse what GDCM would wait for: it opens every entry of a folder."""
    for entry in sorted(path.iterdir()):
        if entry.exists() and not entry.is_file() and not entry.is_dir():
            raise refusal(path, "must hold files alone", f"{entry.name}, a pipe, socket or device", "remove it")


def _check_pixels(path: Path, slices: list[_Slice], elements: list[DicomElements]) -> None:
    """Refuse pixels that are not there, whose rest ITK would make up, and slices that do not make one volume."""
    for one, found in zip(slices, elements, strict=True):
        kind = found.text(PHOTOMETRIC)
        if kind not in PHOTOMETRIC_KINDS or not found.number(SAMPLES):
            kind = f"{kind or 'nothing'} with {found.number(SAMPLES)} values per pixel in {one.name}"
            remedy = "convert it to NIfTI; GDCM would turn the values of MONOCHROME1 around"
            raise refusal(path, f"must be of one of the kinds {', '.join(PHOTOMETRIC_KINDS)}", kind, remedy)
        slope = found.text(RESCALE_SLOPE) or "1"
        if not any(_numbers(slope)):
            raise refusal(path, "must have a RescaleSlope other than 0", f"{slope!r} in {one.name}", "export it again")
        stored, allocated = found.number(BITS_STORED), found.number(BITS_ALLOCATED)
        if not 0 < stored <= allocated or found.number(SIGN, -1) not in (0, 1):
            raise damaged(path, f"{stored} bits in {allocated}, sign {found.number(SIGN, -1)}, in {one.name}")
        wanted = math.prod(one.shape) * found.number(SAMPLES) * allocated // 8
        if found.pixel_bytes is not None and not found.is_compressed and found.pixel_bytes < wanted:
            raise damaged(path, f"{found.pixel_bytes:,} of {wanted:,} bytes of pixels in {one.name}")
    for attribute in ("shape", "component"):
        values = {getattr(one, attribute): one.name for one in slices}
        if len(values) > 1:
            shown = "; ".join(f"{value} in {name}" for value, name in list(values.items())[:2])
            rule = "must have slices of one size and one type of numbers"
            raise refusal(path, rule, shown.replace("_", " "), "export the series again, or convert it to NIfTI")


def _check_geometry(path: Path, slices: list[_Slice], elements: list[DicomElements]) -> None:
    """Refuse slices without place, and slices that differ in what ITK takes from the first."""
    for tag, (name, count, tolerance) in GEOMETRY.items():
        values = [_numbers(found.text(tag)) for found in elements]
        wrong = next((found for found, numbers in zip(elements, values, strict=True) if len(numbers) != count), None)
        if wrong is not None:
            found = (wrong.text(tag) or "nothing")[:80]
            raise refusal(path, f"must have {count} numbers as {name} in every slice", found, "export it again")
        spread = np.ptp(np.array(values), axis=0).max()
        if spread > tolerance:
            rule = f"must have one {name} in all slices"
            raise refusal(path, rule, f"numbers up to {spread:.3g} apart", "put each stack into a folder of its own")
    spacing = _numbers(elements[0].text(PIXEL_SPACING))
    if min(spacing) <= 0:
        raise refusal(path, "must have a pixel size above zero", f"{spacing} mm", "export it again")
    for one in slices:
        if not np.allclose(one.pixel_mm, spacing[::-1], rtol=1e-3):
            found = f"{one.pixel_mm.tolist()} mm instead of {spacing[::-1]} mm in {one.name}"
            remedy = "convert it to NIfTI: GDCM does not know this kind of file (SOPClassUID)"
            raise refusal(path, "must have the pixel size that ITK reads", found, remedy)


def _numbers(text: str) -> list[float]:
    """Return the finite numbers between backslashes; none where one of them is none."""
    try:
        numbers = [float(word) for word in text.split("\\")]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []


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
