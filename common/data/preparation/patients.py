"""Whose scan is it? And which patients train, validate and test."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..problems import refusal
from .sources import Source

__all__ = ["DEFAULT_RULE", "find_patients", "merge_patients", "split_patients"]

DEFAULT_RULE = "the name up to its first number, or the folder where the name has none"
UP_TO_NUMBER = re.compile(r"(.*?\d+)(?:[^0-9].*)?$")
CSV_COLUMNS = ("case", "patient")


def find_patients(
    sources: Sequence[Source], patient_pattern: str = "", patients: str | Path | None = None
) -> dict[str, str]:
    """Return the patient of each case.

    Args:
        sources: Images.
        patient_pattern: Regular expression that finds the patient in the name of a case (its path below the folder of
            images), as its first group or as a whole.
        patients: CSV with the columns `case` (the name, or its last part) and `patient`; comes before the pattern.

    Returns:
        Name of the case to patient. Without pattern and table: `patient001` for `patient001_frame01`, the folder for
        `007/scan`.

    Raises:
        DatasetError: If the pattern does not match or the table does not name a case.
        ValueError: If the pattern is no regular expression.
    """
    if patients is not None:
        return _from_table(sources, Path(patients))
    if not patient_pattern:
        return {source.name: _by_default(source.name) for source in sources}
    try:
        pattern = re.compile(patient_pattern)
    except re.error as error:
        raise ValueError(
            f"patient_pattern must be a regular expression; found {patient_pattern!r} ({error}). "
            "'patient[0-9]+' finds the patient of patient001_frame01."
        ) from error
    found: dict[str, str] = {}
    for source in sources:
        match = pattern.search(source.name)
        if match is None:
            rule = f"must have a patient that patient_pattern {patient_pattern!r} finds"
            raise refusal(source.image, rule, f"no match in {source.name}", "change the pattern, or give patients")
        found[source.name] = str(match[1] if pattern.groups else match[0])
    return found


def _by_default(name: str) -> str:
    path = Path(name)
    match = UP_TO_NUMBER.match(path.name)
    if match:
        return match[1]
    return path.parent.name or path.name


def _from_table(sources: Sequence[Source], path: Path) -> dict[str, str]:
    if not path.is_file():
        raise refusal(path, "must be a CSV file", "nothing", f"write one with the columns {', '.join(CSV_COLUMNS)}")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        if not set(CSV_COLUMNS) <= set(reader.fieldnames or ()):
            found = ", ".join(reader.fieldnames or ()) or "no header"
            raise refusal(path, f"must have the columns {', '.join(CSV_COLUMNS)}", found, "rename the columns")
        table = {row["case"]: row["patient"] for row in reader}
    found_patients: dict[str, str] = {}
    for source in sources:
        patient = table.get(source.name) or table.get(Path(source.name).name)
        if not patient:
            raise refusal(path, f"must name the patient of {source.name}", "no row", "add it")
        found_patients[source.name] = patient
    return found_patients


def merge_patients(patients: Mapping[str, str], groups: Iterable[Sequence[str]]) -> dict[str, str]:
    """Make one patient of those that share a case: doubles must not lie in training and test.

    Args:
        patients: Case to patient.
        groups: Cases that belong together.
    """
    merged = dict(patients)
    for group in groups:
        kept, others = merged[group[0]], {merged[case] for case in group[1:]}
        merged = {case: kept if patient in others else patient for case, patient in merged.items()}
    return merged


def split_patients(
    patients: Iterable[str], val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[str]]:
    """Divide patients into sections, always alike for the same patients and seed.

    Args:
        patients: Patients, in any order, any number of times.
        val_fraction: Share of the patients that is `validation`; above 0 at least one.
        test_fraction: Share that is `test`; the same.
        seed: Seed of the draw.

    Returns:
        Section to its patients, sorted; `training` is never empty.

    Raises:
        ValueError: If the shares leave nobody to train on.
    """
    if min(val_fraction, test_fraction) < 0 or val_fraction + test_fraction >= 1:
        raise ValueError(
            f"val_fraction and test_fraction must be 0 or more and leave patients for training; found {val_fraction} "
            f"and {test_fraction}. 0.1 and 0.2 are usual."
        )
    names = sorted(set(patients))
    counts = {
        section: max(1, round(share * len(names))) if share else 0
        for section, share in (("test", test_fraction), ("validation", val_fraction))
    }
    if sum(counts.values()) >= len(names):
        raise ValueError(
            f"{len(names)} patients are too few to hold out {counts['validation']} for validation and {counts['test']} "
            "for test. Give --val_fraction 0, --test_fraction 0, or more patients; --patient_pattern says who is one."
        )
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    sections: dict[str, list[str]] = defaultdict(list)
    for section, count in counts.items():
        sections[section], order = sorted(order[:count]), order[count:]
    return {"training": sorted(order), "validation": sections["validation"], "test": sections["test"]}
