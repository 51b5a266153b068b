"""Smooth random fields: deformations, tissue texture and the correlated noise of a reconstruction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

Array = np.ndarray


def spline_field(rng: np.random.Generator, shape: Sequence[int], spacing_mm: Sequence[float], knot_mm: float) -> Array:
    """Draw a smooth random field as a cubic B-spline over a lattice of random coefficients.

    The lattice is fixed in millimeters, so a field looks the same on a coarse and on a fine grid.

    Args:
        rng: Source of randomness.
        shape: Grid size along (x, y, z).
        spacing_mm: Grid spacing along (x, y, z).
        knot_mm: Distance of the lattice points, about the size of the bumps.

    Returns:
        Field with mean near 0 and variance near 1. Shape (x, y, z), float32.
    """
    bases = [_cubic_basis(n, step, knot_mm) for n, step in zip(shape, spacing_mm, strict=True)]
    # The variance of a cubic B-spline over white coefficients is about 0.48 per axis.
    coefficients = rng.standard_normal([b.shape[1] for b in bases]).astype(np.float32) / np.float32(0.48**1.5)
    field = np.tensordot(bases[0], coefficients, axes=(1, 0))
    field = np.einsum("jb,abc->ajc", bases[1], field, optimize=True)
    return np.ascontiguousarray(field @ bases[2].T, dtype=np.float32)


def _cubic_basis(size: int, step_mm: float, knot_mm: float) -> Array:
    """Values of all cubic B-splines at the grid points of one axis, shape (size, knots)."""
    position = np.arange(size) * step_mm / knot_mm
    knots = np.arange(-1, int(np.ceil(position[-1])) + 3)
    distance = np.abs(position[:, None] - knots[None, :])
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, inner, outer).astype(np.float32)


def filtered_noise(rng: np.random.Generator, shape: Sequence[int], sigma_voxels: Sequence[float]) -> Array:
    """Draw white noise smoothed by a Gaussian kernel and scaled back to variance 1.

    Args:
        rng: Source of randomness.
        shape: Grid size.
        sigma_voxels: Standard deviation of the kernel per axis, in voxels; 0 leaves an axis as it is.

    Returns:
        Noise with mean near 0 and variance near 1. Shape `shape`, float32.
    """
    noise = ndimage.gaussian_filter(rng.standard_normal(tuple(shape), dtype=np.float32), sigma_voxels, mode="wrap")
    deviation = float(noise.std())
    return noise / np.float32(deviation) if deviation > 0 else noise
