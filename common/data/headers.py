"""Size and voxel size of an image from its header alone, in milliseconds instead of seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from PIL import Image, UnidentifiedImageError

from .readers import image_suffix, load_itk

__all__ = ["ImageHeader", "read_header"]

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
HEADER_ERRORS = (OSError, ValueError, RuntimeError, ImageFileError, HeaderDataError, UnidentifiedImageError)


class ImageHeader(NamedTuple):
    """What a header says.

    Attributes:
        spatial_shape: Size per spatial axis, in the order of the reader.
        spacing_mm: Voxel size per spatial axis; `None` where the format has no geometry.
    """

    spatial_shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None


def read_header(path: str | os.PathLike[str]) -> ImageHeader | None:
    """Read a header; what it says is not verified, see `read_volume` for that.

    Args:
        path: File of a supported format. A folder of DICOM slices has no header of its own.

    Returns:
        Size and voxel size, or `None` where there is no header that says it.
    """
    path = Path(path)
    suffix = image_suffix(path)
    if suffix is None or not path.is_file():
        return None
    try:
        if suffix in (".nii.gz", ".nii"):
            image = nib.load(path)
            rank = min(len(image.shape), 3)
            spacing = np.linalg.norm(image.affine[:3, :rank], axis=0)
            return ImageHeader(tuple(image.shape[:rank]), tuple(float(s) for s in spacing))
        if suffix in PICTURES:
            with Image.open(path) as picture:
                return ImageHeader(picture.size, None)
        return _read_itk_header(path)
    except HEADER_ERRORS:
        return None


def _read_itk_header(path: Path) -> ImageHeader | None:
    itk = load_itk()
    reader = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if reader is None:
        return None
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    axes = range(min(reader.GetNumberOfDimensions(), 3))
    shape = tuple(int(reader.GetDimensions(axis)) for axis in axes)
    return ImageHeader(shape, tuple(float(reader.GetSpacing(axis)) for axis in axes))
