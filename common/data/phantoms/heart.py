"""Short-axis cardiac MR phantoms with scribbles: one stack in memory, or a Decathlon-style data set on disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from tqdm import tqdm

from ...files import write_text_atomically
from ...transforms.scribbles import check_scribble_options, generate_scribble
from ..scribbles import user_convention
from .canvas import Canvas
from .dataset_folder import SECTION_FOLDERS, check_count, count_cases, empty_folder, write_nifti
from .fields import spline_field
from .heart_anatomy import PHASES, Heart, contract, draw_heart
from .heart_painting import HEART_LABELS, paint_heart
from .shapes import rotation_matrix

logger = logging.getLogger(__name__)
Array = np.ndarray

SCRIBBLES = "scribblesTr"
_LAYERS = 3  # rendered per slice, and averaged: thick slices blur what is oblique to them
_SIZE_RANGE = (32, 512)
_SPACING_RANGE_MM = (0.7, 4.0)
# Unit vectors of a short-axis plane in the patient (RAS+): toward the lateral wall, the anterior wall, the apex.
_LATERAL = np.array([-0.70, -0.70, -0.14])
_APEX = np.array([-0.62, 0.60, -0.50])


class HeartCase(NamedTuple):
    """One short-axis stack.

    Attributes:
        image: MR signal in arbitrary units, not negative. Shape (i, j, k), k from base to apex, int16.
        label: Class of every voxel, a key of `HEART_LABELS`. Same shape, uint8.
        affine: From voxel indices to world coordinates in mm, RAS+. Shape (4, 4), float64.
        heart: Who was drawn.
        phase: `ed` or `es`.
    """

    image: Array
    label: Array
    affine: Array
    heart: Heart
    phase: str


def render_heart(rng: np.random.Generator, image_size: int = 128, spacing_mm: float = 1.6) -> dict[str, HeartCase]:
    """Draw a patient and render the two stacks of a cine, end-diastole and end-systole.

    Both have one grid, as in a cine: 8 to 12 slices, 8 to 10 mm apart, shifted in their planes as breath-holds differ.

    Args:
        rng: Source of all randomness: the same state gives the same voxels.
        image_size: Pixels along both axes of a slice, in [32, 512].
        spacing_mm: Pixel size in mm, in [0.7, 4]; single patients depart from it by up to 8 %.

    Returns:
        The cases by phase, `ed` and `es`.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If an argument is out of range.
    """
    _check_grid(image_size, spacing_mm)
    heart = draw_heart(rng)
    spacing, shape, first_mm = _draw_stack(rng, heart, image_size, float(spacing_mm))
    canvas = _place(rng, spacing, shape, first_mm)
    layer_mm = (spacing[0], spacing[1], spacing[2] / _LAYERS)
    gain = _coil(rng, canvas, layer_mm)
    noise, unit = rng.uniform(0.025, 0.055), rng.uniform(140, 700)
    affine = _world_affine(rng, spacing, shape)
    cases = {}
    for phase in PHASES:
        painted = Canvas(
            canvas.x,
            canvas.y,
            canvas.z,
            np.full_like(canvas.hu, 0.01),
            np.zeros_like(canvas.label),
            canvas.index_per_mm,
            canvas.edge_mm,
        )
        paint_heart(painted, heart, contract(heart, phase), layer_mm)
        signal = (painted.hu * gain).reshape(*shape, _LAYERS).mean(axis=3)
        image = _acquire(rng, signal, noise) * unit
        label = np.ascontiguousarray(painted.label[:, :, _LAYERS // 2 :: _LAYERS])
        cases[phase] = HeartCase(np.rint(image).astype(np.int16), label, affine, heart, phase)
    return cases


def write_heart_phantoms(
    output_dir: str | Path,
    num_cases: int,
    seed: int = 0,
    num_validation: int | None = None,
    num_test: int | None = None,
    image_size: int = 128,
    spacing_mm: float = 1.6,
    scribble_width: int = 3,
) -> Path:
    """Write short-axis cardiac MR phantoms with labels and scribbles as NIfTI, and `dataset.json`.

    Labels are those of ACDC: 1 right ventricle, 2 myocardium, 3 left ventricle. Sections of `dataset.json`: `training`
    and `validation` (imagesTr, labelsTr, scribblesTr), lists of {image, label, scribble}, and `test` (imagesTs,
    labelsTs), a list of {image, label}. Paths are relative to `output_dir`. Both phases of a patient are in the same
    section. Scribbles are in the convention that drawing programs show (mode `user`): 0 nothing drawn, 1 to 3 as the
    labels, 4 background.

    A patient depends on `seed`, section, place there, `image_size` and `spacing_mm` alone: `test[0]` stays the same
    however many training patients there are. `dataset.json` is written last; without it the set is not whole.

    Args:
        output_dir: Folder to write, new or empty.
        num_cases: Patients in all: training, validation and test. Each gives two images, end-diastole and end-systole.
        seed: Non-negative seed.
        num_validation: How many of the patients are for validation; a quarter of them if not given.
        num_test: How many of the patients are for testing; a quarter of them if not given.
        image_size: Pixels along both axes of a slice, in [32, 512].
        spacing_mm: Pixel size in mm, in [0.7, 4]; see `render_heart`. The default grid shows 20 cm around the heart.
        scribble_width: Width of the strokes in pixels, odd.

    Returns:
        Path of `dataset.json`.

    Raises:
        FileExistsError: If `output_dir` is a file or holds anything.
        TypeError: If a count, the seed or the size is not a whole number, or the spacing not a number.
        ValueError: If a value is out of range.
    """
    _check_grid(image_size, spacing_mm)
    check_scribble_options(scribble_width)
    check_count("seed", seed, 0, "take 0 or more")
    counts = count_cases(num_cases, num_validation, num_test, num_unlabeled=0)
    del counts["unlabeled"]
    root = empty_folder(output_dir)
    sections: dict[str, list[dict[str, str]]] = {section: [] for section in counts}
    with tqdm(total=num_cases, desc="heart phantoms", unit="patient") as progress:
        for order, (section, count) in enumerate(counts.items()):
            for index in range(count):
                stream = np.random.SeedSequence(seed, spawn_key=(order, index))
                cases = render_heart(np.random.default_rng(stream), image_size, spacing_mm)
                for case in cases.values():
                    name = f"{section}_{index:03d}_{case.phase}"
                    sections[section].append(_write_case(root, section, name, case, scribble_width, seed))
                progress.update()
    phantom = {"seed": seed, "image_size": image_size, "spacing_mm": spacing_mm, "scribble_width": scribble_width}
    path = root / "dataset.json"
    write_text_atomically(json.dumps(_describe(sections, phantom), indent=4) + "\n", path)
    logger.info("Wrote %s: %s.", path, ", ".join(f"{count} {section}" for section, count in counts.items() if count))
    return path


def _draw_stack(
    rng: np.random.Generator, heart: Heart, image_size: int, spacing_mm: float
) -> tuple[tuple[float, float, float], tuple[int, int, int], float]:
    """Plan the slices: spacing, grid, and z of the first slice's middle."""
    in_plane = spacing_mm * float(rng.uniform(0.92, 1.08))
    step = float(rng.uniform(8, 10))
    first_mm = -float(rng.uniform(0, 9))
    last_mm = heart.length_mm + float(rng.uniform(-7, 7))
    count = int(np.clip(np.ceil((last_mm - first_mm) / step), 8, 12))
    return (in_plane, in_plane, step), (image_size, image_size, count), first_mm


def _place(
    rng: np.random.Generator, spacing: tuple[float, float, float], shape: tuple[int, int, int], first_mm: float
) -> Canvas:
    """Place the heart in the stack: somewhat turned, tilted, deformed, and shifted from slice to slice."""
    size = (shape[0], shape[1], shape[2] * _LAYERS)
    layer_mm = spacing[2] / _LAYERS
    turn = rotation_matrix([rng.normal(0, 3), rng.normal(0, 3), rng.normal(0, 9)])
    middle_mm = first_mm + spacing[2] * (shape[2] - 1) / 2
    # In the image the lateral wall is on the right (i grows) and the anterior wall on top (j falls).
    right = ((np.arange(size[0]) - (size[0] - 1) / 2) * spacing[0])[:, None, None]
    up = -((np.arange(size[1]) - (size[1] - 1) / 2) * spacing[1])[None, :, None]
    deep = ((np.arange(size[2]) - (size[2] - 1) / 2) * layer_mm)[None, None, :]
    # Both ventricles lie around the middle of the image: the axis of the left one is to the right of it.
    offset = np.array([-14.0, 4.0]) + rng.normal(0, 4, 2)
    shifts = np.clip(rng.normal(0, 1.1, (2, shape[2])), -3, 3)
    right = right + np.repeat(offset[0] + shifts[0], _LAYERS)
    up = up + np.repeat(offset[1] + shifts[1], _LAYERS)
    x, y, z = ((turn[axis, 0] * right + turn[axis, 1] * up + turn[axis, 2] * deep) for axis in range(3))
    step = (spacing[0], spacing[1], layer_mm)
    return Canvas(
        x=(x + 2.0 * spline_field(rng, size, step, 42.0)).astype(np.float32),
        y=(y + 2.0 * spline_field(rng, size, step, 42.0)).astype(np.float32),
        z=(z + middle_mm).astype(np.float32),
        hu=np.zeros(size, dtype=np.float32),
        label=np.zeros(size, dtype=np.uint8),
        index_per_mm=np.linalg.inv(turn @ np.diag([spacing[0], -spacing[1], layer_mm])),
        edge_mm=spacing[0],
    )


def _coil(rng: np.random.Generator, canvas: Canvas, layer_mm: tuple[float, float, float]) -> Array:
    """Sensitivity of the receive coils: a slow random field, higher near the front of the chest."""
    slow = spline_field(rng, canvas.hu.shape, layer_mm, 130.0)
    towards = np.deg2rad(rng.uniform(100, 170))
    front = (canvas.x * np.float32(np.cos(towards)) + canvas.y * np.float32(np.sin(towards))) / 100
    return np.exp(np.float32(rng.uniform(0.08, 0.2)) * slow + np.float32(rng.uniform(0.1, 0.4)) * front)


def _acquire(rng: np.random.Generator, signal: Array, noise: float) -> Array:
    """Blur by the finite k-space, then take the magnitude of a complex signal with noise (Rician)."""
    blurred = ndimage.gaussian_filter(signal, (0.45, 0.45, 0))
    real, imaginary = (rng.standard_normal(signal.shape, dtype=np.float32) * np.float32(noise) for _ in range(2))
    return np.hypot(blurred + real, imaginary)


def _world_affine(rng: np.random.Generator, spacing: tuple[float, float, float], shape: tuple[int, int, int]) -> Array:
    """Affine of a doubly oblique short-axis stack, with the heart left of and before the middle of the scanner."""
    apex = _APEX / np.linalg.norm(_APEX)
    lateral = _LATERAL - (_LATERAL @ apex) * apex
    lateral /= np.linalg.norm(lateral)
    axes = rotation_matrix(rng.normal(0, 5, 3)) @ np.stack([lateral, -np.cross(apex, lateral), apex], axis=1)
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array(spacing)
    center = np.array([-35.0, 30.0, 0.0]) + rng.normal(0, 10, 3)
    affine[:3, 3] = center - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def _describe(sections: dict[str, list[dict[str, str]]], phantom: dict[str, Any]) -> dict[str, Any]:
    """Content of `dataset.json`."""
    numbers = {f"num{section.capitalize()}": len(entries) for section, entries in sections.items()}
    return {
        "name": "short-axis cardiac MR phantoms",
        "description": (
            "Synthetic cine MR of the heart, short axis, end-diastole and end-systole of each patient, with exact "
            "labels and scribbles made from them (0 nothing drawn, 4 background); no patient data."
        ),
        "licence": "Apache-2.0",
        "tensorImageSize": "3D",
        "modality": {"0": "MR"},
        "labels": {str(number): name for number, name in HEART_LABELS.items()},
        "phantom": phantom,
        **numbers,
        **sections,
    }


def _write_case(root: Path, section: str, name: str, case: HeartCase, width: int, seed: int) -> dict[str, str]:
    """Write the files of one phase of a patient and return its entry of `dataset.json`."""
    image_folder, label_folder = SECTION_FOLDERS[section]
    arrays = {"image": (image_folder, case.image), "label": (label_folder, case.label)}
    if section != "test":
        scribble = generate_scribble(case.label, len(HEART_LABELS), name, width=width, seed=seed)
        arrays["scribble"] = (SCRIBBLES, user_convention(scribble, len(HEART_LABELS)))
    entry = {}
    for key, (folder, array) in arrays.items():
        entry[key] = f"{folder}/{name}.nii.gz"
        write_nifti(root / entry[key], array, case.affine, f"heart phantom {case.heart.diagnosis} {case.phase}")
    return entry


def _check_grid(image_size: int, spacing_mm: float) -> None:
    if isinstance(image_size, bool) or not isinstance(image_size, int | np.integer):
        raise TypeError(f"image_size must be a whole number of pixels; found {image_size!r}: give one such as 128.")
    if not _SIZE_RANGE[0] <= image_size <= _SIZE_RANGE[1]:
        raise ValueError(
            f"image_size must lie in {list(_SIZE_RANGE)} pixels; found {image_size}: give one such as 128."
        )
    if isinstance(spacing_mm, bool) or not isinstance(spacing_mm, int | float | np.number):
        raise TypeError(f"spacing_mm must be a number; found {spacing_mm!r}: give a pixel size in mm, such as 1.6.")
    if not _SPACING_RANGE_MM[0] <= spacing_mm <= _SPACING_RANGE_MM[1]:
        raise ValueError(
            f"spacing_mm must lie in {list(_SPACING_RANGE_MM)} mm; found {spacing_mm}: give a pixel size such as 1.6."
        )
