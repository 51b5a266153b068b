"""What a run has left in its folder, read so that a damaged file costs no more than itself."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...handlers.adaptation_trace import ADAPTATION_FILE
from ...handlers.run_record import COMPLETED, RUN_FILE

# Each of these makes a folder that of a run; older runs have no run.json.
TRACES = (RUN_FILE, "cases.csv", "scores.csv", "boxes.csv", "metrics.csv", "events.out.tfevents.*")


WHOLE_NUMBER = re.compile(r"[+-]?\d+")


@dataclass
class Run:
    """One run of one bundle.

    Attributes:
        folder: Its `output_dir`.
        name: What it is called on the page.
        record: Content of `run.json`; empty where there is none.
        problems: What could not be read or drawn, one sentence each.
    """

    folder: Path
    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Values of the configuration that were used, by key."""
        return self.record.get("settings", {})

    @property
    def is_completed(self) -> bool:
        """Whether it ran to its end, as far as it says."""
        return self.record.get("outcome") == COMPLETED

    def rows(self, name: str) -> list[dict[str, str]]:
        """Return the rows of one of its tables, none where there is no such file.

        Args:
            name: Name of a CSV file. What is damaged is noted in `problems`, and left out.
        """
        path = self.folder / name
        if not path.is_file():
            return []
        text = path.read_text(encoding="utf-8", errors="replace")
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            self.problems.append(f"{name} ends in the middle of line {len(lines)}, which is left out.")
            lines.pop()
        found = []
        for row in csv.DictReader(lines):
            if None in row or None in row.values():
                self.problems.append(f"{name} has a row with more or fewer columns than its head; it is left out.")
            else:
                found.append(row)
        return found

    def content(self, name: str) -> dict[str, Any]:
        """Return the content of one of its JSON files, nothing where there is no such file; damage is noted.

        Args:
            name: Name of the file.
        """
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            self.problems.append(f"{name} is damaged and left out: {error}.")
            return {}
        if not isinstance(value, dict):
            self.problems.append(f"{name} must hold an object, found {type(value).__name__}; it is left out.")
            return {}
        return value

    def steps(self) -> list[dict[str, str]]:
        """Return what an adaptation did for each image, in the order of the stream."""
        return self.rows(ADAPTATION_FILE)


def find_runs(run_dir: str | Path) -> list[Run]:
    """Find the runs in a folder: in itself and below.

    Args:
        run_dir: `output_dir` of a run, or a folder of several.

    Returns:
        Runs in the order in which they were started; those that do not say when come last.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If no run has left anything in it.
    """
    root = Path(run_dir).resolve()
    if not root.is_dir():
        raise FileNotFoundError(f"run_dir must be the output_dir of a run, or a folder of several; {root} is none.")
    folders = sorted({path.parent for pattern in TRACES for path in root.rglob(pattern)})
    if not folders:
        raise ValueError(
            f"{root} holds nothing of a run: none of {', '.join(TRACES)}, here or below. Give the output_dir of a run; "
            f"of a training that is where its TensorBoard files are, not where its weights are."
        )
    runs = [_read(folder, root) for folder in folders]
    return sorted(runs, key=lambda run: (not run.record, run.record.get("started", ""), run.name))


def _read(folder: Path, root: Path) -> Run:
    run = Run(folder, folder.name if folder == root else folder.relative_to(root).as_posix())
    run.record = run.content(RUN_FILE)
    if not run.record:
        run.problems.append(f"No {RUN_FILE}: settings, versions, device, seconds and memory were not recorded.")
    elif not run.is_completed:
        run.problems.append("The run did not come to its end: it failed, was stopped, or is still going on.")
    return run


def numbers(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Return rows with numbers in place of their texts; what is empty is None, NaN stays.

    Args:
        rows: Rows of a CSV file. A column is of whole numbers where all of its numbers are.
    """
    found: list[dict[str, Any]] = [{key: _number(value) for key, value in row.items()} for row in rows]
    for key in found[0] if found else ():
        if any(isinstance(row[key], float) for row in found):
            for row in found:
                row[key] = float(row[key]) if isinstance(row[key], int) else row[key]
    return found


def _number(text: str) -> str | int | float | None:
    if not text:
        return None
    if WHOLE_NUMBER.fullmatch(text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text
