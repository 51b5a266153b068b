"""Scribbles in files: how programs and data sets write them, and what makes an annotation one.

Inside the bundles a scribble holds a class in [0, num_classes) where something was drawn and `UNLABELLED` elsewhere. A
file cannot: drawing programs take 0 for "nothing drawn", so that nobody can paint the background with 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
from scipy import ndimage

from .problems import Problem

__all__ = [
    "SCRIBBLE_MODES",
    "UNLABELLED",
    "ScribbleMode",
    "coarsest_axis",
    "conversion_table",
    "convert_scribble",
    "find_scribble_problems",
    "user_convention",
]

UNLABELLED = 255
SCRIBBLE_MODES = ("user", "wsl4mis", "scribblebench", "monailabel", "internal")
ScribbleMode: TypeAlias = str | Mapping[int | str, int]

# Nobody draws over more than half of a scan; expert scribbles cover about 1 % (specification 4, ACDC).
MAX_LABELLED_FRACTION = 0.5
# A pixel so far inside a stroke belongs to a filled structure: brushes are 2 to 5 pixels wide.
DEEP_PIXELS = 3
MAX_DEEP_FRACTION = 0.5


def conversion_table(mode: ScribbleMode, num_classes: int) -> dict[int, int]:
    """Return which value of a file means which class, or `UNLABELLED`.

    | mode | file |
    |---|---|
    | `user` | 0 nothing drawn, 1 to C-1 structures, C background: what ITK-SNAP and 3D Slicer can paint |
    | `wsl4mis` | 0 background, 1 to C-1 structures; C (ACDC) or 255 (prostate) unlabelled |
    | `scribblebench` | 0 background, 1 to C-1 structures, C unlabelled, as nnU-Net's ignore label |
    | `monailabel` | 0 nothing drawn, 2 background, 3 foreground: two classes only |
    | `internal` | 0 to C-1 classes, 255 unlabelled |

    Args:
        mode: One of `SCRIBBLE_MODES`, or a mapping from the values of the file to classes and 255; the keys may be
            text, as JSON has no other.
        num_classes: Number of classes C, background included.

    Returns:
        Class or `UNLABELLED` of every value that may occur.

    Raises:
        TypeError: If a value of a mapping is not a whole number.
        ValueError: If the mode is unknown or does not fit `num_classes`, or a mapping gives no background or a class
            that there is not.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or not 2 <= num_classes <= UNLABELLED:
        raise ValueError(
            f"num_classes must be a whole number in [2, {UNLABELLED}], background included; found {num_classes!r}."
        )
    classes = {value: value for value in range(num_classes)}
    if isinstance(mode, Mapping):
        return _custom_table(mode, num_classes)
    if mode == "user":
        return {0: UNLABELLED, **{value: value for value in range(1, num_classes)}, num_classes: 0}
    if mode == "wsl4mis":
        return {**classes, num_classes: UNLABELLED, UNLABELLED: UNLABELLED}
    if mode == "scribblebench":
        return {**classes, num_classes: UNLABELLED}
    if mode == "internal":
        return {**classes, UNLABELLED: UNLABELLED}
    if mode == "monailabel":
        if num_classes != 2:
            raise ValueError(
                f"mode 'monailabel' has background and one structure, so num_classes must be 2; found {num_classes}: "
                "give a mapping of the values instead."
            )
        return {0: UNLABELLED, 2: 0, 3: 1}
    raise ValueError(f"mode must be one of {', '.join(SCRIBBLE_MODES)}, or a mapping; found {mode!r}.")


def _custom_table(mode: Mapping[int | str, int], num_classes: int) -> dict[int, int]:
    """Check a mapping of values and return it with whole numbers as keys."""
    try:
        table = {int(value): int(target) for value, target in mode.items() if int(target) == target}
    except (TypeError, ValueError) as error:
        raise TypeError(f"mode must map whole numbers to whole numbers; found {dict(mode)!r}.") from error
    wrong = sorted({*table.values()} - {*range(num_classes), UNLABELLED})
    if wrong or len(table) < len(mode):
        raise ValueError(
            f"mode must map to classes in [0, {num_classes}) or {UNLABELLED} for unlabelled; found {dict(mode)!r}."
        )
    if 0 not in table.values():
        raise ValueError(
            f"mode must map a value to 0, the background, without which nothing can be learned; found {dict(mode)!r}."
        )
    return table


def convert_scribble(array: np.ndarray, mode: ScribbleMode, num_classes: int, name: str = "scribble") -> np.ndarray:
    """Convert the values of a file to classes.

    Args:
        array: Values as read, any shape and type.
        mode: Convention of the file; see `conversion_table`.
        num_classes: Number of classes, background included.
        name: What to call the array in a message, such as its file.

    Returns:
        Class of each voxel in [0, num_classes), or `UNLABELLED`. Same shape, uint8.

    Raises:
        ValueError: If a value is a fraction or has no meaning in this convention; and see `conversion_table`.
    """
    table = conversion_table(mode, num_classes)
    values = np.unique(array)
    problem = next(_value_problems(name, dict.fromkeys(values.tolist(), 1), table, mode), None)
    if problem is not None:
        raise ValueError(str(problem))
    low = int(values[0]) if values.size else 0
    targets = np.zeros(int(values[-1]) - low + 1 if values.size else 0, dtype=np.uint8)
    for value in values:
        targets[int(value) - low] = table[int(value)]
    return targets[array.astype(np.int64) - low]


def coarsest_axis(affine: np.ndarray) -> int:
    """Return the axis along which the slices of a volume lie: that of the largest spacing, the last one of equal ones.

    Args:
        affine: Voxel indices to mm. Shape (4, 4).

    Returns:
        0, 1 or 2.
    """
    spacing_mm = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    return int(np.flatnonzero(spacing_mm > 0.999 * spacing_mm.max())[-1])


def user_convention(scribble: np.ndarray, num_classes: int) -> np.ndarray:
    """Convert classes to the file convention `user`, which drawing programs show: background as `num_classes`.

    Args:
        scribble: Classes in [0, num_classes) or `UNLABELLED`, any shape.
        num_classes: Number of classes, background included; at most 254.

    Returns:
        0 where nothing is drawn, 1 to num_classes - 1, and num_classes for the background. Same shape, uint8.

    Raises:
        ValueError: If a value is no class, or the classes do not fit.
    """
    scribble = convert_scribble(scribble, "internal", num_classes)
    table = np.zeros(UNLABELLED + 1, dtype=np.uint8)
    for value, target in conversion_table("user", num_classes).items():
        table[target] = value
    return table[scribble]


def find_scribble_problems(
    name: str,
    array: np.ndarray,
    value_counts: Mapping[float, int],
    mode: ScribbleMode,
    num_classes: int,
    slice_axis: int = -1,
) -> tuple[list[Problem], list[str], dict[int, int]]:
    """Say what is wrong with a scribble as it stands in a file.

    Args:
        name: File, for messages.
        array: Its values: two or three spatial axes.
        value_counts: Voxels of each value.
        mode: Convention of the file; see `conversion_table`.
        num_classes: Number of classes, background included.
        slice_axis: Axis along which slices are annotated, for a volume.

    Returns:
        Broken rules, what is doubtful, and the voxels of each class.

    Raises:
        TypeError: See `conversion_table`.
        ValueError: See `conversion_table`.
    """
    table = conversion_table(mode, num_classes)
    problems = list(_value_problems(name, value_counts, table, mode))
    if problems:
        return problems, [], {}
    counts = dict.fromkeys([*range(num_classes), UNLABELLED], 0)
    for value, count in value_counts.items():
        counts[table[int(value)]] += count
    drawn = array.size - counts[UNLABELLED]
    if not drawn:
        rule, remedy = "must have strokes", "draw some, or remove the case"
        return [Problem(name, rule, "none, all voxels are unlabelled", remedy)], [], counts
    background = next(value for value, target in table.items() if target == 0)
    thick = _is_filled(array, [value for value, target in table.items() if target != UNLABELLED], slice_axis)
    rule = "must be strokes, not a mask"
    remedy = "list a mask as `label`, or draw scribbles, or make them: python -m common.transforms.scribbles generate"
    if drawn > MAX_LABELLED_FRACTION * array.size:
        found = f"{100 * drawn / array.size:.3g} % of the voxels labelled"
        problems.append(Problem(name, rule, found, remedy))
    elif not counts[0] and thick:
        found = f"filled structures and no background stroke (value {background})"
        problems.append(Problem(name, rule, found, remedy))
    elif not counts[0]:
        rule = f"must have a background stroke (value {background})"
        found = ", ".join(f"{count:,} voxels of class {c}" for c, count in counts.items() if count and c != UNLABELLED)
        problems.append(
            Problem(name, rule, found, "draw background near the structures and far away, or correct scribble_mode")
        )
    warnings = [f"class {c} has no stroke" for c in range(1, num_classes) if not counts[c]]
    if thick and not problems:
        warnings.append("strokes are as thick as structures; if this is a mask, list it as `label`")
    return problems, warnings, counts


def _value_problems(
    name: str, value_counts: Mapping[float, int], table: Mapping[int, int], mode: ScribbleMode
) -> Iterator[Problem]:
    """Find values that are fractions or have no meaning in the convention of the file."""
    fractions = [value for value in value_counts if value != round(value)]
    if fractions:
        found = f"fractions such as {fractions[0]:.4g}"
        yield Problem(name, "must hold whole numbers", found, "resample scribbles by nearest neighbor, never linearly")
        return
    unknown = sorted(int(value) for value in value_counts if int(value) not in table)
    if unknown:
        kind = "this mapping" if isinstance(mode, Mapping) else f"mode {mode!r}"
        rule = f"must hold the values of {kind}: {', '.join(map(str, sorted(table)))}"
        found = ", ".join(map(str, unknown[:8])) + (f" and {len(unknown) - 8} more" if len(unknown) > 8 else "")
        yield Problem(name, rule, found, f"name the right convention ({', '.join(SCRIBBLE_MODES)}), or set num_classes")


def _is_filled(array: np.ndarray, values: list[int], slice_axis: int) -> bool:
    """Tell filled structures from strokes: most of their pixels lie deep inside, seen slice by slice."""
    labelled = np.isin(array, values)
    if labelled.ndim == 3:
        slices = np.moveaxis(labelled, slice_axis, 0)
        labelled = slices[slices.any(axis=(1, 2))]
    size = 2 * DEEP_PIXELS - 1
    window = (1,) * (labelled.ndim - 2) + (size, size)
    deep = ndimage.minimum_filter(labelled, size=window, mode="nearest")
    return bool(deep.sum() > MAX_DEEP_FRACTION * labelled.sum())
