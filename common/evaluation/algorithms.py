"""Scores of several algorithms on the same cases, and the groups of these cases."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.problems import refusal
from .protocols import METRICS
from .scores import ScoreTable

MAX_GROUPS = 10


@dataclass(frozen=True)
class Algorithms:
    """Scores of several algorithms, in the same order of cases and structures.

    Attributes:
        names: Names of the algorithms.
        cases: Names of the cases.
        structures: Names of the structures.
        values: By metric, shape (algorithms, cases, structures); NaN where not scored.
        rules: Rules of the scoring that all of them share, where known.
    """

    names: list[str]
    cases: list[str]
    structures: list[str]
    values: dict[str, np.ndarray]
    rules: list[str]


def load_algorithms(scores: Sequence[str | Path], names: Sequence[str] | None = None) -> Algorithms:
    """Read the scores of several algorithms.

    Args:
        scores: Folders that `score` wrote, or CSV files; at least two.
        names: A name for each; None takes the names of the folders or files.

    Returns:
        The scores.

    Raises:
        DatasetError: If a file cannot be read, or the algorithms were not scored on the same cases and structures by
            the same protocol.
        ValueError: If there are fewer than two, or names are lacking or double.
    """
    names = [Path(path).resolve().with_suffix("").name for path in scores] if names is None else list(names)
    if len(scores) < 2:
        raise ValueError(f"scores must name at least two algorithms; found {len(scores)}.")
    if len(names) != len(scores) or len(set(names)) != len(names):
        raise ValueError(
            f"names must give each of {len(scores)} algorithms a name of its own; found {', '.join(names)}."
        )
    tables = [ScoreTable.read(path) for path in scores]
    first = tables[0]
    for path, table in zip(scores[1:], tables[1:], strict=True):
        for what, own, other in (
            ("cases", table.cases, first.cases),
            ("structures", sorted(table.structures), sorted(first.structures)),
        ):
            if own != other:
                only = [f"only here: {_some(set(own) - set(other))}", f"only there: {_some(set(other) - set(own))}"]
                remedy = "score all algorithms on the same references"
                raise refusal(path, f"must have the {what} of {scores[0]}", "; ".join(only), remedy)
    metrics = [m for m in METRICS if all(m in table.values for table in tables)]
    if not metrics:
        raise refusal(scores[0], f"must share one of {', '.join(METRICS)} with all others", "none", "score them again")
    order = [[table.structures.index(name) for name in first.structures] for table in tables]
    values = {m: np.stack([t.values[m][:, o] for t, o in zip(tables, order, strict=True)]) for m in metrics}
    return Algorithms(names, first.cases, first.structures, values, _shared_rules(scores))


def _some(names: set[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "") or "none"


def _shared_rules(scores: Sequence[str | Path]) -> list[str]:
    """Return the rules of the scoring; refuse algorithms that were scored by different ones."""
    keys = ("protocol", "label_set", "geometry", "tolerances")
    first: dict[str, Any] | None = None
    for path in scores:
        file = Path(path) / "summary.json"
        if not file.is_file():
            continue
        summary = json.loads(file.read_text(encoding="utf-8"))
        summary["tolerances"] = {name: row["nsd_tolerance_mm"] for name, row in summary["structures"].items()}
        first = first or summary
        for key in keys:
            if summary[key] != first[key]:
                found = f"{_short(summary[key])} against {_short(first[key])}"
                raise refusal(file, f"must be scored with the {key} of {scores[0]}", found, "score all of them alike")
    return [] if first is None else list(first["rules"])


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def load_groups(metadata: str | Path, columns: Sequence[str], cases: Sequence[str]) -> dict[str, list[str]]:
    """Read the groups of each case.

    Args:
        metadata: CSV with the column `case` and one for each property, such as sex or scanner.
        columns: Properties to read; each must be a category and no measurement.
        cases: Cases, all of which must be listed.

    Returns:
        By column the group of each case, in order; an empty string where it is not known.

    Raises:
        DatasetError: If the file, a column or a case is not there, a case is there twice, or a column has more than
            ten groups.
    """
    path = Path(metadata)
    if not path.is_file():
        raise refusal(path, "must exist", "nothing", "correct metadata")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        reader = csv.DictReader(stream)
        present = list(reader.fieldnames or ())
        rows = list(reader)
    lacking = [column for column in ("case", *columns) if column not in present]
    if lacking:
        raise refusal(
            path, f"must have the columns {', '.join(lacking)}", ", ".join(present) or "none", "correct subgroups"
        )
    listed = [row["case"] for row in rows]
    doubles = {case for case in cases if listed.count(case) > 1}
    absent = set(cases) - set(listed)
    if doubles or absent:
        raise refusal(path, "must list each case once", f"{_some(absent)} absent, {_some(doubles)} twice", "correct it")
    row_of = dict(zip(listed, rows, strict=True))
    groups = {column: [(row_of[case][column] or "").strip() for case in cases] for column in columns}
    for column, values in groups.items():
        num_groups = len(set(values) - {""})
        if num_groups > MAX_GROUPS:
            remedy = "bin measurements such as age into groups in a column of their own"
            raise refusal(path, f"must have at most {MAX_GROUPS} groups in {column}", str(num_groups), remedy)
    return groups
