"""Readers for tests that share no code with those of `common.data.readers`: what does a file say, byte by byte?"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from tests.faults.hostile_nifti import CODES, FIELDS

Reading = tuple[np.ndarray, np.ndarray | None]
TYPES = {code: name for name, code in CODES.items()}


def second_reading(path: Path) -> Reading | None:
    """Return values and affine to RAS mm of a file; None where it does not say them."""
    name = path.name.lower()
    try:
        if name.endswith((".nii", ".nii.gz")):
            return _nifti(path)
    except (struct.error, zlib.error, OSError, EOFError, ValueError, OverflowError, KeyError, IndexError):
        return None
    return None


def _nifti(path: Path) -> Reading | None:
    content = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        content = gzip.decompress(content)
    endian = next((e for e in "<>" if struct.unpack_from(f"{e}i", content)[0] == 348), None)
    if endian is None:
        return None
    header = {}
    for name, (offset, layout) in FIELDS.items():
        values = struct.unpack_from(endian + layout, content, offset)
        header[name] = values if len(values) > 1 else values[0]
    rank = header["dim"][0]
    shape = header["dim"][1 : rank + 1]
    offset = header["vox_offset"]
    if header["magic"] != b"n+1\0" or not 1 <= rank <= 7 or min(shape) < 1 or offset < 352 or offset != int(offset):
        return None
    dtype = np.dtype(endian + TYPES[header["datatype"]])
    count = math.prod(shape)
    array = np.frombuffer(content, dtype, count, int(offset)).reshape(shape, order="F")
    slope, inter = header["scl_slope"], header["scl_inter"]
    if not math.isnan(slope) and slope != 0 and (slope, inter) != (1, 0):
        if not math.isfinite(slope) or not math.isfinite(inter):
            return None
        array = array * slope + inter
    return array, _nifti_affine(header)


def _nifti_affine(header: dict) -> np.ndarray | None:
    affine = np.eye(4)
    if header["sform_code"] > 0:
        affine[:3] = np.reshape(header["srow"], (3, 4))
        return affine
    if header["qform_code"] <= 0:
        return None  # a guess is as good as another
    b, c, d = header["quatern"]
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    # negative sizes are taken as positive; an axis that is not there has size 1
    sizes = [abs(s) if axis < header["dim"][0] else 1.0 for axis, s in enumerate(header["pixdim"][1:4])]
    qfac = -1.0 if header["pixdim"][0] == -1 else 1.0
    affine[:3, :3] = rotation @ np.diag([*sizes[:2], qfac * sizes[2]])
    affine[:3, 3] = header["qoffset"]
    return affine
