"""Scores of a stream of domains: per case and channel, per domain, pooled over images, and mean over domains."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.utils import CommonKeys

from ..files import write_text_atomically
from ..metrics import ChannelScore, score_channels
from .case_journal import FAILED
from .case_report import CaseReport

_logger = logging.getLogger(__name__)

FILES = ("metrics.csv", "domains.json")
FIELDS = ChannelScore._fields
HEADINGS = ("Dice", "HD95 px", "ASD px", "E", "S")


class DomainMetrics:
    """Score what the network gave for each image by the metrics of the papers; write `metrics.csv` and `domains.json`.

    Unlike `CaseScores`, which scores the written masks, this is at the size that the network sees, with the papers'
    metrics, so that figures can be compared with published ones. `metrics.csv` has a row for each case and channel.
    `domains.json` has for every domain the means over its images, for each channel and over the channels; then
    `pooled`, the same over all images, in which large domains weigh more (the figure of VPTTA's tables), and
    `mean_over_domains`, in which every domain weighs the same (GraTa's). An image counts in every mean, also where a
    mask is empty: `score_channels` says what that scores. An image that failed counts with the worst values: Dice, E-
    and S-measure 0, distances the diagonal. The two files are written when every case has been scored; what a former
    run left is removed at the start.

    Args:
        output_dir: Folder of the two files.
        channel_names: Names of the channels of `pred` and `label`.
        report: Tells which images failed, and keeps scores for a run that is started again and skips finished images.
        image_size: Height and width that the network sees, for the diagonal; needed with `report`.

    Raises:
        ValueError: If `report` is given without `image_size`.

    Note:
        The engine's output must be decollated, with `pred` and `label` of shape (K, H, W), 0 and 1, on one grid, and
        the batch must name the `case` and the `domain`. Distances are in pixels of that grid. The pooled means go to
        `engine.state.metrics` as `pooled_dice` and so on.
    """

    def __init__(
        self,
        output_dir: str | Path,
        channel_names: Sequence[str],
        report: CaseReport | None = None,
        image_size: int | None = None,
    ) -> None:
        if report is not None and image_size is None:
            raise ValueError("image_size must be given with report, for the distances of images that failed; got None.")
        self.output_dir = Path(output_dir)
        self.report = report
        self.diagonal_px = math.hypot(image_size or 0, image_size or 0)
        self.channel_names = list(channel_names)
        self.scores: list[tuple[str, str, list[ChannelScore]]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._score)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _start(self, _engine: Engine) -> None:
        self.scores = []
        for name in FILES:
            (self.output_dir / name).unlink(missing_ok=True)

    def _score(self, engine: Engine) -> None:
        """Score the items that the engine has just finished.

        Raises:
            ValueError: If a prediction has more or fewer channels than there are names.
        """
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            prediction, reference = (output[key].cpu().numpy() > 0 for key in (CommonKeys.PRED, CommonKeys.LABEL))
            scores = score_channels(prediction, reference)
            if len(scores) != len(self.channel_names):
                raise ValueError(
                    f"channel_names must name the {len(scores)} channels of the prediction; got {self.channel_names}."
                )
            self.scores.append((item["domain"], item["case"], scores))
        self._keep_or_recall()

    def _keep_or_recall(self) -> None:
        """Keep the scores of the case with the report, or take them from there; count one that failed."""
        if self.report is None or self.report.current is None:
            return
        case = self.report.current.case
        domain = self.report.cases[case]["domain"]
        if self.report.current.outcome == FAILED:
            worst = ChannelScore(0.0, self.diagonal_px, self.diagonal_px, 0.0, 0.0)
            self.scores.append((domain, case, [worst] * len(self.channel_names)))
        elif self.report.is_finished():
            kept = [ChannelScore(*values) for values in self.report.kept(FILES[0])]
            self.scores.append((domain, case, kept))
        else:
            self.report.note(FILES[0], [[float(value) for value in score] for score in self.scores[-1][2]])

    def _write(self, engine: Engine) -> None:
        summary = self.summary()
        rows = io.StringIO(newline="")
        writer = csv.writer(rows, lineterminator="\n")
        writer.writerow(("domain", "case", "channel", *FIELDS))
        writer.writerows(self._rows())
        write_text_atomically(rows.getvalue(), self.output_dir / FILES[0])
        write_text_atomically(json.dumps(summary, indent=4) + "\n", self.output_dir / FILES[1])
        engine.state.metrics.update({f"pooled_{field}": summary["pooled"]["mean"][field] for field in FIELDS})
        _logger.info("Metrics of the papers, %d cases:\n%s", summary["num_cases"], format_domains(summary))

    def _rows(self) -> Iterable[Sequence[Any]]:
        for domain, case, scores in self.scores:
            for name, score in zip(self.channel_names, scores, strict=True):
                yield (domain, case, name, *(f"{value:.6g}" for value in score))

    def summary(self) -> dict[str, Any]:
        """Return the means per domain, pooled, and over domains."""
        by_domain: dict[str, list[list[ChannelScore]]] = {}
        for domain, _, scores in self.scores:
            by_domain.setdefault(domain, []).append(scores)
        domains = {domain: self._means(scores) for domain, scores in by_domain.items()}
        return {
            "num_cases": len(self.scores),
            "pooled": self._means([scores for _, _, scores in self.scores]),
            "mean_over_domains": mean_over_domains(domains),
            "domains": domains,
        }

    def _means(self, images: list[list[ChannelScore]]) -> dict[str, Any]:
        """Means over images, for each channel and over channels."""
        channels = {
            name: {field: _mean([getattr(scores[index], field) for scores in images]) for field in FIELDS}
            for index, name in enumerate(self.channel_names)
        }
        mean = {field: _mean([channel[field] for channel in channels.values()]) for field in FIELDS}
        return {"num_cases": len(images), "mean": mean, "channels": channels}


def mean_over_domains(domains: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return means in which every domain weighs the same.

    Args:
        domains: `domains` of a `domains.json`.
    """
    rows = list(domains.values())
    return {
        "mean": {field: _mean([row["mean"][field] for row in rows]) for field in FIELDS},
        "channels": {
            name: {field: _mean([row["channels"][name][field] for row in rows]) for field in FIELDS}
            for name in rows[0]["channels"]
        },
    }


def domain_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return headings and rows of the content of `domains.json`: one row for each domain and channel.

    Args:
        summary: Content of the file.
    """
    groups = {**summary["domains"], "mean over domains": summary["mean_over_domains"], "pooled": summary["pooled"]}
    rows = [
        [name, channel, *(row[field] for field in FIELDS), group.get("num_cases")]
        for name, group in groups.items()
        for channel, row in {**group["channels"], "mean": group["mean"]}.items()
    ]
    return ["domain", "channel", *HEADINGS, "cases"], rows


def format_domains(summary: Mapping[str, Any]) -> str:
    """Lay out the content of `domains.json` as a table for a terminal; a domain stands in the first of its rows."""
    (domain, channel, *headings, last), rows = domain_table(summary)
    lines = [f"{domain:20s} {channel:10s}" + "".join(f" {name:>8s}" for name in headings) + f" {last:>6s}"]
    former = None
    for name, channel_name, *values, num_cases in rows:
        cells = "".join(f" {value:8.3f}" for value in values)
        shown, former = ("" if name == former else name), name
        lines.append(f"{shown:20s} {channel_name:10s}{cells} {'' if num_cases is None else num_cases!s:>6s}")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
