"""Scores of an evaluation: one row per case and structure, and their summary."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from ..files import write_text_atomically
from ..metrics import StructureScore, score_structures

_logger = logging.getLogger(__name__)


class CaseMetrics:
    """Score each case against its reference and write `metrics.csv` and `summary.json`.

    `metrics.csv` has a row for each case and structure: Dice, HD95 (mm), NSD. `summary.json` has their means per
    structure over the cases in which it was scored, and the mean over structures; a structure in neither map of a
    case is counted apart, one in only one of the two maps gets the worst values (see `score_structures`). The summary
    Both files are written when all cases were scored and not before: no failed case leaves an average.

    Args:
        output_dir: Folder of the two files.
        label_names: Name of each structure by its label; background is not among them.
        nsd_tolerance_mm: Tolerance of the surface Dice in mm.

    Note:
        The engine's output must be decollated, with `pred` and `label`, label maps of shape (1, D, H, W) in the
        geometry of the input, and the batch must name the `case`. The mean Dice goes to `engine.state.metrics`.
    """

    def __init__(self, output_dir: str | Path, label_names: Mapping[int | str, str], nsd_tolerance_mm: float) -> None:
        self.output_dir = Path(output_dir)
        self.label_names = {int(label): name for label, name in label_names.items() if int(label) != 0}
        self.nsd_tolerance_mm = nsd_tolerance_mm
        self.scores: list[tuple[str, dict[int, StructureScore]]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._summarize)

    def _start(self, _engine: Engine) -> None:
        self.scores = []
        for name in ("metrics.csv", "summary.json"):
            (self.output_dir / name).unlink(missing_ok=True)

    def _score(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            prediction, reference = (output[key][0].as_tensor() for key in (CommonKeys.PRED, CommonKeys.LABEL))
            spacing_mm = output[CommonKeys.LABEL].pixdim.tolist()
            scores = score_structures(prediction, reference, list(self.label_names), spacing_mm, self.nsd_tolerance_mm)
            self.scores.append((item["case"], scores))

    def _summarize(self, engine: Engine) -> None:
        rows = io.StringIO(newline="")
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(("case", "label", "structure", *StructureScore._fields))
        for case, scores in self.scores:
            for label, score in scores.items():
                writer.writerow((case, label, self.label_names[label], *(f"{v:.6g}" for v in score)))
        write_text_atomically(rows.getvalue(), self.output_dir / "metrics.csv")
        structures = {
            name: _means([scores[label] for _, scores in self.scores]) for label, name in self.label_names.items()
        }
        scored = [s for s in structures.values() if s["num_scored"]]
        mean = {f: sum(s[f] for s in scored) / len(scored) if scored else None for f in StructureScore._fields}
        summary = {
            "num_cases": len(self.scores),
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "mean_over_structures": mean,
            "structures": structures,
        }
        write_text_atomically(json.dumps(summary, indent=4) + "\n", self.output_dir / "summary.json")
        engine.state.metrics.update({f"mean_{field}": value for field, value in mean.items() if value is not None})
        _logger.info("Scores of %d cases:\n%s", len(self.scores), format_summary(summary))


def _means(scores: list[StructureScore]) -> dict[str, Any]:
    scored = [s for s in scores if not math.isnan(s.dice)]
    means: dict[str, Any] = {
        field: sum(getattr(s, field) for s in scored) / len(scored) if scored else None
        for field in StructureScore._fields
    }
    return {**means, "num_scored": len(scored), "num_absent": len(scores) - len(scored)}


def format_summary(summary: Mapping[str, Any]) -> str:
    """Lay out the content of `summary.json` as a table for a terminal."""
    lines = [f"{'structure':24s} {'Dice':>7s} {'HD95 mm':>9s} {'NSD':>7s} {'cases':>6s}"]
    rows = [*summary["structures"].items(), ("mean", {**summary["mean_over_structures"], "num_scored": ""})]
    for name, row in rows:
        cells = ["-" if row[f] is None else f"{row[f]:.3f}" for f in StructureScore._fields]
        lines.append(f"{name:24s} {cells[0]:>7s} {cells[1]:>9s} {cells[2]:>7s} {row['num_scored']!s:>6s}")
    return "\n".join(lines)
