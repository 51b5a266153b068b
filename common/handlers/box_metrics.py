"""Scores of a localization: one row per case and organ, and their summary."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from ..data.boxes import OrganBoxes, ScanBoxes, VoxelBox
from ..data.extreme_points import cut_sides, extreme_points_of_mask
from ..data.problems import DatasetError, Problem
from ..data.readers import read_volume
from ..files import write_text_atomically
from ..inferers.localization.outputs import POINTS
from ..metrics.boxes import BoxScore, score_box
from .case_journal import FAILED
from .case_report import CaseReport

FILES = ("boxes.csv", "boxes.json")

_logger = logging.getLogger(__name__)


class _Row(NamedTuple):
    case: str
    organ: str
    there: bool
    found: bool
    cut: bool
    score: BoxScore


class BoxMetrics:
    """Score the boxes and extreme points of each case against its label map; write `boxes.csv` and `boxes.json`.

    `boxes.csv` has a row for each case and organ. `boxes.json` has means per organ over the cases in which it was
    scored, and the mean over organs. An organ that is only there, or only found, gets the worst values and is counted
    as missed or as a false alarm; one that is neither is counted as absent. An organ that the border of the scan cuts
    off has no true extreme points: its scores stand in `boxes.csv`, and `boxes.json` counts it apart. In a case that
    failed no organ is found. Both files are written when all cases were scored and not before.

    Args:
        output_dir: Folder of the two files.
        label_names: Name of each organ by its label; background is not among them.
        report: Tells which cases failed, and keeps scores for a run that is started again and skips finished cases.

    Raises:
        DatasetError: If the label of a case that failed cannot be read, since then it cannot be counted.

    Note:
        The engine's output must be decollated, with `pred`, the `ScanBoxes`, `points`, and `label`, the label map as
        stored; the batch must name the `case`. The mean IoU goes to `engine.state.metrics`.
    """

    def __init__(
        self, output_dir: str | Path, label_names: Mapping[int | str, str], report: CaseReport | None = None
    ) -> None:
        self.output_dir = Path(output_dir)
        self.report = report
        self.label_names = {int(label): name for label, name in label_names.items() if int(label) != 0}
        self.rows: list[_Row] = []
        self.problems: list[Problem] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._summarize)

    def _start(self, _engine: Engine) -> None:
        self.rows, self.problems = [], []
        for name in FILES:
            (self.output_dir / name).unlink(missing_ok=True)

    def _score(self, engine: Engine) -> None:
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            boxes: ScanBoxes = output[CommonKeys.PRED]
            label_map = output[CommonKeys.LABEL]
            array, affine = np.asarray(label_map[0].cpu()), np.asarray(label_map.affine, dtype=float)
            self._add(item["case"], array, affine, {organ.label: organ for organ in boxes.organs}, output[POINTS])
        self._keep_or_recall()

    def _add(
        self,
        case: str,
        array: np.ndarray,
        affine: np.ndarray,
        own: Mapping[int, OrganBoxes],
        points: Mapping[str, np.ndarray],
    ) -> None:
        """Add a row for each organ of a case."""
        spacing_mm = np.linalg.norm(affine[:3, :3], axis=0).tolist()
        for label, name in self.label_names.items():
            mask = array == label
            there = bool(mask.any())
            true_box = _box_of_mask(mask) if there else None
            true_mm = extreme_points_of_mask(mask, affine) if there else None
            organ = own.get(label)
            box = organ.whole if organ is not None and organ.present else None
            score = score_box(box, points.get(name), true_box, true_mm, spacing_mm, array.shape)
            is_cut = there and bool(cut_sides(mask, affine))
            self.rows.append(_Row(case, name, there, box is not None, is_cut, score))

    def _keep_or_recall(self) -> None:
        """Keep the rows of the case with the report, or take them from there; count one that failed."""
        if self.report is None or self.report.current is None:
            return
        case = self.report.current.case
        if self.report.current.outcome == FAILED:
            try:
                label_map = read_volume(self.report.cases[case][CommonKeys.LABEL])
            except DatasetError as error:
                self.problems += error.problems  # the others are still worth to be run
                return
            affine = np.eye(4) if label_map.affine is None else label_map.affine
            self._add(case, label_map.array, affine, {}, {})
        elif self.report.is_finished():
            for organ, there, found, cut, score in self.report.kept(FILES[0]):
                self.rows.append(_Row(case, organ, there, found, cut, BoxScore(*score)))
        else:
            rows = [row for row in self.rows if row.case == case]
            self.report.note(FILES[0], [[*row[1:-1], list(map(float, row.score))] for row in rows])

    def _summarize(self, engine: Engine) -> None:
        if self.problems:
            raise DatasetError(self.problems)
        rows = io.StringIO(newline="")
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(("case", "organ", "there", "found", "cut", *BoxScore._fields))
        for row in self.rows:
            flags = (int(flag) for flag in (row.there, row.found, row.cut))
            writer.writerow((row.case, row.organ, *flags, *(f"{value:.6g}" for value in row.score)))
        write_text_atomically(rows.getvalue(), self.output_dir / FILES[0])
        organs = {name: _means([r for r in self.rows if r.organ == name]) for name in self.label_names.values()}
        scored = [means for means in organs.values() if means["num_scored"]]
        mean = {f: sum(m[f] for m in scored) / len(scored) if scored else None for f in BoxScore._fields}
        summary = {"num_cases": len({row.case for row in self.rows}), "mean_over_organs": mean, "organs": organs}
        write_text_atomically(json.dumps(summary, indent=4) + "\n", self.output_dir / FILES[1])
        engine.state.metrics.update({f"mean_{field}": value for field, value in mean.items() if value is not None})
        _logger.info("Boxes of %d cases:\n%s", summary["num_cases"], format_box_summary(summary))


def _box_of_mask(mask: np.ndarray) -> VoxelBox:
    voxels = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    lower, upper = [int(v[0]) for v in voxels], [int(v[-1]) + 1 for v in voxels]
    return VoxelBox((lower[0], lower[1], lower[2]), (upper[0], upper[1], upper[2]))


def _means(rows: list[_Row]) -> dict[str, Any]:
    whole = [row for row in rows if not row.cut]
    scored = [row.score for row in whole if not math.isnan(row.score.iou)]
    means: dict[str, Any] = {
        field: sum(getattr(s, field) for s in scored) / len(scored) if scored else None for field in BoxScore._fields
    }
    return {
        **means,
        "num_scored": len(scored),
        "num_absent": len(whole) - len(scored),
        "num_missed": sum(row.there and not row.found for row in whole),
        "num_false_alarms": sum(row.found and not row.there for row in whole),
        "num_cut": len(rows) - len(whole),
    }


def format_box_summary(summary: Mapping[str, Any]) -> str:
    """Lay out the content of `boxes.json` as a table for a terminal."""
    lines = [f"{'organ':24s} {'IoU':>6s} {'wall mm':>8s} {'point mm':>9s} {'cases':>6s} {'missed':>7s} {'cut':>4s}"]
    blank = {"num_scored": "", "num_missed": "", "num_cut": ""}
    for name, row in [*summary["organs"].items(), ("mean", {**summary["mean_over_organs"], **blank})]:
        iou, wall, point = (
            "-" if row[f] is None else f"{row[f]:.3f}" for f in ("iou", "wall_distance_mm", "point_error_mm")
        )
        counts = f"{row['num_scored']!s:>6s} {row['num_missed']!s:>7s} {row['num_cut']!s:>4s}"
        lines.append(f"{name:24s} {iou:>6s} {wall:>8s} {point:>9s} {counts}")
    return "\n".join(lines)
