"""PNG, JPEG and TIFF in 2D, through Pillow."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from monai.data import PILReader
from PIL import Image

from ..problems import refusal
from .capacity import damaged, inflate
from .png import SIGNATURE, check_png
from .volume import Volume

__all__ = ["read_picture"]

DEFLATED = (tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE)
# What tifffile raises on tags that cannot be.
TIFF_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, OSError, struct.error)


def read_picture(path: Path) -> Volume:
    """Read a 2D image; see `read_volume`.

    Raises:
        DatasetError: If it has several pages, is damaged or of another format than PNG, JPEG and TIFF.
    """
    with path.open("rb") as stream:
        start = stream.read(len(SIGNATURE))
    if start == SIGNATURE:
        check_png(path)
    try:
        # no other of Pillow's formats, some of which start programs
        with Image.open(path, formats=("PNG", "JPEG", "TIFF")) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise refusal(path, "must hold one image", f"{pages} pages", "save each page as a file, or use NIfTI")
            if image.format == "TIFF":
                _check_tiff(path, image)
            array, meta = PILReader().get_data(image)
            mode = image.mode
    # A broken PNG is a SyntaxError to Pillow; its errors for oversized images have no common base with the others.
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise damaged(path, str(error)) from error
    spatial_shape = tuple(int(n) for n in meta["spatial_shape"])
    num_channels = array.shape[-1] if array.ndim > 2 else 1
    return Volume(np.asarray(array), None, spatial_shape, num_channels, is_palette=mode == "P")


def _check_tiff(path: Path, image: Image.Image) -> None:
    """Refuse a TIFF whose tags two readers do not take for the same, or with pixels behind the end of the file."""
    file_bytes = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            found = (page.imagewidth, page.imagelength)
            file.filehandle.seek(page.offset)
            (num_tags,) = struct.unpack(
                file.byteorder + ("Q" if file.is_bigtiff else "H"), file.filehandle.read(8 if file.is_bigtiff else 2)
            )
            strips = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            ends = [start + length for start, length in strips]
            if page.compression in DEFLATED:  # Pillow does not look at the checksum
                for start, length in strips:
                    file.filehandle.seek(start)
                    sum(inflate(file.filehandle, length, page.nbytes))
    except (*TIFF_ERRORS, tifffile.TiffFileError, EOFError, zlib.error) as error:
        raise damaged(path, str(error) or "pixels that are cut off") from error
    if len(page.tags) != num_tags:
        raise damaged(path, f"{num_tags - len(page.tags)} tags that cannot be")
    if found != image.size or page.samplesperpixel != len(image.getbands()):
        raise damaged(path, f"{found[0]} x {found[1]} pixels with {page.samplesperpixel} values, or {image}")
    stored_bytes = sum(page.databytecounts)
    if max(ends, default=0) > file_bytes or (
        page.compression == tifffile.COMPRESSION.NONE and stored_bytes < page.nbytes
    ):
        raise damaged(path, f"{stored_bytes:,} bytes of pixels up to byte {max(ends, default=0):,} of {file_bytes:,}")
