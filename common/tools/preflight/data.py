"""Is the data there, and does what is read of it follow the rules?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from ...data import CaseSummary, DatasetError, check_datalist, check_photographs, inspect_datalist
from .case_headers import Scans, evenly
from .run_config import RunConfig
from .sections import REFUSALS, Section, root_cause

__all__ = ["check_data"]

MAX_PROBLEMS = 6
# What the lists of configurations are for, by the first part of their id.
NAMES = {"train": "training", "validate": "validation", "datalist": "cases", "supports": "supports"}


def check_data(config: RunConfig, num_cases: int) -> tuple[Section, list[Scans]]:
    """List what the run reads, read the headers of the images and a few cases in full.

    Args:
        config: The run.
        num_cases: Cases of each list that are read in full, evenly spread.

    Returns:
        What is to be said, and what was found, with headers.
    """
    section = Section("data")
    found: list[Scans] = []
    for key in config.components(check_datalist, check_photographs):
        name = NAMES.get(key.partition("::")[0], key)
        arguments = config.arguments(key, "datalist", "enabled", "isolate")
        try:
            cases = [dict(case) for case in config.value(f"{key}#datalist")]
        except REFUSALS as error:
            _add_problems(section, error)
            continue
        scans = Scans(name, cases, ensure_tuple(arguments.get("keys", ("image", "label"))))
        found.append(scans)
        if not _all_there(section, scans):
            continue
        scans.read_headers()
        sample = evenly(cases, num_cases)
        try:
            if config.targets[key] is check_datalist:
                summaries = inspect_datalist(sample, **arguments)
            else:
                check_photographs(sample, **arguments)
                summaries = []
        except (DatasetError, ValueError, TypeError) as error:
            _add_problems(section, error)
            continue
        section.lines += _describe(scans, summaries, len(sample))
        section.warnings += [warning for summary in summaries for warning in summary.warnings][:MAX_PROBLEMS]
    section.warnings += _shared(found)
    if not found and not section.problems:
        section.lines.append("this configuration reads none")
    return section, found


def _add_problems(section: Section, error: BaseException) -> None:
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, DatasetError):
        cause = cause.__cause__
    if not isinstance(cause, DatasetError):
        section.problems.append(root_cause(error))
        return
    texts = [str(problem) for problem in cause.problems]
    section.problems += [text for text in texts[:MAX_PROBLEMS] if text not in section.problems]
    if len(texts) > MAX_PROBLEMS:
        section.problems.append(f"and {len(texts) - MAX_PROBLEMS} more problems of this kind.")


def _all_there(section: Section, scans: Scans) -> bool:
    """Say which files do not exist; only this is asked of every case."""
    missing = [
        path
        for case in scans.cases
        for key in scans.keys
        for path in ensure_tuple(case.get(key, ()))
        if not Path(path).exists()
    ]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        section.problems.append(
            f"{', '.join(missing[:3])}{more}: must exist; found nothing. Remedy: correct the paths in dataset.json, or "
            "restore the files."
        )
    return not missing


def _describe(scans: Scans, summaries: Sequence[CaseSummary], num_read: int) -> Iterator[str]:
    """Say how many cases there are, their sizes, voxel sizes, intensities and labels."""
    folders = sorted({str(Path(ensure_tuple(case["image"])[0]).parent) for case in scans.cases})
    more = f" and {len(folders) - 1} more folder{'s' if len(folders) > 2 else ''}" if len(folders) > 1 else ""
    total = len(scans.cases)
    read = "all read" if num_read == total else f"{num_read} read, the run reads all"
    yield f"{scans.name}: {total} case{'s' if total > 1 else ''} in {folders[0]}{more} ({read})"
    if scans.headers:
        text = f"  size {_ranges([header.spatial_shape for header in scans.headers])}"
        spacings = [header.spacing_mm for header in scans.headers if header.spacing_mm]
        text += f", voxels of {_ranges(spacings)} mm" if spacings else " pixels"
        ranges = [summary.intensity_range for summary in summaries if summary.intensity_range]
        if ranges:
            text += f", intensities {min(low for low, _ in ranges):g} to {max(high for _, high in ranges):g}"
        yield text
    labels: Counter[int] = Counter()
    for summary in summaries:
        labels.update(summary.label_voxels)
    if labels:
        shares = (f"{value}: {100 * labels[value] / labels.total():.2g} %" for value in sorted(labels))
        yield f"  classes found {', '.join(shares)}"


def _ranges(rows: Sequence[Sequence[float]]) -> str:
    if len({len(row) for row in rows}) > 1:
        return "of different numbers of axes"
    axes = zip(*rows, strict=True)
    return " x ".join(f"{min(a):.4g}" if min(a) == max(a) else f"{min(a):.4g}..{max(a):.4g}" for a in axes)


def _shared(found: Sequence[Scans]) -> Iterator[str]:
    """Say which images are in training and in validation."""
    images: dict[str, set[Any]] = {scans.name: {str(case["image"]) for case in scans.cases} for scans in found}
    both = images.get("training", set()) & images.get("validation", set())
    if both:
        yield f"{len(both)} images are in training and in validation, such as {min(both)}: validation will look better."
