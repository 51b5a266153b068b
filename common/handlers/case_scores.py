"""Scores of what an evaluation has written, by the rules of `common.evaluation`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from ..data.problems import DatasetError
from ..evaluation.pairs import Pair
from ..evaluation.reports import group_table, score_table, text_table
from ..evaluation.score_report import write_score_report
from ..evaluation.scoring import Settings, remove_scores, score_pairs
from ..evaluation.structures import LabelSet
from .case_report import CaseReport

_logger = logging.getLogger(__name__)


class CaseScores:
    """Score the masks that an evaluator has written against the references, as `python -m common.evaluation score`.

    What a user gets is what is scored: the files in `output_dir`, in the geometry of the input. Writes `scores.csv`,
    `summary.json` and `report.html` when all cases are done. What a former run left is removed at the start, so a
    failed run leaves none of them: no failed case leaves an average.

    Args:
        output_dir: Folder of the masks, and of the scores.
        datalist: Cases with `case`, `image` and `label`; the two are paths.
        label_set: What is scored.
        protocol: What empty masks are worth: `plain`, `segrap2023` or `touchstone`.
        mask_ending: What follows the name of the case in the name of its mask.
        group_key: Key of the datalist with the group of a case, for means of each group; None for no groups.
        num_worst: How many of the worst cases the page shows.
        num_workers: Cases scored at the same time; see `score_pairs`.
        report: Tells which cases failed. They score the worst value, whatever a former run has left of them, and it is
            for the report to end the run with an error.

    Raises:
        ValueError: If the protocol is unknown.

    Note:
        The references are read when the last case is done, never by the engine. The means over structures go to
        `engine.state.metrics` as `mean_dice` and so on.
    """

    def __init__(
        self,
        output_dir: str | Path,
        datalist: Sequence[Mapping[str, Any]],
        label_set: LabelSet,
        protocol: str = "plain",
        mask_ending: str = "_seg.nii.gz",
        group_key: str | None = None,
        num_worst: int = 3,
        num_workers: int | None = None,
        report: CaseReport | None = None,
    ) -> None:
        self.output_dir = Path(output_dir)
        self.report = report
        self.cases = {case["case"]: case for case in datalist}
        self.settings = Settings(label_set, protocol)
        self.mask_ending = mask_ending
        self.group_key = group_key
        self.num_worst = num_worst
        self.num_workers = num_workers

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator whose postprocessing writes the masks."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._score)

    def _start(self, _engine: Engine) -> None:
        remove_scores(self.output_dir)

    def _score(self, engine: Engine) -> None:
        pairs = [Pair(name, self._mask(name), Path(case["label"])) for name, case in sorted(self.cases.items())]
        groups = None
        if self.group_key is not None:
            groups = {name: str(case[self.group_key]) for name, case in self.cases.items()}
        scored = score_pairs(pairs, self.settings, self.output_dir, groups, num_workers=self.num_workers)
        write_score_report(scored, self.output_dir, self.num_worst, lambda case: Path(self.cases[case]["image"]))
        means = scored.summary["mean_over_structures"]
        engine.state.metrics.update({f"mean_{name}": mean for name, mean in means.items() if mean is not None})
        _logger.info("Scores of %d cases:\n%s", len(pairs), format_scores(scored.summary))
        unexpected = [pair for pair in pairs if pair.case not in self._failed()]
        if problems := replace(scored, pairs=unexpected).missing_problems():
            raise DatasetError(problems)

    def _failed(self) -> Mapping[str, str]:
        return {} if self.report is None else self.report.failed

    def _mask(self, case: str) -> Path | None:
        if case in self._failed():
            return None
        path = self.output_dir / f"{case}{self.mask_ending}"
        return path if path.exists() else None


def format_scores(summary: Mapping[str, Any]) -> str:
    """Lay out the content of `summary.json` for a terminal."""
    tables = [score_table(summary), *([group_table(summary)] if "groups" in summary else [])]
    return "\n\n".join(text_table(*table) for table in tables)
