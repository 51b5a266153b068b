"""Scribbles made from masks, as a stand-in for a person's: to develop, test and study weak labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ...data.scribbles import UNLABELLED
from .strokes import background_paths, border_path, brush, geodesic_order, interior_path

__all__ = ["check_fraction", "check_scribble_options", "cut_scribble", "generate_scribble"]

Array = np.ndarray

_EIGHT = np.ones((3, 3), dtype=bool)
MIN_COMPONENT_PX = 10


@dataclass(frozen=True)
class _Pen:
    """How strokes are drawn."""

    width: int
    border_stroke: bool
    label_noise_px: int


def generate_scribble(
    label: Array,
    num_classes: int,
    case: str = "",
    width: int = 3,
    slice_fraction: float = 1.0,
    pixel_fraction: float = 1.0,
    border_stroke: bool = False,
    label_noise_px: int = 0,
    slice_axis: int = -1,
    seed: int = 0,
) -> Array:
    """Draw scribbles into a label map, slice by slice.

    In every slice each connected part of a structure, of 10 pixels or more, gets a stroke along its middle line (a part
    of the longest path of the skeleton of the shrunken part), or a curve across where it is round. The background gets
    an arc around all structures, 6 to 14 pixels away, and in slices without structures a stroke through the image. No
    stroke leaves its class, unless `label_noise_px` asks for it.

    The recipe is ours, after what the generators of WSL4MIS and ScribbleBench (arXiv:2403.12834) do; of the latter are
    the border strokes. Strokes of one slice and class depend on `seed`, `case`, slice and class alone, not on what
    else is drawn or in which order.

    Args:
        label: Classes. Shape (H, W) or (I, J, K), whole numbers in [0, num_classes), or 255 where the class is unknown.
        num_classes: Number of classes, background included.
        case: Name of the case: different cases are drawn differently.
        width: Width of the brush in pixels, odd. Expert scribbles of ACDC cover their structures as widths between 1
            and 3 do.
        slice_fraction: Share of the slices that is annotated, evenly spread over those with structures (at least one)
            and those without.
        pixel_fraction: Share of the pixels of each stroke that is kept; see `cut_scribble`.
        border_stroke: Draw a second stroke in each part, along its border.
        label_noise_px: How far a stroke may slip, in pixels: it is shifted by up to so much and no longer cut at
            the border of its class.
        slice_axis: Axis along which slices are taken; no matter in 2D.
        seed: Seed of everything random.

    Returns:
        Classes where something is drawn, `UNLABELLED` (255) elsewhere. Same shape, uint8.

    Raises:
        TypeError: If a count is not a whole number.
        ValueError: If the label is not 2D or 3D or holds other values, or an option is out of range.
    """
    labels = _checked_label(label, num_classes)
    check_scribble_options(width, slice_fraction, pixel_fraction, label_noise_px)
    pen = _Pen(width, bool(border_stroke), label_noise_px)
    scribble = np.full(labels.shape, UNLABELLED, dtype=np.uint8)
    planes, drawn = _slices_first(labels, slice_axis), _slices_first(scribble, slice_axis)
    for index in _annotated_slices(planes, slice_fraction):
        for number in range(num_classes):
            rng = _stream(seed, case, index, number)
            drawn[index][_draw_class(planes[index], number, rng, pen)] = number
    return cut_scribble(scribble, pixel_fraction, case, slice_axis, seed)


def cut_scribble(scribble: Array, pixel_fraction: float, case: str = "", slice_axis: int = -1, seed: int = 0) -> Array:
    """Keep a share of every stroke: the pixels around a random one of it, measured along the stroke.

    With the same seed a smaller share is part of a larger one. For studies of how many pixels a method needs, with
    real scribbles, too.

    Args:
        scribble: Classes or `UNLABELLED`. Shape (H, W) or (I, J, K).
        pixel_fraction: Share of the pixels of each stroke, in (0, 1]; at least one pixel stays.
        case: Name of the case: different cases are cut differently.
        slice_axis: Axis along which slices are taken; no matter in 2D.
        seed: Seed.

    Returns:
        A copy with fewer pixels. Same shape and type.

    Raises:
        ValueError: If the fraction is out of range.
    """
    check_fraction("pixel_fraction", pixel_fraction)
    kept = scribble.copy()
    if pixel_fraction == 1:
        return kept
    for index, plane in enumerate(_slices_first(kept, slice_axis)):
        for number in np.unique(plane[plane != UNLABELLED]).tolist():
            rng = _stream(seed, case, index, int(number), "cut")
            strokes, _ = ndimage.label(plane == number, structure=_EIGHT)
            for k, box in enumerate(ndimage.find_objects(strokes), 1):
                stroke = strokes[box] == k
                pixels = np.argwhere(stroke)
                order = geodesic_order(stroke, int(rng.integers(len(pixels))))
                gone = pixels[order[max(1, round(pixel_fraction * len(pixels))) :]]
                plane[box][tuple(gone.T)] = UNLABELLED
    return kept


def _draw_class(plane: Array, number: int, rng: np.random.Generator, pen: _Pen) -> Array:
    """Return the pixels of one slice that are drawn as one class."""
    region = plane == number
    mask = np.zeros(plane.shape, dtype=bool)
    for path in background_paths(region, rng) if number == 0 else _structure_paths(region, rng, pen):
        angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(0, pen.label_noise_px)
        slip = np.rint(length * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        mask |= brush(path + slip, pen.width, plane.shape)
    return mask if pen.label_noise_px else mask & region


def _structure_paths(region: Array, rng: np.random.Generator, pen: _Pen) -> Iterator[Array]:
    """Yield the strokes of one structure: one or two in each of its parts."""
    parts, _ = ndimage.label(region, structure=_EIGHT)
    for k, box in enumerate(ndimage.find_objects(parts), 1):
        part = parts[box] == k
        if np.count_nonzero(part) < MIN_COMPONENT_PX:
            continue
        corner = np.array([s.start for s in box])
        yield interior_path(part, rng) + corner
        if pen.border_stroke:
            yield border_path(part, rng) + corner


def _annotated_slices(planes: Array, slice_fraction: float) -> list[int]:
    """Choose slices evenly, of those with structures and of those without."""
    foreground = ((planes > 0) & (planes != UNLABELLED)).any(axis=(1, 2))
    chosen: list[int] = []
    for group, least in ((np.flatnonzero(foreground), 1), (np.flatnonzero(~foreground), 0)):
        count = max(min(least, len(group)), round(slice_fraction * len(group)))
        places = (np.arange(count) + 0.5) * len(group) / max(count, 1)
        chosen += group[places.astype(int)].tolist()
    return chosen


def _slices_first(array: Array, slice_axis: int) -> Array:
    """Return a view with the slices in front; an image is one slice."""
    return array[None] if array.ndim == 2 else np.moveaxis(array, slice_axis, 0)


def _stream(seed: int, case: str, index: int, number: int, purpose: str = "draw") -> np.random.Generator:
    """Make the generator of one slice and class, the same on every machine and in every order."""
    digest = hashlib.blake2b(f"{seed}/{case}/{index}/{number}/{purpose}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _checked_label(label: Array, num_classes: int) -> Array:
    """Refuse what is no label map, and return it as whole numbers."""
    if label.ndim not in (2, 3):
        raise ValueError(f"label must have 2 or 3 axes, without channels; found shape {tuple(label.shape)}.")
    labels = label.astype(np.int64)
    known = (labels == label) & (((labels >= 0) & (labels < num_classes)) | (labels == UNLABELLED))
    if not known.all():
        wrong = ", ".join(f"{value:g}" for value in np.unique(label[~known])[:8])
        raise ValueError(
            f"label must hold whole numbers in [0, {num_classes}), or {UNLABELLED}; found {wrong}: map them, or set "
            "num_classes."
        )
    return labels


def check_scribble_options(
    width: int = 3, slice_fraction: float = 1.0, pixel_fraction: float = 1.0, label_noise_px: int = 0
) -> None:
    """Refuse options of `generate_scribble` before there is a label map.

    Args:
        width: See `generate_scribble`.
        slice_fraction: See `generate_scribble`.
        pixel_fraction: See `generate_scribble`.
        label_noise_px: See `generate_scribble`.

    Raises:
        TypeError: If a count is not a whole number.
        ValueError: If an option is out of range.
    """
    for name, value in (("width", width), ("label_noise_px", label_noise_px)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{name} must be a whole number of pixels; found {value!r}.")
    if width < 1 or width % 2 == 0:
        raise ValueError(f"width must be odd and at least 1, so that a stroke has a middle; found {width}.")
    if label_noise_px < 0:
        raise ValueError(f"label_noise_px must be at least 0; found {label_noise_px}: 0 keeps strokes in their class.")
    check_fraction("slice_fraction", slice_fraction)
    check_fraction("pixel_fraction", pixel_fraction)


def check_fraction(name: str, value: float) -> None:
    """Refuse a share that keeps nothing, or more than there is.

    Args:
        name: Name of the option.
        value: Its value.

    Raises:
        ValueError: If it is not in (0, 1].
    """
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be in (0, 1]; found {value}: 1 keeps everything.")
