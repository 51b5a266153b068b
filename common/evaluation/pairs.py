"""Which prediction belongs to which reference: by file name."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..data.problems import DatasetError, Problem, refusal
from ..data.readers import case_name, image_suffix
from .masks import structure_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pair:
    """One case.

    Attributes:
        case: Name.
        prediction: File, or folder with a file per structure; None where there is none.
        reference: The same.
    """

    case: str
    prediction: Path | None
    reference: Path


def pair_files(
    predictions: str | Path, references: str | Path, prediction_suffix: str = "", reference_suffix: str = ""
) -> tuple[list[Pair], list[str]]:
    """Match the predictions of a folder with the references of another.

    A case is an image file, named after it without the suffix of the format, or a folder with one image per structure.
    Other files are passed over.

    Args:
        predictions: Folder of predictions.
        references: Folder of references, all of which have to have a prediction.
        prediction_suffix: End of the names of predictions that is not part of the case, such as `_seg`; names without
            it are passed over.
        reference_suffix: The same for references.

    Returns:
        One pair for each reference, in order of the names; and the predictions that have no reference.

    Raises:
        DatasetError: If a folder is not there or has no case, a case is there twice, or not one name matches.
    """
    predicted = _list_cases(Path(predictions), prediction_suffix, "predictions")
    true = _list_cases(Path(references), reference_suffix, "references")
    if not predicted.keys() & true.keys():
        found = f"{', '.join(list(predicted)[:3])} against {', '.join(list(true)[:3])}"
        remedy = "rename them, or name the end that differs with prediction_suffix or reference_suffix"
        likely = _likely_suffix(list(predicted), list(true))
        if likely:
            remedy += f" (prediction_suffix {likely!r} would match)"
        raise refusal(Path(predictions), f"must hold files named as in {references}", found, remedy)
    return [Pair(case, predicted.get(case), path) for case, path in true.items()], sorted(
        predicted.keys() - true.keys()
    )


def _list_cases(folder: Path, suffix: str, role: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise refusal(folder, "must be a folder", "a file" if folder.exists() else "nothing", f"correct {role}")
    cases: dict[str, Path] = {}
    problems = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (structure_files(path) if path.is_dir() else image_suffix(path)):
            continue
        name = path.name if path.is_dir() else case_name(path)
        if not name.endswith(suffix) or name == suffix:
            continue
        case = name.removesuffix(suffix)
        if case in cases:
            problems.append(Problem(path, f"must be the only one of case {case}", str(cases[case]), "remove one"))
        cases[case] = path
    if problems:
        raise DatasetError(problems)
    if not cases:
        found = f"no image that ends with {suffix!r}" if suffix else "no image and no folder of images"
        raise refusal(folder, "must hold cases", found, f"correct {role} or its suffix")
    return dict(sorted(cases.items()))


def _likely_suffix(predicted: list[str], true: list[str]) -> str:
    """Guess the end that all predictions have and the references lack."""
    ends = Counter(name.removeprefix(case) for name in predicted for case in true if name.startswith(case))
    return ends.most_common(1)[0][0] if ends else ""
