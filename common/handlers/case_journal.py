"""What a run knows of finished cases when it is started again: `cases.jsonl`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_text_atomically

JOURNAL_FILE = "cases.jsonl"
DONE, FAILED = "done", "failed"


@dataclass
class CaseEntry:
    """What became of a case.

    Attributes:
        case: Name.
        run: Fingerprint of the run.
        fingerprint: Fingerprint of the run and of the files of the case.
        outcome: `done` or `failed`.
        seconds: What it took.
        reason: Why it failed.
        files: Size in bytes and time of change in ns of each output, by path relative to the folder of the outputs.
        notes: What handlers keep of a case, plain values by name: scores, a step of an adaptation.
    """

    case: str
    run: str = ""
    fingerprint: str = ""
    outcome: str = DONE
    seconds: float = 0.0
    reason: str = ""
    files: dict[str, list[int]] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


class CaseJournal:
    """One line of JSON for each case, brought to the disk behind the outputs of the case.

    Args:
        output_dir: Folder of the outputs and of `cases.jsonl`.

    Note:
        A line that a killed process has left unfinished is no entry. Of several entries of a case the last one counts.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)
        self.path = self.output_dir / JOURNAL_FILE
        self.entries: dict[str, CaseEntry] = {}

    def read(self) -> None:
        """Take up what a former run has left; lines that are no entries are passed over."""
        self.entries = {}
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines() if self.path.is_file() else []
        for line in lines:
            try:
                entry = CaseEntry(**json.loads(line))
            except (ValueError, TypeError):
                continue
            self.entries[entry.case] = entry

    def rewrite(self) -> None:
        """Replace the file by the entries as they are now."""
        write_text_atomically("".join(map(_line, self.entries.values())), self.path)

    def append(self, entry: CaseEntry) -> None:
        """Add an entry, and bring it to the disk.

        Args:
            entry: Of a case whose outputs are on the disk.

        Raises:
            OSError: If it cannot be written.
        """
        self.entries[entry.case] = entry
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(_line(entry))
            stream.flush()
            os.fsync(stream.fileno())

    def describe(self, paths: Iterable[str | Path]) -> dict[str, list[int]]:
        """Return size and time of change of outputs, by their relative paths.

        Args:
            paths: Outputs of a case.
        """
        found = {}
        for path in sorted({Path(path) for path in paths}):
            stat = path.stat()
            found[os.path.relpath(path, self.output_dir)] = [stat.st_size, stat.st_mtime_ns]
        return found

    def is_whole(self, entry: CaseEntry) -> bool:
        """Tell whether all outputs of a case are as they were written.

        Args:
            entry: Its entry.
        """
        paths = [self.output_dir / name for name in entry.files]
        return all(path.is_file() for path in paths) and self.describe(paths) == entry.files

    def remove_outputs(self, case: str) -> list[Path]:
        """Delete the outputs that a former run has left of a case, and return them.

        Args:
            case: Name.
        """
        entry = self.entries.get(case)
        paths = [] if entry is None else [self.output_dir / name for name in entry.files]
        present = [path for path in paths if path.is_file()]
        for path in present:
            path.unlink()
        return present


def _line(entry: CaseEntry) -> str:
    return json.dumps(asdict(entry)) + "\n"
