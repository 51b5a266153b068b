"""Torso CT phantoms: one case in memory, or a Decathlon-style data set on disk."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ...files import write_text_atomically
from .dataset_folder import SECTION_FOLDERS, check_count, count_cases, empty_folder, write_nifti
from .torso_anatomy import TORSO_LABELS, build_scene, paint_torso
from .torso_patient import Patient, draw_patient
from .torso_scan import (
    FIELDS_OF_VIEW,
    Scan,
    average_slices,
    draw_scan,
    make_canvas,
    paint_table,
    reconstruct,
    rendered_spacing_mm,
    slice_samples,
    store_as,
    world_affine,
)

logger = logging.getLogger(__name__)
Array = np.ndarray

MIXED = "mixed"
_MIX = {"chest": 0.2, "abdomen": 0.35, "abdomen_pelvis": 0.45}
_SPACING_RANGE_MM = (1.0, 12.0)


class TorsoCase(NamedTuple):
    """One torso CT phantom.

    Attributes:
        image_hu: Image in HU, in [-1024, 3071]. Shape (i, j, k) in the stored orientation, int16.
        label: Class of every voxel, a key of `TORSO_LABELS`. Same shape, uint8.
        affine: From voxel indices to world coordinates in mm, RAS+. Shape (4, 4), float64.
        patient: Who was drawn.
        scan: How the patient was scanned.
    """

    image_hu: Array
    label: Array
    affine: Array
    patient: Patient
    scan: Scan


def render_torso(rng: np.random.Generator, field_of_view: str = MIXED, spacing_mm: float = 4.5) -> TorsoCase:
    """Draw a patient, scan, and render image and labels.

    Args:
        rng: Source of all randomness: the same state gives the same voxels.
        field_of_view: `chest`, `abdomen` or `abdomen_pelvis`, or `mixed` to draw one of them.
        spacing_mm: Typical voxel size in mm, in [1, 12]. Single cases depart from it in plane by up to 10 %, and
            their slices are up to twice as thick.

    Returns:
        The case.

    Raises:
        TypeError: If `spacing_mm` is not a number.
        ValueError: If `field_of_view` is unknown or `spacing_mm` out of range.
    """
    _check_field_of_view(field_of_view)
    _check_spacing(spacing_mm)
    if field_of_view == MIXED:
        field_of_view = str(rng.choice(list(_MIX), p=list(_MIX.values())))
    patient = draw_patient(rng)
    scan = draw_scan(rng, patient, field_of_view, float(spacing_mm))
    canvas, scanner_mm = make_canvas(rng, scan, patient)
    plumb_mm = scanner_mm[1] / np.float32(patient.stature[1])
    scene = build_scene(canvas, patient, rng, rendered_spacing_mm(scan), plumb_mm)
    paint_table(canvas, scanner_mm, scene.skin_mm, scan)
    paint_torso(scene)
    image, label = average_slices(canvas.hu, canvas.label, slice_samples(scan))
    image_hu = reconstruct(rng, image, scan)
    affine = world_affine(scan)
    stored, stored_affine = store_as(image_hu, affine, scan.orientation)
    return TorsoCase(stored, store_as(label, affine, scan.orientation)[0], stored_affine, patient, scan)


def write_torso_phantoms(
    output_dir: str | Path,
    num_cases: int,
    seed: int = 0,
    num_unlabeled: int = 0,
    num_validation: int | None = None,
    num_test: int | None = None,
    spacing_mm: float = 4.5,
    field_of_view: str = MIXED,
) -> Path:
    """Write a data set of torso CT phantoms: images in HU with labels as NIfTI, and `dataset.json`.

    Sections of `dataset.json`: `training` and `validation` (imagesTr, labelsTr), `test` (imagesTs, labelsTs), each a
    list of {image, label}, and `unlabeled` (imagesUn), a list of {image}. Paths are relative to `output_dir`.

    A case depends on `seed`, its section and its place there, `spacing_mm` and `field_of_view` alone: `test[0]` stays
    the same however many training cases there are. `dataset.json` is written last; without it the set is not whole.

    Args:
        output_dir: Folder to write, new or empty.
        num_cases: Labelled cases in all: training, validation and test.
        seed: Non-negative seed.
        num_unlabeled: Scans without labels, for pretraining, on top of `num_cases`.
        num_validation: How many of `num_cases` are for validation; a quarter of them if not given.
        num_test: How many of `num_cases` are for testing; a quarter of them if not given.
        spacing_mm: Typical voxel size in mm, in [1, 12]; see `render_torso`.
        field_of_view: `chest`, `abdomen` or `abdomen_pelvis` for all cases. `mixed` draws one per case, but training
            cases always show `abdomen_pelvis`, in which every class occurs: there may be only one of them.

    Returns:
        Path of `dataset.json`.

    Raises:
        FileExistsError: If `output_dir` is a file or holds anything.
        TypeError: If a count or the seed is not a whole number, or the spacing not a number.
        ValueError: If a value is out of range.
    """
    _check_field_of_view(field_of_view)
    _check_spacing(spacing_mm)
    check_count("seed", seed, 0, "take 0 or more")
    counts = count_cases(num_cases, num_validation, num_test, num_unlabeled)
    root = empty_folder(output_dir)
    sections: dict[str, list[dict[str, str]]] = {section: [] for section in SECTION_FOLDERS}
    order = list(SECTION_FOLDERS)
    with tqdm(total=sum(counts.values()), desc="torso phantoms", unit="case") as progress:
        for section, count in counts.items():
            view = "abdomen_pelvis" if field_of_view == MIXED and section == "training" else field_of_view
            for index in range(count):
                stream = np.random.SeedSequence(seed, spawn_key=(order.index(section), index))
                case = render_torso(np.random.default_rng(stream), view, spacing_mm)
                sections[section].append(_write_case(root, section, index, case))
                progress.update()
    description = _describe(sections, {"seed": seed, "spacing_mm": spacing_mm, "field_of_view": field_of_view})
    path = root / "dataset.json"
    write_text_atomically(json.dumps(description, indent=4) + "\n", path)
    logger.info("Wrote %s: %s.", path, ", ".join(f"{count} {section}" for section, count in counts.items() if count))
    return path


def _describe(sections: dict[str, list[dict[str, str]]], phantom: dict[str, Any]) -> dict[str, Any]:
    """Content of `dataset.json`."""
    numbers = {f"num{section.capitalize()}": len(entries) for section, entries in sections.items()}
    return {
        "name": "torso CT phantoms",
        "description": "Synthetic CT of the torso in HU with exact organ labels; no patient data.",
        "licence": "Apache-2.0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": {str(number): name for number, name in TORSO_LABELS.items()},
        "phantom": phantom,
        **numbers,
        **sections,
    }


def _write_case(root: Path, section: str, index: int, case: TorsoCase) -> dict[str, str]:
    """Write a case's files and return its entry of `dataset.json`."""
    image_folder, label_folder = SECTION_FOLDERS[section]
    name = f"{section}_{index:03d}.nii.gz"
    patient = f"{'woman' if case.patient.female else 'man'} {case.patient.age_years:.0f} y {case.patient.phase}"
    note = f"torso phantom {case.scan.field_of_view} {patient}"
    entry = {"image": f"{image_folder}/{name}"}
    write_nifti(root / image_folder / name, case.image_hu, case.affine, note)
    if label_folder is not None:
        entry["label"] = f"{label_folder}/{name}"
        write_nifti(root / label_folder / name, case.label, case.affine, note)
    return entry


def _check_spacing(spacing_mm: float) -> None:
    low, high = _SPACING_RANGE_MM
    if isinstance(spacing_mm, bool) or not isinstance(spacing_mm, int | float | np.number):
        raise TypeError(f"spacing_mm must be a number; found {spacing_mm!r}: give a voxel size in mm, such as 4.5.")
    if not low <= spacing_mm <= high:
        raise ValueError(
            f"spacing_mm must lie between {low:g} and {high:g} mm; found {spacing_mm}: give a voxel size such as 4.5."
        )


def _check_field_of_view(field_of_view: str) -> None:
    known = (MIXED, *FIELDS_OF_VIEW)
    if field_of_view not in known:
        raise ValueError(f"field_of_view must be one of {', '.join(known)}; found {field_of_view!r}.")
