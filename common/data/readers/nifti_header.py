"""What a NIfTI header says before nibabel repairs it: it replaces impossible numbers by likely ones."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.nifti1 import xform_codes

from ..problems import DatasetError, Problem
from .capacity import damaged

__all__ = ["check_nifti_header"]

# Size of a header as it stands in its first four bytes, and what a header of that size is.
KINDS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
UNKNOWN_UNIT, MILLIMETER = 0, 2
UNIT_MASK = 7  # of `xyzt_units`, whose other bits are the unit of time
REMEDY = "repair the header where it is known what is right, else copy it again from its source"


def check_nifti_header(path: Path) -> None:
    """Refuse a header with numbers that no program may guess: sizes, place of the voxels, units, scaling, forms.

    Args:
        path: NIfTI-1 or NIfTI-2, in one file, may be compressed.

    Raises:
        DatasetError: With a line for each broken rule.
    """
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
        start = stream.read(max(KINDS))
    sizes = [(struct.unpack(f"{endian}i", start[:4])[0], endian) for endian in "<>"] if len(start) >= 4 else []
    known = [(KINDS[size], size, endian) for size, endian in sizes if size in KINDS]
    if not known:
        raise damaged(path, f"no NIfTI header, which begins with its size, {' or '.join(map(str, KINDS))}")
    kind, size, endian = known[0]
    if len(start) < size:
        raise damaged(path, f"a header that is cut off ({len(start)} of {size} bytes)")
    header = kind(start[:size], endianness=endian, check=False)
    problems = [Problem(path, rule, found, REMEDY) for rule, found in _broken_rules(header)]
    if problems:
        raise DatasetError(problems)


def _broken_rules(header: nib.Nifti1Header) -> Iterator[tuple[str, str]]:
    """Yield each broken rule with what was found."""
    if bytes(header["magic"])[:3] != header.single_magic:
        yield "must be a NIfTI image in one file", f"the mark {bytes(header['magic'])!r}"
        return
    rank = int(header["dim"][0])
    if not 1 <= rank <= 7:
        yield "must have one to seven axes", f"{rank}"
        return
    shape = [int(n) for n in header["dim"][1 : rank + 1]]
    if min(shape) < 1:
        yield "must have voxels on every axis", f"{' x '.join(map(str, shape))}"
    offset = float(header["vox_offset"])
    if not (offset >= header.single_vox_offset and offset.is_integer()):  # nibabel takes 0 for 0
        yield "must have its voxels behind its header", f"vox_offset {offset:g}"
    unit = int(header["xyzt_units"]) & UNIT_MASK
    if unit not in (UNKNOWN_UNIT, MILLIMETER):
        yield "must be in mm, as everything that reads it here takes it", f"unit {unit} in xyzt_units"
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isinf(slope) or (slope and np.isfinite(slope) and not np.isfinite(inter)):
        yield "must be scaled by finite numbers", f"scl_slope {slope:g}, scl_inter {inter:g}"
    sizes = np.asarray(header["pixdim"][1 : min(rank, 3) + 1], float)
    if not (np.isfinite(sizes).all() and sizes.all()):
        yield "must have a voxel size above zero on three independent axes", f"{sizes.tolist()} mm as pixdim"
    codes = {name: int(header[name]) for name in ("sform_code", "qform_code")}
    for name, code in codes.items():
        if code not in xform_codes.value_set("code"):
            yield f"must have a {name} that the format knows", f"{code}"
    if codes["qform_code"] > 0 and float(header["pixdim"][0]) not in (-1, 0, 1):
        yield "must say whether it is left-handed by 1 or -1", f"{float(header['pixdim'][0]):g} as pixdim[0]"
    length = float(np.square(np.asarray(header.structarr[["quatern_b", "quatern_c", "quatern_d"]].tolist())).sum())
    if codes["qform_code"] > 0 and not length <= 1 + 1e-6:
        yield "must have a quaternion of length one", f"{np.sqrt(length):g} without its first number"
