"""PNG, JPEG and TIFF in 2D, through Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from monai.data import PILReader
from PIL import Image

from ..problems import refusal
from .capacity import damaged
from .volume import Volume

__all__ = ["read_picture"]


def read_picture(path: Path) -> Volume:
    """Read a 2D image; see `read_volume`.

    Raises:
        DatasetError: If it has several pages or does not decode.
    """
    try:
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1)
            if pages > 1:
                raise refusal(path, "must hold one image", f"{pages} pages", "save each page as a file, or use NIfTI")
            array, meta = PILReader().get_data(image)
            mode = image.mode
    # A broken PNG is a SyntaxError to Pillow; its errors for oversized images have no common base with the others.
    except (SyntaxError, Image.DecompressionBombError) as error:
        raise damaged(path, str(error)) from error
    spatial_shape = tuple(int(n) for n in meta["spatial_shape"])
    num_channels = array.shape[-1] if array.ndim > 2 else 1
    return Volume(np.asarray(array), None, spatial_shape, num_channels, is_palette=mode == "P")
