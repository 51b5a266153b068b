"""Scribble files: made from label files, converted from other conventions, always with the geometry of their source."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image
from tqdm import tqdm

from ...data.problems import DatasetError, Problem, refusal
from ...data.readers import Volume, case_name, image_suffix, read_volume
from ...data.scribbles import (
    UNLABELLED,
    ScribbleMode,
    coarsest_axis,
    conversion_table,
    convert_scribble,
    find_scribble_problems,
    user_convention,
)
from .generation import check_scribble_options, generate_scribble

__all__ = ["convert_scribble_files", "generate_scribble_files"]

logger = logging.getLogger(__name__)
Array = np.ndarray


def generate_scribble_files(
    labels: str | Path,
    output_dir: str | Path,
    num_classes: int,
    width: int = 3,
    slice_fraction: float = 1.0,
    pixel_fraction: float = 1.0,
    border_stroke: bool = False,
    label_noise_px: int = 0,
    slice_axis: int | None = None,
    seed: int = 0,
) -> list[Path]:
    """Draw scribbles into label maps and write them, once for all epochs and methods; see `generate_scribble`.

    Files are written in the convention that ITK-SNAP and 3D Slicer can show and edit (mode `user`): 0 nothing drawn, 1
    to num_classes - 1 structures, num_classes background. Names and geometry are those of the label maps; volumes
    become NIfTI (.nii.gz), pictures PNG. What was drawn is logged per class.

    Args:
        labels: A label map, or a folder of them.
        output_dir: Folder to write; files that it holds are not replaced.
        num_classes: Number of classes, background included.
        width: Width of the brush in pixels, odd.
        slice_fraction: Share of the slices that is annotated.
        pixel_fraction: Share of the pixels of each stroke that is kept.
        border_stroke: Draw a second stroke in each part of a structure, along its border.
        label_noise_px: How far a stroke may slip out of its class, in pixels.
        slice_axis: Axis along which slices are taken; that of the largest spacing if not given.
        seed: Seed of everything random. A file's strokes depend on it and the file's name.

    Returns:
        The files.

    Raises:
        DatasetError: If a label map cannot be read, is no label map, or gives no scribble.
        FileExistsError: If a file of the same name is there.
        TypeError: See `generate_scribble`.
        ValueError: See `generate_scribble`.
    """
    check_scribble_options(width, slice_fraction, pixel_fraction, label_noise_px)

    def draw(path: Path, volume: Volume) -> Array:
        axis = slice_axis if slice_axis is not None else _slice_axis(volume)
        try:
            return generate_scribble(
                volume.array,
                num_classes,
                case_name(path),
                width,
                slice_fraction,
                pixel_fraction,
                border_stroke,
                label_noise_px,
                axis,
                seed,
            )
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    return _write_all(labels, Path(output_dir), num_classes, draw)


def convert_scribble_files(
    scribbles: str | Path, output_dir: str | Path, num_classes: int, mode: ScribbleMode
) -> list[Path]:
    """Convert scribbles of another convention to `user`, which ITK-SNAP and 3D Slicer can show and edit.

    Names and geometry stay; volumes become NIfTI (.nii.gz), pictures PNG. What is drawn is logged per class. A file
    without background strokes is refused, and a mask.

    Args:
        scribbles: A scribble, or a folder of them.
        output_dir: Folder to write; files that it holds are not replaced.
        num_classes: Number of classes, background included.
        mode: Convention of the files: `user`, `wsl4mis`, `scribblebench`, `monailabel`, `internal`, or a mapping of
            values to classes and 255, such as "{1: 1, 7: 0, 0: 255}".

    Returns:
        The files.

    Raises:
        DatasetError: If a scribble cannot be read or breaks a rule of `find_scribble_problems`.
        FileExistsError: If a file of the same name is there.
        TypeError: See `conversion_table`.
        ValueError: See `conversion_table`.
    """
    conversion_table(mode, num_classes)

    def convert(path: Path, volume: Volume) -> Array:
        counts = dict(zip(*(a.tolist() for a in np.unique(volume.array, return_counts=True)), strict=True))
        problems, _, _ = find_scribble_problems(str(path), volume.array, counts, mode, num_classes, _slice_axis(volume))
        if problems:
            raise DatasetError(problems)
        return convert_scribble(volume.array, mode, num_classes, str(path))

    return _write_all(scribbles, Path(output_dir), num_classes, convert)


def _write_all(
    source: str | Path, output_dir: Path, num_classes: int, make: Callable[[Path, Volume], Array]
) -> list[Path]:
    """Make a scribble from each file; all problems are collected, so that one run names them all."""
    paths = _sources(Path(str(source)).expanduser())
    targets = [_target(path, output_dir.expanduser()) for path in paths]
    present = [target for target in targets if target.exists()]
    if present or len(set(targets)) < len(targets):
        found = f"{present[0]} ({len(present)} in all)" if present else "two sources of one name"
        raise FileExistsError(f"output_dir must not hold a file of the same name; found {found}: give another folder.")
    problems: list[Problem] = []
    written: list[Path] = []
    for path, target in zip(tqdm(paths, "scribbles", unit="file", delay=1), targets, strict=True):
        try:
            volume = read_volume(path)
            if volume.num_channels != 1:
                raise refusal(path, "must have 1 channel", f"{volume.num_channels}", "give one value per pixel")
            scribble = make(path, volume)
            _refuse_without_background(path, scribble)
        except DatasetError as error:
            problems += error.problems
            continue
        _log_counts(target, scribble, num_classes)
        _save(path, target, user_convention(scribble, num_classes), volume)
        written.append(target)
    if problems:
        raise DatasetError(problems)
    return written


def _sources(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    if not source.is_dir():
        raise refusal(source, "must be a file or a folder", "nothing", "correct the path")
    paths = sorted(p for p in source.iterdir() if p.is_file() and image_suffix(p) and not p.name.startswith("."))
    if not paths:
        raise refusal(source, "must hold NIfTI, MHA, NRRD or PNG files", "none", "give the folder of the files")
    return paths


def _target(path: Path, output_dir: Path) -> Path:
    picture = image_suffix(path) in (".png", ".jpg", ".jpeg", ".tif", ".tiff")
    return output_dir / f"{case_name(path)}{'.png' if picture else '.nii.gz'}"


def _slice_axis(volume: Volume) -> int:
    return -1 if volume.affine is None else coarsest_axis(volume.affine)


def _refuse_without_background(path: Path, scribble: Array) -> None:
    if not (scribble == 0).any():
        found = "none" if (scribble == UNLABELLED).all() else "structures only"
        raise refusal(path, "must give background strokes", found, "leave room around the structures")


def _log_counts(target: Path, scribble: Array, num_classes: int) -> None:
    """Say how many pixels of each class are drawn, which a user compares with what was meant."""
    counts = np.bincount(scribble.ravel(), minlength=UNLABELLED + 1)
    drawn = ", ".join(f"{counts[c]:,} {'background' if c == 0 else f'class {c}'}" for c in range(num_classes))
    share = 100 * (1 - counts[UNLABELLED] / scribble.size)
    logger.info("%s: %s pixels, %.3g %% of all", target.name, drawn, share)


def _save(source: Path, target: Path, array: Array, volume: Volume) -> None:
    """Write under a hidden name and rename when whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".part_{os.getpid()}_{target.name}")
    if volume.affine is None:
        Image.fromarray(array.T).save(partial)  # MONAI's PILReader puts the columns first
    else:
        nib.save(_nifti_like(source, array, volume), partial)
    partial.replace(target)


def _nifti_like(source: Path, array: Array, volume: Volume) -> nib.Nifti1Image:
    """Return a NIfTI image with the geometry of the source, its codes and units included where it is NIfTI."""
    if (image_suffix(source) or "").startswith(".nii"):
        header = nib.load(source).header.copy()
        header.set_data_dtype(np.uint8)
        header.set_slope_inter(1, 0)
        header["cal_min"] = header["cal_max"] = 0
        image = nib.Nifti1Image(array, None, header)
        image.set_sform(header.get_sform(), int(header["sform_code"]))
        image.set_qform(header.get_qform(), int(header["qform_code"]))
        return image
    image = nib.Nifti1Image(array, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    return image
