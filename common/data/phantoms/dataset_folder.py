"""The folder that every phantom data set is written into: sections, counts, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Where the images and the labels of a section lie. The order numbers the random streams: append only.
SECTION_FOLDERS: dict[str, tuple[str, str | None]] = {
    "training": ("imagesTr", "labelsTr"),
    "validation": ("imagesTr", "labelsTr"),
    "test": ("imagesTs", "labelsTs"),
    "unlabeled": ("imagesUn", None),
}


def write_nifti(path: Path, array: Array, affine: Array, note: str) -> None:
    """Write a volume under a hidden name and rename it when it is whole.

    Args:
        path: File that ends in .nii or .nii.gz; its folder is made.
        array: Volume, axes in the order of `affine`.
        affine: Voxel to RAS mm. Shape (4, 4).
        note: ASCII text of at most 79 characters for the header's description.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    volume = nib.Nifti1Image(array, affine)
    volume.header.set_xyzt_units("mm")
    volume.set_sform(affine, code=1)
    volume.set_qform(affine, code=1)
    volume.header["descrip"] = note.encode("ascii")
    partial = path.with_name(f".part_{path.name}")
    nib.save(volume, partial)
    partial.replace(path)


def count_cases(num_cases: int, num_validation: int | None, num_test: int | None, num_unlabeled: int) -> dict[str, int]:
    """Return the cases of each section, refused where they make no data set.

    Args:
        num_cases: Labelled cases of all sections.
        num_validation: Validation cases; None for a quarter.
        num_test: Test cases; None for a quarter.
        num_unlabeled: Cases without labels, counted apart.

    Raises:
        TypeError: If a number is no whole number.
        ValueError: If one is negative, or no training case is left.
    """
    check_count("num_cases", num_cases, 1, "ask for at least one labelled case")
    validation = num_cases // 4 if num_validation is None else num_validation
    test = num_cases // 4 if num_test is None else num_test
    for name, count in (("num_validation", validation), ("num_test", test), ("num_unlabeled", num_unlabeled)):
        check_count(name, count, 0, "take 0 for none")
    training = num_cases - validation - test
    if training < 1:
        raise ValueError(
            f"num_validation + num_test must be less than num_cases, so that a training case is left; found "
            f"{validation} + {test} of {num_cases}: raise num_cases or lower the others."
        )
    return {"training": training, "validation": validation, "test": test, "unlabeled": num_unlabeled}


def check_count(name: str, value: int, least: int, remedy: str) -> None:
    """Refuse a number of cases, or a seed, that is no whole number or too small.

    Args:
        name: Argument that the message names.
        value: What was given.
        least: Smallest value that is taken.
        remedy: What the message advises.

    Raises:
        TypeError: If `value` is no whole number.
        ValueError: If `value` is below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be a whole number; found {value!r}: {remedy}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}; found {value}: {remedy}.")


def empty_folder(output_dir: str | Path) -> Path:
    """Make a new folder, or take an empty one.

    Args:
        output_dir: The folder.

    Raises:
        FileExistsError: If it is a file or holds something.
    """
    root = Path(str(output_dir)).expanduser()
    if root.exists() and not root.is_dir():
        raise FileExistsError(f"output_dir must be a folder; found a file, {root}: give another path.")
    held = sorted(entry.name for entry in root.iterdir()) if root.exists() else []
    if held:
        raise FileExistsError(
            f"output_dir must be new or empty, so that no older case is taken for one of this run; found "
            f"{', '.join(held[:5])}{', ...' if len(held) > 5 else ''} in {root}: give another path, or remove it."
        )
    root.mkdir(parents=True, exist_ok=True)
    return root
