"""What a test-time adaptation did for each image: `adaptation.csv`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from .case_report import CaseReport

ADAPTATION_FILE = "adaptation.csv"


class AdaptationTrace:
    """Write `adaptation.csv` while an evaluator runs: for each image the numbers of the inferer's `last_step`.

    For GraTa these are both losses, the cosine of the gradients and the learning rate; for VPTTA it is the loss. A
    method that says nothing of its steps (no adaptation, TENT) leaves no file, nor does a former run's stay.

    Args:
        output_dir: Folder of `adaptation.csv`.
        inferer: The inferer; its `last_step`, if it has one, is a named tuple.
        report: Keeps the numbers for a run that is started again and skips finished images; its rows come out the same.

    Note:
        A step belongs to the last image of a batch; a constant image has none.
    """

    def __init__(self, output_dir: str | Path, inferer: object, report: CaseReport | None = None) -> None:
        self.path = Path(output_dir) / ADAPTATION_FILE
        self.inferer = inferer
        self.report = report
        self.last_step: Any = None

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose batches name the `case` of each item."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._note)

    def _start(self, _engine: Engine) -> None:
        self.path.unlink(missing_ok=True)

    def _note(self, engine: Engine) -> None:
        if self.report is not None and self.report.is_finished():
            if (kept := self.report.kept(ADAPTATION_FILE)) is not None:
                self._write(*kept)
            return
        step = getattr(self.inferer, "last_step", None)
        if step is None or step is self.last_step or not engine.state.batch:
            return
        self.last_step = step
        numbers = {name: float(value) for name, value in step._asdict().items() if _is_number(value)}
        case = engine.state.batch[-1]["case"]
        if self.report is not None:
            self.report.note(ADAPTATION_FILE, [case, numbers])
        self._write(case, numbers)

    def _write(self, case: str, numbers: Mapping[str, float]) -> None:
        is_new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            if is_new:
                writer.writerow(("case", *numbers))
            writer.writerow((case, *(f"{value:.8g}" for value in numbers.values())))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (isinstance(value, torch.Tensor) and value.ndim == 0)
