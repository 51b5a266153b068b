"""What usually goes wrong between a scanner and a data set, seen in all cases together."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from ..headers import read_header
from ..problems import Problem
from .facts import CaseFacts
from .sources import Source

__all__ = ["explain_swapped_axes", "find_doubles", "find_doubts"]

MAX_NAMED = 5


def find_doubles(facts: Sequence[CaseFacts]) -> list[list[str]]:
    """Return groups of cases whose images hold the same values.

    Args:
        facts: Of all cases.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for case in facts:
        groups[case.digest].append(case.name)
    return [names for names in groups.values() if len(names) > 1]


def find_doubts(
    sources: Sequence[Source], facts: Sequence[CaseFacts], patients: Mapping[str, str], has_labels: bool
) -> Iterator[str]:
    """Yield what a person should look at before training, a sentence each.

    Args:
        sources: All cases.
        facts: Of the same cases.
        patients: Case to patient.
        has_labels: Whether labels were asked for.
    """
    for group in find_doubles(facts):
        owners = {patients[name] for name in group}
        remark = "; they count as one patient here" if len(owners) > 1 else ""
        yield f"the same image {len(group)} times: {_some(group)}{remark}. Remove all but one."
    yield from _odd_ones(facts, "modality", "different kinds of images", "train one network on one kind")
    yield from _odd_ones(
        facts, "slice_axis", "slices along different axes", "see whether axes were swapped when they were converted"
    )
    interpolated = [case for case in facts if case.border_values]
    if interpolated:
        values = sorted({value for case in interpolated for value in case.border_values})
        yield (
            f"labels {', '.join(map(str, values[:8]))} lie on nothing but borders between others in "
            f"{_some([case.name for case in interpolated])}: interpolation leaves such values when a label is "
            "resampled. Resample the original again, by nearest neighbor."
        )
    present = sorted({value for case in facts for value in case.label_values})
    if present and (present[0] < 0 or present[-1] >= 2 * len(present)):
        listed = ", ".join(map(str, present[:10])) + (", ..." if len(present) > 10 else "")
        yield f"labels are {listed}: bundles for volumes take 0 to num_classes - 1. Map them, or set num_classes above."
    if has_labels:
        bare = [source.name for source in sources if source.label is None]
        if bare:
            count = f"{len(bare)} of {len(sources)} images"
            yield f"{count} have no label: {_some(bare)}. They go to the section `unlabeled`."
        empty = [case.name for case in facts if case.label_values == [0]]
        if empty:
            yield f"nothing is labelled in {_some(empty)}."


def _odd_ones(facts: Sequence[CaseFacts], attribute: str, what: str, remedy: str) -> Iterator[str]:
    """Yield the cases that differ from the most in something that all should share."""
    found: dict[str, list[str]] = defaultdict(list)
    for case in facts:
        if value := getattr(case, attribute):
            found[value].append(case.name)
    if len(found) > 1:
        ordered = Counter({value: len(names) for value, names in found.items()}).most_common()
        most, rest = ordered[0], ordered[1:]
        others = "; ".join(f"{value} in {_some(found[value])}" for value, _ in rest)
        yield f"{what}: {most[0]} in {most[1]} cases, but {others}. Look at them, and {remedy}."


def explain_swapped_axes(problems: Sequence[Problem], sources: Sequence[Source]) -> list[Problem]:
    """Say of labels whose size is that of the image in another order what has happened to them.

    Args:
        problems: What the check of the data found.
        sources: Cases that were checked.
    """
    images = {str(source.label): source.image for source in sources if source.label is not None}
    explained = []
    for problem in problems:
        file = os.fspath(problem.file)
        label, image = read_header(file), read_header(images.get(file, file))
        shapes = [header.spatial_shape for header in (label, image) if header is not None]
        if len(set(shapes)) == 2 and sorted(shapes[0]) == sorted(shapes[1]):
            remedy = "its axes are swapped: save it again in the order of the image, with the image's affine"
            problem = Problem(problem.file, problem.rule, problem.found, remedy)  # noqa: PLW2901
        explained.append(problem)
    return explained


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else "")
