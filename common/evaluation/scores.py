"""Scores in long form, and what they come to."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.problems import refusal
from ..files import write_text_atomically
from .protocols import MISSING, OUTCOMES, SCORED, Protocol
from .structures import LabelSet

COLUMNS = ("case", "structure", "metric", "value", "outcome")

MEAN_OVER_STRUCTURES = (
    "Mean over structures: first the mean of each structure over the cases in which it was scored, then the mean of "
    "these means; every structure weighs the same."
)


@dataclass(frozen=True)
class ScoreTable:
    """Scores of one algorithm.

    Attributes:
        cases: Names of the cases, sorted.
        structures: Names of the structures, in order.
        values: By metric, shape (cases, structures); NaN where a structure is not scored or the value not defined.
        outcomes: Shape (cases, structures), strings.
    """

    cases: list[str]
    structures: list[str]
    values: dict[str, np.ndarray]
    outcomes: np.ndarray

    @classmethod
    def from_results(cls, results: Sequence[Mapping[str, Any]]) -> ScoreTable:
        """Collect the results of single cases, which all have the same structures."""
        rows = (
            (result["case"], structure, metric, math.nan if value is None else value, found["outcome"])
            for result in results
            for structure, found in result["structures"].items()
            for metric, value in found["values"].items()
        )
        return cls.from_rows(rows)

    @classmethod
    def read(cls, path: str | Path) -> ScoreTable:
        """Read `scores.csv`, or a file of someone else with the columns case, structure, metric, value.

        Args:
            path: File, or folder that holds `scores.csv`.

        Returns:
            The scores.

        Raises:
            DatasetError: If there is no such file, or it lacks a column, or a score is there twice or no number.
        """
        path = Path(path) / "scores.csv" if Path(path).is_dir() else Path(path)
        if not path.is_file():
            raise refusal(path, "must exist", "nothing", "run score first, or name the folder that it wrote to")
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            lacking = [c for c in COLUMNS[:-1] if c not in (reader.fieldnames or ())]
            if lacking:
                found = ", ".join(reader.fieldnames or ()) or "nothing"
                raise refusal(path, f"must have the columns {', '.join(COLUMNS[:-1])}", found, "add what is lacking")
            rows = list(reader)
        entries: dict[tuple[str, str, str], tuple[float, str]] = {}
        for number, row in enumerate(rows, start=2):
            key = (row["case"], row["structure"], row["metric"])
            if key in entries:
                raise refusal(f"{path}, line {number}", "must give a score once", " / ".join(key), "remove one of them")
            try:
                entries[key] = (float(row["value"] or math.nan), row.get("outcome") or SCORED)
            except ValueError as error:
                remedy = "leave it empty where there is no score"
                raise refusal(f"{path}, line {number}", "must give a number", repr(row["value"]), remedy) from error
        if not entries:
            raise refusal(path, "must hold scores", "none", "run score first")
        return cls.from_rows((*key, *entry) for key, entry in entries.items())

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[str, str, str, float, str]]) -> ScoreTable:
        """Collect case, structure, metric, value and outcome, in any order."""
        rows = list(rows)
        cases = sorted({row[0] for row in rows})
        structures = list(dict.fromkeys(row[1] for row in rows))
        at = ({name: i for i, name in enumerate(names)} for names in (cases, structures))
        case_at, structure_at = at
        shape = (len(cases), len(structures))
        values = {metric: np.full(shape, math.nan) for metric in dict.fromkeys(row[2] for row in rows)}
        outcomes = np.full(shape, "", dtype=object)
        for case, structure, metric, value, outcome in rows:
            index = case_at[case], structure_at[structure]
            values[metric][index] = value
            outcomes[index] = outcome
        return cls(cases, structures, values, outcomes)

    def write(self, path: Path) -> None:
        """Write the long form: one row for each case, structure and metric; no value where there is no score."""
        rows = io.StringIO(newline="")
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (i, case), (j, structure) in ((c, s) for c in enumerate(self.cases) for s in enumerate(self.structures)):
            for metric, values in self.values.items():
                text = "" if math.isnan(values[i, j]) else f"{values[i, j]:.10g}"
                writer.writerow((case, structure, metric, text, self.outcomes[i, j]))
        write_text_atomically(rows.getvalue(), path)

    def structures_with(self, case: str, outcome: str) -> list[str]:
        """Return the structures that had an outcome in a case."""
        found = self.outcomes[self.cases.index(case)]
        return [name for name, value in zip(self.structures, found, strict=True) if value == outcome]

    def case_means(self, metric: str) -> np.ndarray:
        """Return the mean of each case over its scored structures; NaN where there are none. Shape (cases,)."""
        return mean_of_scored(self.values[metric], axis=1)

    def structure_means(self, metric: str) -> np.ndarray:
        """Return the mean of each structure over the cases in which it was scored. Shape (structures,)."""
        return mean_of_scored(self.values[metric], axis=0)


def mean_of_scored(values: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean of what is not NaN along an axis, and NaN where nothing is."""
    scored = ~np.isnan(values)
    count = scored.sum(axis=axis)
    total = np.where(scored, values, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(count.shape, math.nan), where=count > 0)


def summarize(
    table: ScoreTable, label_set: LabelSet, protocol: Protocol, groups: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return what `summary.json` holds: how it was scored, and per structure mean, deviation, median and counts.

    Args:
        table: Scores.
        label_set: What was scored.
        protocol: Rule for empty masks.
        groups: Group of each case. `groups` of the result has the means of each, `mean_over_groups` the mean of these,
            in which every group weighs the same.

    Returns:
        Numbers, strings and lists only; None where there is no number.
    """
    structures = {}
    for j, structure in enumerate(label_set.structures):
        columns = {metric: values[:, j] for metric, values in table.values.items()}
        counts = Counter(table.outcomes[:, j])
        structures[structure.name] = {
            "nsd_tolerance_mm": structure.nsd_tolerance_mm,
            **{metric: _statistics(column) for metric, column in columns.items()},
            "outcomes": {outcome: counts[outcome] for outcome in OUTCOMES},
        }
    missing = {case: table.structures_with(case, MISSING) for case in table.cases}
    return {
        "label_set": label_set.title,
        "notes": list(label_set.notes),
        "protocol": protocol.name,
        "rules": [protocol.rule, MEAN_OVER_STRUCTURES],
        "num_cases": len(table.cases),
        "missing_predictions": {case: names for case, names in missing.items() if names},
        "mean_over_structures": _means(table)["mean_over_structures"],
        "structures": structures,
        **({} if groups is None else _group_means(table, groups)),
    }


def _means(table: ScoreTable) -> dict[str, Any]:
    """Return means over structures, and of each structure."""
    means = {metric: table.structure_means(metric) for metric in table.values}
    return {
        "mean_over_structures": {metric: _number(mean_of_scored(values, axis=0)) for metric, values in means.items()},
        "structures": {
            structure: {metric: _number(values[j]) for metric, values in means.items()}
            for j, structure in enumerate(table.structures)
        },
    }


def _group_means(table: ScoreTable, groups: Mapping[str, str]) -> dict[str, Any]:
    of_groups = {}
    for group in dict.fromkeys(groups.values()):
        rows = np.array([groups[case] == group for case in table.cases])
        values = {metric: array[rows] for metric, array in table.values.items()}
        cases = [case for case, is_in in zip(table.cases, rows, strict=True) if is_in]
        part = ScoreTable(cases, table.structures, values, table.outcomes[rows])
        of_groups[group] = {"num_cases": len(cases), **_means(part)}
    over_groups = {
        metric: _number(
            mean_of_scored(np.array([g["mean_over_structures"][metric] for g in of_groups.values()], dtype=float), 0)
        )
        for metric in table.values
    }
    return {"groups": of_groups, "mean_over_groups": over_groups}


def _statistics(column: np.ndarray) -> dict[str, float | int | None]:
    scored = column[~np.isnan(column)]
    return {
        "mean": _number(scored.mean()) if scored.size else None,
        "std": _number(scored.std(ddof=1)) if scored.size > 1 else None,
        "median": _number(np.median(scored)) if scored.size else None,
        "num": int(scored.size),
    }


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
