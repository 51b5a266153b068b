"""Cases of an inference, one a time, of which one may fail without the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.data import Dataset
from monai.utils import ensure_tuple

from ..data.problems import DatasetError
from ..data.readers import read_volume
from ..data.screening import FAILURE
from .failures import describe_failure, machine_fault

# Keys of items that stand for a case that is not run.
FINISHED = "finished"
FATAL = "fatal"

_logger = logging.getLogger(__name__)


class CaseDataset(Dataset):
    """Load cases; one that cannot be loaded becomes an item that says why, and one that is finished is not read.

    Such an item has the strings of the case and the key `failure`, with the reason, or `finished`. It is for
    `CaseIsolation`; the loader and its workers go on.

    Args:
        data: Cases, each with its name under `case`; those with the key `failure` are not read.
        transform: Reads and transforms a case.
        finished: Names of cases that need not be read; looked at whenever a case is asked for.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[[Mapping[str, Any]], Any],
        finished: Collection[str] = (),
    ) -> None:
        super().__init__(data, transform)
        self.finished = finished

    def _transform(self, index: int) -> Any:
        case = self.data[index]
        names = {key: value for key, value in case.items() if isinstance(value, str)}
        if case["case"] in self.finished:
            return {**names, FINISHED: True}
        if FAILURE in case:
            return names
        try:
            return super()._transform(index)
        except Exception as error:
            _logger.debug("Case %s cannot be loaded", case["case"], exc_info=True)
            reason = machine_fault(error, is_writing=False)
            return {**names, FAILURE: reason or _explain(case, error), **({FATAL: True} if reason else {})}


def _explain(case: Mapping[str, Any], error: Exception) -> str:
    """Say what is wrong with the files of a case, or, if each can be read, what was raised."""
    paths = [path for key, value in case.items() if key != "case" for path in ensure_tuple(value)]
    named = [path for path in paths if isinstance(path, str) and Path(path).is_absolute()]
    return next(filter(None, map(_defect, named)), None) or describe_failure(error)


def _defect(path: str) -> str | None:
    try:
        read_volume(path)
    except DatasetError as problem:
        return describe_failure(problem)
    return None
