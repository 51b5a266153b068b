"""Boxes around what is in an array, as slices."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import find_objects

__all__ = ["joint_window", "label_windows", "mask_window"]


def mask_window(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box that holds a mask.

    Args:
        mask: Mask of any shape, bool.

    Returns:
        One slice an axis; slices of length zero where the mask is empty.
    """
    window: list[slice] = []
    for axis in range(mask.ndim):
        # the box found so far is enough to look at
        found = np.flatnonzero(mask[tuple(window)].any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        window.append(slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0))
    return tuple(window)


def label_windows(label_map: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """Return the smallest box of each label above zero, all in one pass.

    Args:
        label_map: Label map of any shape, whole numbers.

    Returns:
        One slice an axis for each label that is there.
    """
    return {label: window for label, window in enumerate(find_objects(label_map), start=1) if window is not None}


def joint_window(*windows: tuple[slice, ...]) -> tuple[slice, ...]:
    """Return the smallest box that holds all of the given ones, of which there is at least one."""
    return tuple(slice(min(s.start for s in axis), max(s.stop for s in axis)) for axis in zip(*windows, strict=True))
