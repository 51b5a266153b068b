"""NIfTI, through nibabel."""

from __future__ import annotations

import math
from pathlib import Path

import nibabel as nib
import numpy as np
from monai.data.utils import correct_nifti_header_if_necessary
from nibabel.volumeutils import apply_read_scaling

from ..problems import refusal
from .capacity import check_capacity, read_gzip
from .nifti_header import check_nifti_header
from .volume import GEOMETRY_TOLERANCE_MM, Volume, check_affine, displacement_mm, split_channels

__all__ = ["read_nifti"]


def read_nifti(path: Path) -> Volume:
    """Read a NIfTI file; see `read_volume`.

    Raises:
        DatasetError: If the header contradicts itself, or the voxels are not all there, or are not numbers.
    """
    check_nifti_header(path)
    stored = nib.load(path)
    voxels = stored.dataobj
    if voxels.dtype.kind not in "iuf":
        raise refusal(
            path, "must hold real numbers", f"voxels of type {voxels.dtype}", "convert it to one number per voxel"
        )
    compressed = path.suffix.lower() == ".gz"
    num_bytes = voxels.offset + math.prod(voxels.shape) * voxels.dtype.itemsize
    check_capacity(path, voxels.shape, num_bytes, path.stat().st_size, compressed)
    stored_affine = stored.affine
    check_affine(path, stored_affine, stored.shape[:3])
    image = correct_nifti_header_if_necessary(nib.load(path))  # as MONAI's reader does
    _check_affine_is_kept(path, image, stored_affine)
    if compressed:
        raw = read_gzip(path, num_bytes)
        array = np.ndarray(voxels.shape, voxels.dtype, buffer=raw, offset=voxels.offset, order="F")
        array = apply_read_scaling(array, voxels.slope, voxels.inter)
    else:
        array = np.asanyarray(voxels)
    spatial_shape, num_channels = split_channels(path, array.shape)
    return Volume(array, np.array(image.affine), spatial_shape, num_channels, _orientation_warnings(image))


def _check_affine_is_kept(path: Path, image: nib.Nifti1Image, stored_affine: np.ndarray) -> None:
    """Refuse a header from which MONAI makes another affine: it takes the qform, set or not, and says nothing.

    It does so where pixdim contradicts the sform, and where an image of two or four axes has an sform alone.
    """
    shift_mm = displacement_mm(stored_affine, image.affine, image.shape[:3])
    if shift_mm <= GEOMETRY_TOLERANCE_MM:
        return
    rank = min(len(image.shape), 3)
    pixdim = np.asarray(nib.load(path).header.get_zooms()[:rank], float)
    spacing = np.linalg.norm(stored_affine[:3, :rank], axis=0)
    if np.allclose(pixdim, spacing, rtol=1e-3):
        raise refusal(
            path,
            "must have sform and qform where it has other than three axes, as MONAI drops an sform alone",
            f"{len(image.shape)} axes and no qform (voxels up to {shift_mm:.3g} mm apart)",
            "save it again, with nibabel: image.set_qform(image.affine, 1)",
        )
    raise refusal(
        path,
        "must give one voxel size",
        f"{_numbers(pixdim)} mm as pixdim, {_numbers(spacing)} mm in the sform (voxels up to {shift_mm:.3g} mm apart)",
        "decide which is right and save it again, with nibabel: header.set_zooms(...) or set_sform(...)",
    )


def _orientation_warnings(image: nib.Nifti1Image) -> list[str]:
    """Return what is doubtful about the orientation of a NIfTI image."""
    sform, sform_code = image.get_sform(coded=True)
    qform, qform_code = image.get_qform(coded=True)
    if not sform_code and not qform_code:
        return ["neither sform nor qform is set: the orientation is a guess (x from right to left)"]
    if sform_code and qform_code:
        shift_mm = displacement_mm(sform, qform, image.shape[:3])
        if shift_mm > GEOMETRY_TOLERANCE_MM:
            return [
                f"sform and qform place voxels up to {shift_mm:.3g} mm apart; the sform is used and written, so a "
                "program that prefers the qform will show this image elsewhere than a prediction"
            ]
    return []


def _numbers(values: np.ndarray) -> str:
    return " x ".join(f"{v:.4g}" for v in values)
