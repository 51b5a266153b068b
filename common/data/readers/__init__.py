"""Open one image as MONAI's `LoadImaged` will, and refuse what it would read wrongly.

The convention of all bundles is the stock transform: in 3D `LoadImaged` without `reader`, which reads NIfTI through
nibabel and MHA, MHD, NRRD and DICOM series through ITK, all with an affine to RAS millimeters; in 2D
`LoadImaged(reader="PILReader")`, since TIFF would go through ITK otherwise. NIfTI does not go through ITK, because ITK
5.4 reads a cut-off `.nii.gz` without a word and fills up the rest, refuses sheared affines, and takes the qform where
the sform is not a scanner's.

`read_volume` reads the same values and the same affine, and refuses what passes silently there: wrong checksums,
headers that announce more than the file can hold, DICOM folders with several series, missing, doubled or tilted
slices, NIfTI headers that contradict themselves, pages.
"""

from __future__ import annotations

import os
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ..problems import DatasetError, refusal
from .capacity import damaged
from .dicom import is_dicom_folder, read_dicom_series
from .itk_files import load_itk, read_itk_file
from .nifti import read_nifti
from .pictures import read_picture
from .volume import GEOMETRY_TOLERANCE_MM, Volume, check_affine, displacement_mm

__all__ = [
    "GEOMETRY_TOLERANCE_MM",
    "Volume",
    "case_name",
    "displacement_mm",
    "image_suffix",
    "is_dicom_folder",
    "load_itk",
    "read_volume",
]

READERS = {
    ".nii.gz": read_nifti,
    ".nii": read_nifti,
    ".mha": read_itk_file,
    ".mhd": read_itk_file,
    ".nrrd": read_itk_file,
    ".png": read_picture,
    ".jpg": read_picture,
    ".jpeg": read_picture,
    ".tif": read_picture,
    ".tiff": read_picture,
}

# What nibabel, ITK, Pillow and NumPy raise on a damaged file.
READ_ERRORS = (
    OSError,
    EOFError,
    RuntimeError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    struct.error,
    zlib.error,
    ImageFileError,
    HeaderDataError,
)


def image_suffix(path: str | os.PathLike[str]) -> str | None:
    """Return the suffix of a format that the bundles read, such as `.nii.gz`, or `None`."""
    name = Path(path).name.lower()
    return next((suffix for suffix in READERS if name.endswith(suffix)), None)


def case_name(path: str | os.PathLike[str]) -> str:
    """Return the file name without the suffix of its format, or the name of a DICOM folder."""
    name = Path(path).name
    return name[: len(name) - len(image_suffix(path) or "")]


def read_volume(path: str | os.PathLike[str]) -> Volume:
    """Read an image with every check that concerns this file alone.

    Args:
        path: File of a supported format, or folder of one DICOM series.

    Returns:
        The values and the affine that `LoadImaged` gives for the same path, in the reader's data type.

    Raises:
        DatasetError: If it is missing, empty, damaged, contradicts itself, or is of an unknown kind.
    """
    path = Path(path)
    try:
        volume = _reader_of(path)(path)
    except DatasetError:
        raise
    except MemoryError as error:
        raise refusal(path, "must fit into memory", "not enough of it", "crop it, or use a larger machine") from error
    except READ_ERRORS as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise damaged(path, lines[-1] if lines else type(error).__name__) from error
    if volume.affine is not None:
        check_affine(path, volume.affine, volume.spatial_shape)
    return volume


def _reader_of(path: Path) -> Callable[[Path], Volume]:
    """Return the reader of a file or folder, which is there and is one; links are followed."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        found = "a link to nothing" if path.is_symlink() else "nothing"
        raise refusal(path, "must exist", found, "correct the path in dataset.json, or restore the file") from None
    if stat.S_ISDIR(status.st_mode):
        return read_dicom_series
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for whoever writes into it
        raise refusal(path, "must be a file", "a pipe, socket or device", "name the image itself")
    suffix = image_suffix(path)
    if suffix is None:
        known = " ".join(READERS)
        found = f"the suffix {path.suffix!r}"
        raise refusal(path, f"must be {known} or a DICOM folder", found, "convert it, or name the folder of the series")
    if status.st_size == 0:
        raise refusal(path, "must not be empty", "0 bytes", "copy it again from its source, or remove the case")
    return READERS[suffix]
