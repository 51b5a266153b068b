"""Scores that are written when every case has one, and not before."""

from __future__ import annotations

import csv
import io
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..files import write_text_atomically

FILES = ("metrics.csv", "summary.json")

_logger = logging.getLogger(__name__)


class ScoreFiles(ABC):
    """Write `metrics.csv` and `summary.json` at the end of an evaluation in which no case failed.

    What a former run left is removed at the start, so a failed run leaves neither file: no failed case leaves an
    average.

    Args:
        output_dir: Folder of the two files.
    """

    columns: Sequence[str]

    def __init__(self, output_dir: str | Path) -> None:
        self.output_dir = Path(output_dir)

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose output is decollated and whose batches name the `case` of each item."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.score)
        engine.add_event_handler(Events.COMPLETED, self._write)

    @abstractmethod
    def clear(self) -> None:
        """Forget all scores."""

    @abstractmethod
    def score(self, engine: Engine) -> None:
        """Score the items that the engine has just finished."""

    @abstractmethod
    def rows(self) -> Iterable[Sequence[Any]]:
        """Return the rows of `metrics.csv`, as long as `columns`."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Return the content of `summary.json`."""

    @abstractmethod
    def table(self, summary: dict[str, Any]) -> str:
        """Lay out the summary for a terminal."""

    @abstractmethod
    def metrics(self, summary: dict[str, Any]) -> dict[str, float]:
        """Return the means that go to `engine.state.metrics`."""

    def _start(self, _engine: Engine) -> None:
        self.clear()
        for name in FILES:
            (self.output_dir / name).unlink(missing_ok=True)

    def _write(self, engine: Engine) -> None:
        rows = io.StringIO(newline="")
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows())
        summary = self.summary()
        write_text_atomically(rows.getvalue(), self.output_dir / FILES[0])
        write_text_atomically(json.dumps(summary, indent=4) + "\n", self.output_dir / FILES[1])
        engine.state.metrics.update(self.metrics(summary))
        _logger.info("Scores of %d cases:\n%s", summary["num_cases"], self.table(summary))
