"""What became of every case: `cases.csv`."""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ignite.engine import Engine, Events

COLUMNS = ("case", "seconds", "outcome", "reason")

_logger = logging.getLogger(__name__)


class CaseReport:
    """Write `cases.csv` while an evaluator runs: every case, its seconds, its outcome.

    A row is written as soon as its case is done, so a killed run leaves what it did. An error is written down with
    its case, the cases behind it are listed as `not run`, and the error goes on, so that the run ends with a non-zero
    exit status.

    Args:
        output_dir: Folder of `cases.csv`.
        cases: Names in the order in which the evaluator meets them.

    Raises:
        ValueError: If a name occurs twice, since outputs of the two cases would overwrite each other.
    """

    def __init__(self, output_dir: str | Path, cases: Sequence[str]) -> None:
        doubles = sorted({case for case in cases if list(cases).count(case) > 1})
        if doubles:
            raise ValueError(f"Case names must be unique, these occur twice: {doubles}; rename the files.")
        self.path = Path(output_dir) / "cases.csv"
        self.cases = list(cases)
        self.num_done = 0
        self.started_s = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose batches name the `case` of each item."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _start(self, engine: Engine) -> None:
        # added now, behind all handlers of the engine: a case is done when they are done with it
        if not engine.has_event_handler(self._finish, Events.ITERATION_COMPLETED):
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._finish)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as stream:
            csv.writer(stream).writerow(COLUMNS)
        self.num_done = 0
        self.started_s = time.perf_counter()

    def _finish(self, engine: Engine) -> None:
        now_s = time.perf_counter()
        names = [item["case"] for item in engine.state.batch]
        seconds = f"{(now_s - self.started_s) / len(names):.3f}"
        self._write([(name, seconds, "done", "") for name in names])
        self.num_done += len(names)
        self.started_s = now_s

    def _fail(self, _engine: Engine, error: Exception) -> None:
        rest = self.cases[self.num_done :]
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        seconds = f"{time.perf_counter() - self.started_s:.3f}"
        rows = [
            (case, seconds if i == 0 else "", "failed" if i == 0 else "not run", reason if i == 0 else "")
            for i, case in enumerate(rest)
        ]
        self._write(rows)
        self.num_done = len(self.cases)  # ignite raises this event once per nested loop
        if rest:
            _logger.error(
                "Case %s failed, %d of %d cases were not run: %s", rest[0], len(rest) - 1, len(self.cases), reason
            )
        raise error

    def _write(self, rows: Sequence[tuple[str, str, str, str]]) -> None:
        with self.path.open("a", newline="") as stream:
            csv.writer(stream).writerows(rows)
