"""Cases that cannot be used, set aside so that the others can be run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from monai.utils import ensure_tuple

from .problems import DatasetError, Problem

__all__ = ["FAILURE", "mark_bad_cases"]

# Key of a case that cannot be run, with the reason.
FAILURE = "failure"


def mark_bad_cases(cases: Sequence[Mapping[str, Any]], error: DatasetError) -> list[dict[str, Any]]:
    """Return the cases, those that break rules with all their problems under the key `failure`.

    Args:
        cases: Cases with paths, and their names under `case`.
        error: What is wrong with them.

    Raises:
        DatasetError: `error`, if a problem is of no case: an empty list, a folder.
    """
    marked = [dict(case) for case in cases]
    for problem in error.problems:
        owner = next((case for case in marked if _concerns(problem, case)), None)
        if owner is None:
            raise error
        owner[FAILURE] = " ".join(filter(None, (owner.get(FAILURE), str(problem))))
    return marked


def _concerns(problem: Problem, case: Mapping[str, Any]) -> bool:
    """Tell whether a problem is of a file of a case, of a file in its DICOM folder, or of the case itself."""
    file = os.fspath(problem.file)
    if file == case.get("case"):
        return True
    paths = [os.fspath(path) for key, value in case.items() if key not in ("case", FAILURE) for path in _paths(value)]
    return any(file == path or file.startswith(path.rstrip(os.sep) + os.sep) for path in paths)


def _paths(value: Any) -> list[str | os.PathLike[str]]:
    return [entry for entry in ensure_tuple(value) if isinstance(entry, (str, os.PathLike)) and os.fspath(entry)]
