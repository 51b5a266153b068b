"""Shapes as signed distances in millimeters: negative inside, zero on the surface, vectorized over points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.interpolate import PchipInterpolator

Array = np.ndarray


def smooth_min(first: Array, second: Array, radius_mm: float) -> Array:
    """Unite two shapes and fill the crease between them.

    Args:
        first: Signed distance, any shape.
        second: Signed distance, broadcastable to `first`.
        radius_mm: Width of the transition; where the distances differ by more, the smaller one is returned.

    Returns:
        Signed distance of the union, at most the smaller of the two.
    """
    mix = np.clip(0.5 + (second - first) / (2 * radius_mm), 0, 1)
    return second + (first - second) * mix - radius_mm * mix * (1 - mix)


def smooth_max(first: Array, second: Array, radius_mm: float) -> Array:
    """Intersect two shapes and round the edge between them; see `smooth_min`."""
    return -smooth_min(-first, -second, radius_mm)


def ellipsoid(x: Array, y: Array, z: Array, semi_axes_mm: Sequence[float]) -> Array:
    """Approximate signed distance of an axis-parallel ellipsoid around the origin.

    First-order estimate, value over gradient: exact on the surface and right in sign everywhere.

    Args:
        x: First coordinate in mm, any shape; `y` and `z` alike.
        y: Second coordinate in mm.
        z: Third coordinate in mm.
        semi_axes_mm: The three semi-axes.

    Returns:
        Signed distance in mm, of the coordinates' shape.
    """
    a, b, c = (np.float32(s) for s in semi_axes_mm)
    u, v, w = x / a, y / b, z / c
    norm = np.sqrt(u * u + v * v + w * w)
    u, v, w = u / a, v / b, w / c
    gradient = np.sqrt(u * u + v * v + w * w)
    return norm * (norm - 1) / np.maximum(gradient, np.float32(1e-4))


def ellipse(x: Array, y: Array, half_width_mm: Array | float, half_height_mm: Array | float) -> Array:
    """Approximate signed distance of an ellipse (a cylinder along z) whose half-axes may change from point to point."""
    u, v = x / half_width_mm, y / half_height_mm
    norm = np.sqrt(u * u + v * v)
    u, v = u / half_width_mm, v / half_height_mm
    gradient = np.sqrt(u * u + v * v)
    return norm * (norm - 1) / np.maximum(gradient, np.float32(1e-4))


def torso_section(x: Array, y: Array, half_width_mm: Array, front_mm: Array, back_mm: Array) -> Array:
    """Approximate signed distance of a rounded rectangle, as a torso is in cross-section.

    A superellipse of exponent 2.5, deeper or flatter in front (y > 0) than behind.

    Args:
        x: Coordinate to the right in mm, any shape; `y` alike.
        y: Coordinate to the front in mm.
        half_width_mm: Half-axis along x, broadcastable.
        front_mm: Half-axis toward positive y, broadcastable.
        back_mm: Half-axis toward negative y, broadcastable.

    Returns:
        Signed distance in mm, of the coordinates' shape.
    """
    depth = np.where(y > 0, front_mm, back_mm)
    u, v = np.abs(x) / half_width_mm, np.abs(y) / depth
    u15, v15 = u * np.sqrt(u), v * np.sqrt(v)
    total = np.maximum(u15 * u + v15 * v, np.float32(1e-6))
    norm = total ** np.float32(0.4)
    u15, v15 = u15 / half_width_mm, v15 / depth
    gradient = np.sqrt(u15 * u15 + v15 * v15) * norm / total
    return (norm - 1) / np.maximum(gradient, np.float32(1e-4))


def rotation_matrix(angles_deg: Sequence[float] | Array) -> Array:
    """Rotation about x, then y, then z. Shape (3, 3), float64."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def spline_path(points_mm: Sequence[Sequence[float]] | Array, step_mm: float) -> Array:
    """Run a smooth curve through points and sample it evenly.

    Args:
        points_mm: At least two rows; the first three columns are x, y and z in mm, further columns (a radius, for
            example) are interpolated along.
        step_mm: Distance of the samples.

    Returns:
        Samples, shape (n, columns), float64.
    """
    points = np.asarray(points_mm, dtype=float)
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(points[:, :3], axis=0), axis=1))])
    count = max(2, round(chord[-1] / step_mm) + 1)
    return PchipInterpolator(chord, points, axis=0)(np.linspace(0, chord[-1], count))
