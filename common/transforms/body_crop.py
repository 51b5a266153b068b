"""Crop a CT to the patient: no table, no air around the body."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import nibabel as nib
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Crop, Cropd
from scipy import ndimage

__all__ = ["CropBodyd", "body_box"]


def body_box(
    image: torch.Tensor,
    affine: torch.Tensor | np.ndarray,
    threshold_hu: float = -600.0,
    min_fraction: float = 0.6,
    opening_mm: float = 10.0,
) -> tuple[slice, ...]:
    """Find the box of the patient in the axial plane of a CT.

    As the public Volume Fusion demo prepares its CT (PyMIC_examples, seg_self_sup/lung): a pixel of the axial plane
    belongs to the body if more than `min_fraction` of the slices are above `threshold_hu` there; an opening removes the
    table, the largest component is the patient. Here the axial plane is taken from the affine, whatever the order of
    the axes, holes (lungs) are filled before the opening so that a thin chest wall does not fall apart, and the opening
    is a disk in mm, so that it means the same at every pixel size.

    Args:
        image: CT in HU. Shape (1, X, Y, Z), in any orientation.
        affine: Voxel indices to RAS mm. Shape (4, 4).
        threshold_hu: What is above is tissue or table.
        min_fraction: Share of the slices that must be above, in [0, 1).
        opening_mm: Diameter of the disk; what is thinner is no patient.

    Returns:
        One slice per spatial axis. The whole axis along the body, and on all axes where there is no body: an
        image in other units, or of air.

    Raises:
        ValueError: If `image` is not one channel of a volume.
    """
    if image.ndim != 4 or image.shape[0] != 1:
        raise ValueError(
            f"image must be one channel of a volume, (1, X, Y, Z); found shape {tuple(image.shape)}. "
            "Use EnsureChannelFirstd before, and one modality."
        )
    matrix = np.asarray(affine, dtype=float)
    long_axis = int(np.flatnonzero(nib.io_orientation(matrix)[:, 0] == 2)[0])
    in_plane = [axis for axis in range(3) if axis != long_axis]
    volume = torch.as_tensor(image[0])
    num_slices = volume.shape[long_axis]
    counts = torch.count_nonzero(volume > threshold_hu, dim=long_axis)
    mask = (counts > min_fraction * num_slices).cpu().numpy()
    pixel_mm = np.linalg.norm(matrix[:3, in_plane], axis=0)
    body = _largest_component(_open(ndimage.binary_fill_holes(mask), pixel_mm, opening_mm))
    box = [slice(0, size) for size in volume.shape]
    if body.any():
        for axis, (start, stop) in zip(in_plane, _extent(body), strict=True):
            box[axis] = slice(start, stop)
    return tuple(box)


class CropBodyd(Cropd):
    """Crop a CT, and what lies on it, to the box of the patient in the axial plane; see `body_box`.

    Use it before intensities are scaled, as it takes HU. It can be inverted, so `Invertd` gives predictions the size of
    the input; what was cropped is then background.

    Args:
        keys: Images to crop, all of one size.
        source_key: CT in HU that the box is found in. A `MetaTensor` of shape (1, X, Y, Z).
        threshold_hu: See `body_box`.
        min_fraction: See `body_box`. Where a part of the body is in few slices (shoulders in a CT of the head and neck)
            a smaller share keeps it.
        opening_mm: See `body_box`.
        allow_missing_keys: Do not raise if a key of `keys` is missing.
        lazy: Record the crop for MONAI's lazy resampling instead of doing it at once.

    Raises:
        TypeError: On call, if the CT has no affine.
    """

    def __init__(
        self,
        keys: KeysCollection,
        source_key: str = "image",
        threshold_hu: float = -600.0,
        min_fraction: float = 0.6,
        opening_mm: float = 10.0,
        allow_missing_keys: bool = False,
        lazy: bool = False,
    ) -> None:
        super().__init__(keys, cropper=Crop(lazy=lazy), allow_missing_keys=allow_missing_keys, lazy=lazy)
        self.source_key = source_key
        self.threshold_hu = threshold_hu
        self.min_fraction = min_fraction
        self.opening_mm = opening_mm

    @property
    def requires_current_data(self) -> bool:
        """The box depends on voxel values, so pending lazy transforms are applied first."""
        return True

    def __call__(self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None) -> dict[Hashable, torch.Tensor]:
        """Crop every key by the box of the patient."""
        cropped = dict(data)
        source = cropped[self.source_key]
        if not isinstance(source, MetaTensor):
            raise TypeError(
                f"{self.source_key!r} must be a MetaTensor, whose affine tells the axial plane; "
                f"found {type(source).__name__}. Load it with LoadImaged."
            )
        box = body_box(source, source.affine, self.threshold_hu, self.min_fraction, self.opening_mm)
        for key in self.key_iterator(cropped):
            cropped[key] = self.cropper(cropped[key], slices=box, lazy=self.lazy if lazy is None else lazy)
        return cropped


def _open(mask: np.ndarray, pixel_mm: np.ndarray, diameter_mm: float) -> np.ndarray:
    """Keep of a mask what a disk that fits into it covers; the border of the image does not count as one of the mask.

    Distance maps do the same as erosion and dilation by the disk, at a cost that does not grow with it.
    """
    if mask.all() or not mask.any():
        return mask
    eroded = ndimage.distance_transform_edt(mask, sampling=pixel_mm) > diameter_mm / 2
    if not eroded.any():
        return eroded
    return ndimage.distance_transform_edt(~eroded, sampling=pixel_mm) <= diameter_mm / 2


def _largest_component(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask."""
    labels, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(labels.ravel())
    return labels == 1 + int(np.argmax(sizes[1:]))


def _extent(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return start and stop on each axis of what is true."""
    return [(s.start, s.stop) for s in ndimage.find_objects(mask.astype(np.uint8))[0]]
