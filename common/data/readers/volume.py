"""What a reader gives, and how two geometries are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..problems import refusal

__all__ = ["GEOMETRY_TOLERANCE_MM", "Volume", "check_affine", "displacement_mm", "split_channels"]

GEOMETRY_TOLERANCE_MM = 0.1
MIN_VOXEL_MM = 1e-6
# Volume of a voxel by that of a box with its sides: sheared as far as a gantry tilts it is above 0.8.
MIN_VOLUME_SHARE = 0.01
# The longest scanners see two meters of a patient; farther away than MAX_DISTANCE_MM, 32 bits do not place a voxel
# within GEOMETRY_TOLERANCE_MM.
MAX_EXTENT_MM = 10_000.0
MAX_DISTANCE_MM = 1_000_000.0


@dataclass
class Volume:
    """One image as read.

    Attributes:
        array: Values in the reader's order: spatial axes, then one channel axis where there are several channels.
        affine: Voxel indices to RAS millimeters. Shape (4, 4). `None` for 2D formats, which have no geometry.
        spatial_shape: Size per spatial axis.
        num_channels: Channels (or time points) per voxel.
        warnings: What can be read but is doubtful, one sentence each.
        is_palette: Whether the values are indices into a palette, which suits labels and no intensities.
    """

    array: np.ndarray
    affine: np.ndarray | None
    spatial_shape: tuple[int, ...]
    num_channels: int
    warnings: list[str] = field(default_factory=list)
    is_palette: bool = False

    @property
    def spacing_mm(self) -> tuple[float, ...] | None:
        """Voxel size per spatial axis in mm; `None` where the format has no geometry."""
        if self.affine is None:
            return None
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, : len(self.spatial_shape)], axis=0))


def split_channels(path: Path, shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Split the shape of an array as MONAI does: at most three spatial axes, then one of channels.

    Args:
        path: File, for the message.
        shape: Shape of the array with channels last, or without channels.

    Returns:
        Size per spatial axis, and number of channels.

    Raises:
        DatasetError: If an axis is empty or there are more than four, also where the fifth has size 1: the
            transforms would take it for a spatial axis.
    """
    if len(shape) > 4 or 0 in shape:
        raise refusal(
            path,
            "must have two or three spatial axes and at most one of channels, none of them empty",
            f"shape {tuple(shape)}",
            "save it again without the axes that are not needed",
        )
    return tuple(shape[:3]), int(shape[3]) if len(shape) == 4 else 1


def displacement_mm(affine: np.ndarray, other: np.ndarray, spatial_shape: tuple[int, ...]) -> float:
    """Return how far apart two affines put the same voxel, at most, over a field of view.

    The difference of two affine maps is affine, so its length is greatest at a corner. Comparing the matrices element
    by element would forgive a small rotation that moves the far corner by centimeters.

    Args:
        affine: Voxel indices to mm. Shape (4, 4).
        other: Voxel indices to mm. Shape (4, 4).
        spatial_shape: Size per spatial axis, at most three.

    Returns:
        Largest distance in mm, taken at the outer corners of the corner voxels.
    """
    sizes = (*spatial_shape, 1, 1, 1)[:3]
    corners = np.stack(np.meshgrid(*[(-0.5, n - 0.5) for n in sizes], indexing="ij")).reshape(3, -1)
    corners = np.concatenate([corners, np.ones((1, corners.shape[1]))])
    return float(np.linalg.norm(((affine - other) @ corners)[:3], axis=0).max())


def check_affine(path: Path, affine: np.ndarray, spatial_shape: tuple[int, ...]) -> None:
    """Refuse an affine that has no inverse, or no place within reach of a scanner.

    Args:
        path: File, for the message.
        affine: Voxel indices to mm. Shape (4, 4).
        spatial_shape: Size per spatial axis, at most three.

    Raises:
        DatasetError: If a number is not finite, the voxels have no volume, or the image is too large or too far away.
    """
    if not np.isfinite(affine).all():
        found = "NaN or infinite numbers in the affine"
    elif not _are_independent(affine):
        found = f"the affine {np.array2string(affine[:3], precision=4, separator=', ')}".replace("\n", "")
    else:
        _check_reach(path, affine, (*spatial_shape, 1, 1, 1)[:3])
        return
    raise refusal(path, "must have a voxel size above zero on three independent axes", found, "repair the header")


def _are_independent(affine: np.ndarray) -> bool:
    """Tell whether voxels have a length along each axis, and a volume that is not a tiny part of that of a box."""
    lengths_mm = np.linalg.norm(affine[:3, :3], axis=0)
    return bool(
        lengths_mm.min() > MIN_VOXEL_MM and abs(float(np.linalg.det(affine[:3, :3] / lengths_mm))) > MIN_VOLUME_SHARE
    )


def _check_reach(path: Path, affine: np.ndarray, sizes: tuple[int, ...]) -> None:
    """Refuse what no scanner covers: resampling it would ask for terabytes."""
    extents_mm = np.linalg.norm(affine[:3, :3], axis=0) * sizes
    distance_mm = float(np.abs(affine[:3, 3]).max())
    if extents_mm.max() > MAX_EXTENT_MM or distance_mm > MAX_DISTANCE_MM:
        found = f"{' x '.join(f'{e:.4g}' for e in extents_mm)} mm, its first voxel {distance_mm:.4g} mm away"
        rule = f"must reach over {MAX_EXTENT_MM / 1000:g} m at most, and lie within {MAX_DISTANCE_MM / 1000:g} m"
        raise refusal(path, rule, found, "repair voxel size and origin in the header; the unit is mm")
