"""Color photographs and their masks, in the order rows, columns.

MONAI's `PILReader` gives (W, H) unless told otherwise; networks trained on (H, W), as the published ones of these
bundles, would see every photograph mirrored at its diagonal. All of the 2D bundles read through this module.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from .mask_values import MaskConvention
from .problems import DatasetError, Problem, refusal
from .readers import image_suffix, read_volume
from .readers.pictures import TIFF_ERRORS
from .screening import mark_bad_cases

__all__ = ["check_photographs", "read_mask", "read_photograph"]

logger = logging.getLogger(__name__)

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
LOSSY = (".jpg", ".jpeg")
MIN_PIXELS = 64
# Gray masks that went through a color JPEG differ between channels by a few steps.
MAX_CHANNEL_DIFFERENCE = 32
EXIF_ORIENTATION = 0x0112


def read_photograph(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a color photograph.

    Args:
        path: PNG, JPEG or TIFF. An opaque alpha channel is left out. 16 bits become 8, as Pillow reads them; 32-bit
            floating point is read from TIFF.

    Returns:
        Values. Shape (H, W, 3), uint8, or float32 from floating-point files.

    Raises:
        DatasetError: If it is missing, damaged, no picture, not in color, transparent, not finite or smaller than 64
            pixels on a side.
    """
    path = Path(path)
    pixels, mode = _decode(path)
    if mode == "RGBA" and (pixels[..., 3] == 255).all():
        pixels, mode = pixels[..., :3], "RGB"
    if pixels.dtype.kind == "f" and (num_bad := pixels.size - int(np.isfinite(pixels).sum())):
        found = f"NaN or infinity in {num_bad:,} of {pixels.size:,} values"
        raise refusal(path, "must be finite", found, "replace them (numpy.nan_to_num), or remove the case")
    if mode != "RGB":
        raise refusal(path, "must be a color photograph with 3 channels, RGB", *_of_mode(mode))
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_PIXELS:
        found = f"{width} x {height}"
        raise refusal(path, f"must have {MIN_PIXELS} x {MIN_PIXELS} pixels or more", found, "give the original picture")
    return np.ascontiguousarray(pixels)


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the gray values of a mask.

    Args:
        path: PNG, JPEG or TIFF with gray, palette or black and white pixels, or color that is gray in fact.

    Returns:
        Gray values, black and white as 0 and 255. Shape (H, W), uint8.

    Raises:
        DatasetError: If it is missing, damaged, no picture, colored or of more than 8 bits.
    """
    path = Path(path)
    pixels, mode = _decode(path)
    if mode == "RGB" and pixels.dtype == np.uint8 and np.ptp(pixels, axis=2).max() <= MAX_CHANNEL_DIFFERENCE:
        mode = "L"
    if mode not in ("1", "L", "P"):
        found = f"{pixels.dtype} pixels of mode {mode}" + (" in different colors" if mode == "RGB" else "")
        raise refusal(path, "must be a gray mask of 8 bits", found, "convert it; look at mask_ranges for the values")
    with Image.open(path) as image:
        return np.asarray(image.convert("L"))


def check_photographs(
    datalist: Sequence[Mapping[str, Any]],
    keys: str | Sequence[str] = ("image",),
    convention: MaskConvention | None = None,
    num_workers: int | None = None,
    enabled: bool = True,
    isolate: bool = False,
) -> list[dict[str, Any]]:
    """Return the same list if every photograph and mask can be used, else say everything that is wrong with it.

    Every file is read once, as `LoadPhotographd` and `LoadMaskd` will read it.

    Args:
        datalist: Cases with paths.
        keys: `image`, and `label` where masks are to be checked.
        convention: Of the masks; needed with `label`.
        num_workers: Cases read at the same time; `None` takes the CPUs there are, at most 4.
        enabled: `False` returns the list unread.
        isolate: Return cases that break a rule, too, with what is wrong under the key `failure`.

    Returns:
        The cases as given.

    Raises:
        DatasetError: If the list is empty, or any case breaks a rule and is not isolated, with one line for each
            problem.
        ValueError: If masks are to be checked without a convention.
    """
    cases = [dict(case) for case in datalist]
    keys = (keys,) if isinstance(keys, str) else tuple(keys)
    if "label" in keys and convention is None:
        raise ValueError("convention must be given when masks are checked, since keys has 'label'; got None.")
    if not cases:
        raise refusal("datalist", "must have a case", "an empty list", "check dataset_dir and section")
    if enabled:
        with ThreadPoolExecutor(num_workers or min(4, os.cpu_count() or 1)) as pool:
            mask_convention = convention if "label" in keys else None
            problems = [p for found in pool.map(lambda case: _inspect(case, mask_convention), cases) for p in found]
        if problems and isolate:
            return mark_bad_cases(cases, DatasetError(problems))
        if problems:
            raise DatasetError(problems)
        logger.info("Checked %d photographs: no problem", len(cases))
    return cases


def _inspect(case: Mapping[str, Any], convention: MaskConvention | None) -> list[Problem]:
    """Return every problem of a case; its mask is read where a convention is given."""
    problems: list[Problem] = []
    shapes = []
    try:
        shapes.append(read_photograph(case["image"]).shape[:2])
        _warn_of_rotation(Path(case["image"]))
    except DatasetError as error:
        problems += error.problems
    if convention is None:
        return problems
    label = case["label"]
    try:
        mask = read_mask(label)
    except DatasetError as error:
        return problems + error.problems
    problems += [Problem(label, *parts) for parts in convention.problems(mask, image_suffix(label) in LOSSY)]
    if shapes and mask.shape != shapes[0]:
        found = "{1} x {0} against {3} x {2} pixels".format(*mask.shape, *shapes[0])
        remedy = "pair the right files, or take the mask in its original size"
        problems.append(Problem(label, f"must have the size of {Path(case['image']).name}", found, remedy))
    return problems


def _decode(path: Path) -> tuple[np.ndarray, str]:
    """Return the pixels of a picture, shape (H, W) or (H, W, C), and Pillow's name of its mode."""
    suffix = image_suffix(path)
    if path.is_file() and suffix not in PICTURES:
        found = f"the suffix {path.suffix!r}"
        raise refusal(path, f"must be a picture ({' '.join(PICTURES)})", found, "convert it")
    if suffix in (".tif", ".tiff") and (pixels := _read_float_tiff(path)) is not None:
        return pixels, "RGB" if pixels.ndim == 3 and pixels.shape[2] == 3 else "F"
    volume = read_volume(path)
    with Image.open(path) as image:
        mode = image.mode
    return np.swapaxes(volume.array, 0, 1), mode


def _read_float_tiff(path: Path) -> np.ndarray | None:
    """Read a floating-point TIFF, which Pillow opens with one channel at most; `None` for every other file."""
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            # pixels of a type that is unknown have none
            return page.asarray().astype(np.float32) if getattr(page.dtype, "kind", None) == "f" else None
    except (*TIFF_ERRORS, tifffile.TiffFileError):
        return None  # the reader of pictures says what is wrong with it


def _of_mode(mode: str) -> tuple[str, str]:
    """Return what a picture of another mode than RGB is, and what to do about it."""
    if mode in ("1", "L", "LA", "F") or mode.startswith("I"):
        return f"1 gray channel (mode {mode})", "list the color photograph as image; a mask belongs under label"
    if mode == "P":
        return "indices into a palette", "convert it to RGB if it is a photograph; a mask belongs under label"
    if mode == "RGBA":
        return "a transparent picture (mode RGBA)", "flatten it to RGB on the background that it was made for"
    return f"the color mode {mode}", "convert it to RGB"


def _warn_of_rotation(path: Path) -> None:
    """Say where viewers turn a photograph that is used as it is stored."""
    with Image.open(path) if image_suffix(path) in LOSSY else Image.new("L", (1, 1)) as image:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if orientation != 1:
        logger.warning(
            "%s: viewers turn it by its EXIF orientation %s; here it stays as its pixels are stored, its mask too",
            path,
            orientation,
        )
