"""Scores of an evaluation: one row per case and structure, and their summary."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine
from monai.utils import CommonKeys

from ..metrics import StructureScore, score_structures
from .score_files import ScoreFiles


class CaseMetrics(ScoreFiles):
    """Score each case against its reference and write `metrics.csv` and `summary.json`, see `ScoreFiles`.

    `metrics.csv` has a row for each case and structure: Dice, HD95 (mm), NSD. `summary.json` has their means per
    structure over the cases in which it was scored, and the mean over structures; a structure in neither map of a
    case is counted apart, one in only one of the two maps gets the worst values (see `score_structures`).

    Args:
        output_dir: Folder of the two files.
        label_names: Name of each structure by its label; background is not among them.
        nsd_tolerance_mm: Tolerance of the surface Dice in mm.

    Note:
        The engine's output must be decollated, with `pred` and `label`, label maps of shape (1, D, H, W) in the
        geometry of the input, and the batch must name the `case`. The mean Dice goes to `engine.state.metrics`.
    """

    columns = ("case", "label", "structure", *StructureScore._fields)

    def __init__(self, output_dir: str | Path, label_names: Mapping[int | str, str], nsd_tolerance_mm: float) -> None:
        super().__init__(output_dir)
        self.label_names = {int(label): name for label, name in label_names.items() if int(label) != 0}
        self.nsd_tolerance_mm = nsd_tolerance_mm
        self.scores: list[tuple[str, dict[int, StructureScore]]] = []

    def clear(self) -> None:
        """Forget all scores."""
        self.scores = []

    def score(self, engine: Engine) -> None:
        """Score the items that the engine has just finished."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            prediction, reference = (output[key][0].as_tensor() for key in (CommonKeys.PRED, CommonKeys.LABEL))
            spacing_mm = output[CommonKeys.LABEL].pixdim.tolist()
            scores = score_structures(prediction, reference, list(self.label_names), spacing_mm, self.nsd_tolerance_mm)
            self.scores.append((item["case"], scores))

    def rows(self) -> Iterable[Sequence[Any]]:
        """Return a row for each case and structure."""
        for case, scores in self.scores:
            for label, score in scores.items():
                yield (case, label, self.label_names[label], *(f"{v:.6g}" for v in score))

    def summary(self) -> dict[str, Any]:
        """Return the means per structure, and over structures."""
        structures = {
            name: _means([scores[label] for _, scores in self.scores]) for label, name in self.label_names.items()
        }
        scored = [s for s in structures.values() if s["num_scored"]]
        mean = {f: sum(s[f] for s in scored) / len(scored) if scored else None for f in StructureScore._fields}
        return {
            "num_cases": len(self.scores),
            "nsd_tolerance_mm": self.nsd_tolerance_mm,
            "mean_over_structures": mean,
            "structures": structures,
        }

    def table(self, summary: dict[str, Any]) -> str:
        """Lay out the summary for a terminal."""
        return format_summary(summary)

    def metrics(self, summary: dict[str, Any]) -> dict[str, float]:
        """Return the means over structures."""
        return {f"mean_{name}": value for name, value in summary["mean_over_structures"].items() if value is not None}


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
