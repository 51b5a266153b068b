"""MHA, MHD and NRRD, through ITK."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from monai.data import ITKReader

from ..problems import refusal
from .capacity import check_capacity, damaged, inflate
from .metaimage import read_metaimage_header
from .nrrd import read_nrrd_header
from .volume import Volume, split_channels

__all__ = ["itk_volume", "load_itk", "read_itk_file"]

VECTOR_TYPES = ("unsigned_char", "short", "unsigned_short", "float", "double")
TYPES = (*VECTOR_TYPES, "int", "unsigned_int", "unsigned_long", "unsigned_long_long")


def load_itk() -> ModuleType:
    """Return ITK with its image readers loaded.

    ITK loads its modules on first use and changes the working directory of the whole process while it does. In a
    pool of threads the others then miss files under relative paths, so this is called before threads start.
    """
    import itk

    for name in ("ImageIOFactory", "ImageFileReader", "ImageSeriesReader", "GDCMImageIO", "GDCMSeriesFileNames"):
        getattr(itk, name)
    return itk


def read_itk_file(path: Path) -> Volume:
    """Read an MHA, MHD or NRRD file; see `read_volume`.

    Raises:
        DatasetError: If the voxels are not all there or do not decompress.
    """
    if path.suffix.lower() == ".nrrd":
        nrrd = read_nrrd_header(path)
        data_file, start, warnings, compressed_bytes = path, nrrd.start, nrrd.warnings, 0
        is_compressed, is_verified_here = nrrd.encoding != "raw", nrrd.encoding == "gzip"
    else:
        metaimage = read_metaimage_header(path)
        data_file, start, warnings = metaimage.data_file, metaimage.start, metaimage.warnings
        compressed_bytes = metaimage.compressed_bytes
        is_compressed = is_verified_here = metaimage.is_compressed
    itk = load_itk()
    factory_io = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if factory_io is None:
        raise damaged(path, f"something that is not {path.suffix.lower().lstrip('.').upper()}")
    factory_io.SetFileName(str(path))
    factory_io.ReadImageInformation()
    shape = tuple(factory_io.GetDimensions(axis) for axis in range(factory_io.GetNumberOfDimensions()))
    num_bytes = math.prod(shape) * _voxel_bytes(path, factory_io)
    stored_bytes = data_file.stat().st_size - start
    check_capacity(path, shape, num_bytes, stored_bytes, is_compressed)
    if is_verified_here:
        if stored_bytes < compressed_bytes:
            raise damaged(path, f"{stored_bytes:,} of {compressed_bytes:,} bytes that CompressedDataSize announces")
        _check_deflated(data_file, start, compressed_bytes or stored_bytes, num_bytes)
    volume = itk_volume(path, itk.imread(str(path)))
    volume.warnings += warnings
    return volume


def _voxel_bytes(path: Path, factory_io: Any) -> int:
    """Return the bytes of a voxel; refuse types that the Python package of ITK lacks, after a search of a minute."""
    component = factory_io.GetComponentTypeAsString(factory_io.GetComponentType())
    count = int(factory_io.GetNumberOfComponents())
    if component not in (VECTOR_TYPES if count > 1 else TYPES):
        found = f"{component.replace('_', ' ')}" + (f", {count} per voxel" if count > 1 else "")
        raise refusal(path, f"must hold numbers of one of the types {', '.join(TYPES)}", found, "convert it")
    return count * int(factory_io.GetComponentSize())


def itk_volume(path: Path, image: object) -> Volume:
    """Give an ITK image the axes and the RAS affine that MONAI gives it."""
    array, meta = ITKReader().get_data(image)
    affine = np.eye(4)
    rank = len(meta["affine"]) - 1
    affine[:rank, :rank] = meta["affine"][:rank, :rank]
    affine[:rank, 3] = meta["affine"][:rank, -1]
    array = np.asarray(array)
    spatial_rank = len(meta["spatial_shape"])
    if array.ndim == spatial_rank + 1:  # colors of a 2D image, too, are channels
        return Volume(array, affine, tuple(array.shape[:-1]), array.shape[-1])
    spatial_shape, num_channels = split_channels(path, array.shape)
    return Volume(array, affine, spatial_shape, num_channels)


def _check_deflated(data_file: Path, start: int, compressed_bytes: int, num_bytes: int) -> None:
    """Refuse deflated voxels that are damaged: ITK says `Uncompress failed` on the console and goes on."""
    with data_file.open("rb") as stream:
        stream.seek(start)
        try:
            found_bytes = sum(inflate(stream, compressed_bytes, num_bytes))
        except EOFError as error:
            raise damaged(data_file, "a zlib stream that is cut off") from error
        except zlib.error as error:
            raise damaged(data_file, f"a damaged zlib stream ({error})") from error
    if found_bytes < num_bytes:
        raise damaged(data_file, f"{found_bytes:,} of {num_bytes:,} bytes of voxels")
