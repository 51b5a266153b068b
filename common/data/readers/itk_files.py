"""MHA, MHD and NRRD, through ITK."""

from __future__ import annotations

import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
from monai.data import ITKReader

from ..problems import refusal
from .capacity import check_capacity, damaged, inflate
from .volume import Volume, split_channels

__all__ = ["itk_volume", "load_itk", "read_itk_file"]

MAX_HEADER_BYTES = 1 << 16


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
    itk = load_itk()
    factory_io = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if factory_io is None:
        raise damaged(path, f"something that is not {path.suffix.lower().lstrip('.').upper()}")
    factory_io.SetFileName(str(path))
    factory_io.ReadImageInformation()
    shape = tuple(factory_io.GetDimensions(axis) for axis in range(factory_io.GetNumberOfDimensions()))
    file_bytes = path.stat().st_size
    compressed = True
    if path.suffix.lower() != ".nrrd":
        fields, header_bytes = _metaimage_fields(path)
        data_file, start = _metaimage_data(path, fields, header_bytes)
        compressed = fields.get("CompressedData", "False").lower() == "true"
        file_bytes = data_file.stat().st_size
    num_bytes = int(factory_io.GetImageSizeInBytes())
    check_capacity(path, shape, num_bytes, file_bytes, compressed)
    if path.suffix.lower() != ".nrrd" and compressed:
        _check_deflated(data_file, start, num_bytes)
    return itk_volume(path, itk.imread(str(path)))


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


def _metaimage_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a MetaImage header and its length in bytes."""
    fields = {}
    with path.open("rb") as stream:
        while stream.tell() < MAX_HEADER_BYTES and (line := stream.readline(MAX_HEADER_BYTES)):
            name, _, value = line.decode("latin-1").partition("=")
            fields[name.strip()] = value.strip()
            if name.strip() == "ElementDataFile":
                return fields, stream.tell()
    raise damaged(path, "a MetaImage header without ElementDataFile")


def _metaimage_data(path: Path, fields: dict[str, str], header_bytes: int) -> tuple[Path, int]:
    """Return the file that holds the voxels of a MetaImage, and where they start in it."""
    name = fields["ElementDataFile"]
    if name.upper() == "LOCAL":
        return path, header_bytes
    data_file = path.parent / name
    if not data_file.is_file():
        raise refusal(path, "must lie beside its voxels", f"no file {name}", f"put {name} into the same folder")
    return data_file, 0


def _check_deflated(data_file: Path, start: int, num_bytes: int) -> None:
    """Refuse deflated voxels that are damaged: ITK says `Uncompress failed` on the console and goes on."""
    with data_file.open("rb") as stream:
        stream.seek(start)
        try:
            found_bytes = sum(inflate(stream))
        except EOFError as error:
            raise damaged(data_file, "a zlib stream that is cut off") from error
        except zlib.error as error:
            raise damaged(data_file, f"a damaged zlib stream ({error})") from error
    if found_bytes < num_bytes:
        raise damaged(data_file, f"{found_bytes:,} of {num_bytes:,} bytes of voxels")
