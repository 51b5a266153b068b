"""Fundus phantoms: one photograph in memory, or a Decathlon-style data set per camera domain on disk."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from ...files import write_text_atomically
from .dataset_folder import SECTION_FOLDERS, check_count, count_cases, empty_folder
from .fundus_anatomy import BACKGROUND_VALUE, CUP_VALUE, RIM_VALUE, Eye, draw_eye, paint_eye
from .fundus_camera import CAMERAS, Shot, draw_shot, photograph, place_grid

logger = logging.getLogger(__name__)
Array = np.ndarray

FUNDUS_LABELS = {CUP_VALUE: "cup", RIM_VALUE: "rim", BACKGROUND_VALUE: "background"}
FUNDUS_DOMAINS = tuple(CAMERAS)
_SIZE_RANGE = (32, 4096)


class FundusCase(NamedTuple):
    """One fundus phantom.

    Attributes:
        image: Red, green and blue. Shape (H, W, 3), uint8.
        mask: A key of `FUNDUS_LABELS` per pixel: 255 = background, 128 = rim, 0 = cup. Shape (H, W), uint8.
        eye: Who was drawn.
        shot: How the photograph was taken.
    """

    image: Array
    mask: Array
    eye: Eye
    shot: Shot


def render_fundus(
    rng: np.random.Generator, domain: str = FUNDUS_DOMAINS[0], image_size: int | Sequence[int] = 256
) -> FundusCase:
    """Draw an eye and a photograph of its optic disc, and render image and mask.

    Args:
        rng: Source of all randomness: the same state gives the same pixels.
        domain: Camera, one of `FUNDUS_DOMAINS`; the first is the source.
        image_size: Side of the square crop in pixels, or (height, width).

    Returns:
        The case.

    Raises:
        TypeError: If `image_size` is no whole number and no pair of them.
        ValueError: If `domain` is unknown or `image_size` out of range.
    """
    size = _check_size(image_size)
    camera = CAMERAS[_check_domains(domain)[0]]
    # A stream each: what one part draws, such as a field that grows with the image, leaves the others as they are.
    eye_rng, shot_rng, paint_rng, sensor_rng = rng.spawn(4)
    eye = draw_eye(eye_rng, camera.population)
    shot = draw_shot(shot_rng, camera)
    grid = place_grid(shot, size, eye.left)
    light, mask = paint_eye(paint_rng, eye, grid)
    return FundusCase(photograph(sensor_rng, light, shot, grid), mask, eye, shot)


def write_fundus_phantoms(
    output_dir: str | Path,
    num_cases: int,
    seed: int = 0,
    num_validation: int | None = None,
    num_test: int | None = None,
    image_size: int | Sequence[int] = 256,
    domains: str | Sequence[str] = "".join(FUNDUS_DOMAINS),
) -> list[Path]:
    """Write fundus phantoms: a folder `domain_a`, `domain_b`, ... per camera, each with its own `dataset.json`.

    Images are RGB PNG, cropped around the optic disc as the public sets are. Masks are 8-bit PNG with 255 =
    background, 128 = rim, 0 = cup. Sections of `dataset.json`: `training` and `validation` (imagesTr, labelsTr) and
    `test` (imagesTs, labelsTs), each a list of {image, label}. Paths are relative to the domain's folder.

    A case depends on `seed`, its domain, its section and its place there, and on `image_size` alone: `test[0]` of
    domain b stays the same however many cases and domains there are. `dataset.json` is written last; without it a
    domain is not whole.

    Args:
        output_dir: Folder to write to; the folders of the domains must be new or empty.
        num_cases: Cases of each domain in all: training, validation and test.
        seed: Non-negative seed.
        num_validation: How many of `num_cases` are for validation; a quarter of them if not given.
        num_test: How many of `num_cases` are for testing; a quarter of them if not given.
        image_size: Side of the square crop in pixels, or (height, width).
        domains: Letters of the domains to write, such as "bcde"; all of them if not given. Domain a is the source.

    Returns:
        Paths of the files `dataset.json`, in the order of `domains`.

    Raises:
        FileExistsError: If the folder of a domain is a file or holds anything.
        TypeError: If a count, the seed or the size is not a whole number.
        ValueError: If a value is out of range or a domain unknown.
    """
    size = _check_size(image_size)
    letters = _check_domains(domains)
    check_count("seed", seed, 0, "take 0 or more")
    counts = count_cases(num_cases, num_validation, num_test, num_unlabeled=0)
    del counts["unlabeled"]
    roots = {letter: empty_folder(Path(str(output_dir)).expanduser() / f"domain_{letter}") for letter in letters}
    paths = []
    with tqdm(total=len(letters) * num_cases, desc="fundus phantoms", unit="case") as progress:
        for letter, root in roots.items():
            sections: dict[str, list[dict[str, str]]] = {section: [] for section in counts}
            for order, (section, count) in enumerate(counts.items()):
                for index in range(count):
                    key = (FUNDUS_DOMAINS.index(letter), order, index)
                    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
                    sections[section].append(_write_case(root, section, index, render_fundus(rng, letter, size)))
                    progress.update()
            description = _describe(sections, {"seed": seed, "image_size": list(size), "domain": letter})
            paths.append(root / "dataset.json")
            write_text_atomically(json.dumps(description, indent=4) + "\n", paths[-1])
    found = ", ".join(f"{count} {section}" for section, count in counts.items() if count)
    logger.info("Wrote %s in %s: %s each.", ", ".join(root.name for root in roots.values()), output_dir, found)
    return paths


def _describe(sections: dict[str, list[dict[str, str]]], phantom: dict[str, Any]) -> dict[str, Any]:
    """Content of `dataset.json`."""
    numbers = {f"num{section.capitalize()}": len(entries) for section, entries in sections.items()}
    return {
        "name": f"fundus phantoms, domain {phantom['domain']}",
        "description": (
            "Synthetic fundus photographs around the optic disc with exact disc and cup masks; no patient data. "
            f"Camera: {CAMERAS[phantom['domain']].summary}."
        ),
        "licence": "Apache-2.0",
        "tensorImageSize": "2D",
        "modality": {"0": "red", "1": "green", "2": "blue"},
        "labels": {str(value): name for value, name in FUNDUS_LABELS.items()},
        "phantom": phantom,
        **numbers,
        **sections,
    }


def _write_case(root: Path, section: str, index: int, case: FundusCase) -> dict[str, str]:
    """Write a case's files and return its entry of `dataset.json`."""
    image_folder, mask_folder = SECTION_FOLDERS[section]
    name = f"{section}_{index:03d}.png"
    _write_png(root / image_folder / name, case.image)
    _write_png(root / f"{mask_folder}" / name, case.mask)
    return {"image": f"{image_folder}/{name}", "label": f"{mask_folder}/{name}"}


def _write_png(path: Path, array: Array) -> None:
    """Write a picture under a hidden name and rename it when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".part_{path.name}")
    Image.fromarray(array).save(partial)
    partial.replace(path)


def _check_domains(domains: str | Sequence[str]) -> list[str]:
    letters = list(domains) if not isinstance(domains, str) else list(domains.replace(",", ""))
    unknown = [letter for letter in letters if letter not in CAMERAS]
    if unknown or not letters or len(set(letters)) < len(letters):
        raise ValueError(f"domains must be different letters of {''.join(CAMERAS)}; found {domains!r}: try 'bcde'.")
    return letters


def _check_size(image_size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width."""
    sides: list[Any] = list(image_size) if isinstance(image_size, list | tuple) else [image_size] * 2
    low, high = _SIZE_RANGE
    if len(sides) != 2 or not all(isinstance(s, int | np.integer) and not isinstance(s, bool) for s in sides):
        raise TypeError(f"image_size must be one or two whole numbers; found {image_size!r}: try 256 or (256, 320).")
    if not all(low <= side <= high for side in sides):
        raise ValueError(f"image_size must lie between {low} and {high} pixels; found {image_size!r}: try 256.")
    return int(sides[0]), int(sides[1])
