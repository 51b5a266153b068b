"""`python -m common.data prepare`: a valid dataset.json from folders of images."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from ...files import write_text_atomically
from ..checks import inspect_datalist
from ..datalists import load_datalist
from ..headers import read_header
from ..problems import DatasetError, Problem
from .doubts import explain_swapped_axes, find_doubles, find_doubts
from .facts import CaseFacts, examine
from .patients import DEFAULT_RULE, find_patients, merge_patients, split_patients
from .pictures import write_overview
from .sources import Source, find_sources

logger = logging.getLogger(__name__)

FILE_NAME = "dataset.json"
OVERVIEW = "overview"


def prepare(
    images: str,
    output_dir: str,
    labels: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    patient_pattern: str = "",
    patients: str | None = None,
    skip_broken: bool = False,
    overwrite: bool = False,
    num_workers: int | None = None,
) -> None:
    """Make a data set of folders of images, with sections by patient, and say what looks wrong in it.

    Nothing is copied or changed: dataset.json names the files where they are, relative to itself where it can. Beside
    it, overview/index.html shows every case.

    Who is a patient? The name up to its first number (patient001 of patient001_frame01), or the folder where the name
    has none (007 of 007/scan). `patient_pattern` or `patients` say otherwise. All images of a patient go to one
    section, as do images with the same content.

    Args:
        images: Folder of NIfTI, MHA, NRRD, PNG, JPEG or TIFF files or of DICOM series, at any depth.
        output_dir: Where dataset.json and overview/ are written.
        labels: Folder of label maps with the names of the images, with or without _seg, _label, _mask or _gt.
        val_fraction: Share of the patients that is `validation`.
        test_fraction: Share of the patients that is `test`.
        seed: Seed of that draw.
        patient_pattern: Regular expression that finds the patient in the path of an image below `images`.
        patients: CSV file with the columns case and patient.
        skip_broken: Leave out what breaks a rule, instead of refusing everything.
        overwrite: Replace a dataset.json that is there.
        num_workers: Cases read at the same time.

    Raises:
        DatasetError: If files break a rule; nothing is written.
        FileExistsError: If there is a dataset.json.
        ValueError: If the shares leave nobody to train on.
    """
    output = Path(os.path.abspath(Path(str(output_dir)).expanduser()))  # noqa: PTH100 - resolve() would follow links
    if (output / FILE_NAME).exists() and not overwrite:
        raise FileExistsError(f"{output / FILE_NAME} exists. Give another --output_dir, or --overwrite True.")
    sources = find_sources(str(images), None if labels is None else str(labels))
    num_workers = num_workers or min(4, os.cpu_count() or 1)
    sources = _sound(sources, skip_broken, num_workers)
    with ThreadPoolExecutor(num_workers) as pool:
        facts = list(tqdm(pool.map(examine, sources), "Looking at cases", len(sources), unit="case", delay=1))
    owners = find_patients(sources, str(patient_pattern), patients)
    doubts = list(find_doubts(sources, facts, owners, labels is not None))
    sections = _sections(sources, merge_patients(owners, find_doubles(facts)), val_fraction, test_fraction, seed)
    _write(output, sections, facts, labels is not None)
    captions = _captions(sections, owners, facts)
    page = write_overview(
        output / OVERVIEW, {f.name: f.picture for f in facts if f.picture is not None}, captions, doubts
    )
    rule = "the table" if patients else f"pattern {patient_pattern}" if patient_pattern else DEFAULT_RULE
    example = next((name for name, count in Counter(owners.values()).most_common(1) if count > 1), None)
    shared = [name for name, owner in owners.items() if owner == example][:2]
    logger.info("%d images of %d patients (%s)", len(sources), len(set(owners.values())), rule)
    if shared:
        logger.info("  of one patient, %s: %s", example, ", ".join(shared))
    for name, members in sections.items():
        logger.info("  %-11s %d images of %d patients", name, len(members), len({owners[m.name] for m in members}))
    for doubt in doubts:
        logger.warning("WARNING: %s", doubt)
    logger.info("Wrote %s, and a picture of every case: %s", output / FILE_NAME, page)


def _sound(sources: list[Source], skip_broken: bool, num_workers: int) -> list[Source]:
    """Return the cases that follow the rules of every bundle; without `skip_broken` all have to."""
    groups: dict[tuple[int, int, bool], list[Source]] = defaultdict(list)
    for source in sources:
        spatial_dims, channels = _axes_and_channels(source.image)
        groups[spatial_dims, channels, source.label is not None].append(source)
    problems: list[Problem] = []
    for (spatial_dims, channels, has_label), members in groups.items():
        cases = [{"case": m.name, "image": str(m.image), "label": str(m.label)} for m in members]
        keys = ("image", "label") if has_label else ("image",)
        try:
            inspect_datalist(cases, keys, None, spatial_dims, channels, num_workers=num_workers)
        except DatasetError as error:
            problems += error.problems
    problems = explain_swapped_axes(problems, sources)
    files = {os.fspath(problem.file) for problem in problems}
    kept = [source for source in sources if not files & {str(source.image), str(source.label)}]
    if problems and (not skip_broken or not kept):
        raise DatasetError(problems)
    for problem in problems:
        logger.warning("Left out: %s", problem)
    return kept


def _axes_and_channels(path: Path) -> tuple[int, int]:
    """Return how many spatial axes and channels an image should have: volumes one, photographs those of their mode."""
    header = read_header(path)
    if header is None or header.spacing_mm is not None:
        return 3 if header is None else len(header.spatial_shape), 1
    with Image.open(path) as picture:
        return 2, len(picture.getbands())


def _sections(
    sources: Sequence[Source], owners: Mapping[str, str], val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[Source]]:
    """Divide cases by patient; images without label train nothing but a pretraining."""
    labeled = [source for source in sources if source.label is not None]
    divided = labeled or list(sources)
    patients = split_patients((owners[source.name] for source in divided), val_fraction, test_fraction, seed)
    sections = {
        section: [source for source in divided if owners[source.name] in set(names)]
        for section, names in patients.items()
    }
    rest = [source for source in sources if labeled and source.label is None]
    held_out = {*patients["validation"], *patients["test"]}
    sections["unlabeled"] = [source for source in rest if owners[source.name] not in held_out]
    if left_out := len(rest) - len(sections["unlabeled"]):
        logger.warning(
            "WARNING: %d images without label are left out, since their patients are in validation or test", left_out
        )
    return {section: members for section, members in sections.items() if members}


def _write(
    output: Path, sections: Mapping[str, Sequence[Source]], facts: Sequence[CaseFacts], has_labels: bool
) -> None:
    """Write dataset.json, and read it back as every bundle will."""
    content: dict[str, Any] = {"description": "Made by python -m common.data prepare; files are where they were"}
    if values := sorted({value for case in facts for value in case.label_values}):
        content["labels"] = {str(v): "background" if v == 0 else f"label_{v}" for v in values}
    for section, members in sections.items():
        content[section] = [
            {"image": _path(m.image, output)} | ({"label": _path(m.label, output)} if m.label else {}) for m in members
        ]
    path = output / FILE_NAME
    write_text_atomically(json.dumps(content, indent=4) + "\n", path)
    for section in sections:
        keys = ["image", "label"] if has_labels and section != "unlabeled" else ["image"]
        load_datalist(output, section, keys, val_fraction=0)


def _path(path: Path, output: Path) -> str:
    """Return a path relative to the data set where both share a folder, so that both can be moved together."""
    return os.path.relpath(path, output) if len(Path(os.path.commonpath([path, output])).parts) > 1 else str(path)


def _captions(
    sections: Mapping[str, Sequence[Source]], owners: Mapping[str, str], facts: Sequence[CaseFacts]
) -> dict[str, str]:
    by_name = {source.name: section for section, members in sections.items() for source in members}
    return {
        case.name: f"{case.name} ({by_name.get(case.name, 'left out')}; patient {owners[case.name]}; {case.modality}; "
        f"{' x '.join(map(str, case.shape))}"
        + (f"; labels {', '.join(map(str, case.label_values[:12]))}" if case.label_values else "")
        + ")"
        for case in facts
    }
