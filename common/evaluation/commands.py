"""The two commands: score one algorithm, compare several."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..data.problems import DatasetError
from ..files import write_text_atomically
from .algorithms import load_algorithms, load_groups
from .comparison import compare_algorithms
from .overlays import find_image
from .protocols import METRICS
from .reports import comparison_page, comparison_table, score_table, text_table
from .score_report import saved_overlays, write_score_report
from .scoring import score_folder

logger = logging.getLogger(__name__)


def score(
    predictions: str,
    references: str,
    labels: str,
    output_dir: str,
    protocol: str = "plain",
    geometry: str = "refuse",
    prediction_suffix: str = "",
    reference_suffix: str = "",
    images: str | None = None,
    num_worst: int = 3,
    num_workers: int | None = None,
) -> None:
    """Score every structure of every case: Dice, NSD, HD95, ASD, volume difference.

    Writes scores.csv (long form), summary.json and report.html. Run again after an interruption, it goes on where it
    stopped. A prediction that is missing scores the worst value and makes the exit status non-zero.

    Args:
        predictions: Folder with a label map, a multi-channel file or a folder of one file per structure for each case.
        references: The same for the references; cases are matched by name.
        labels: Shipped label set (segrap2023_oars, segrap2023_gtvs, touchstone, word, msd03_liver, ...) or JSON file.
        output_dir: Where to write.
        protocol: What empty masks are worth: segrap2023, touchstone or plain.
        geometry: Predictions on another grid than their reference: refuse or resample.
        prediction_suffix: End of the names of predictions that is not part of the case, such as _seg.
        reference_suffix: The same for references.
        images: Folder of images to draw under the worst cases.
        num_worst: How many of the worst cases are drawn.
        num_workers: Cases scored at the same time.

    Raises:
        DatasetError: If files cannot be scored, or predictions are missing; with a line for each.
        ValueError: If an option is not what it may be.
    """
    output = Path(output_dir)
    scored = score_folder(
        predictions,
        references,
        labels,
        output,
        protocol,
        geometry,
        str(prediction_suffix),
        str(reference_suffix),
        num_workers,
    )
    write_score_report(scored, output, num_worst, None if images is None else partial(find_image, images))
    logger.info("%s", text_table(*score_table(scored.summary)))
    for rule in (*scored.summary["rules"], *scored.summary["notes"]):
        logger.info("- %s", rule)
    logger.info("Written to %s: scores.csv, summary.json, report.html", output)
    problems = scored.missing_problems()
    if problems:
        raise DatasetError(problems)


def compare(
    scores: str | Sequence[str],
    output_dir: str,
    names: str | Sequence[str] | None = None,
    metrics: str | Sequence[str] = ("dice", "nsd"),
    metadata: str | None = None,
    subgroups: str | Sequence[str] = (),
    alpha: float = 0.05,
    num_resamples: int = 2000,
    num_worst: int = 3,
    seed: int = 0,
) -> None:
    """Compare algorithms on the same cases: means with intervals, rankings, significance maps, subgroups.

    Writes comparison.csv (long form), comparison.json and report.html, and says every rule that it applied.

    Args:
        scores: What score wrote for each algorithm, or CSV files with the columns case, structure, metric and value:
            runs/a,runs/b.
        output_dir: Where to write.
        names: Names of the algorithms: A,B. By default those of the folders.
        metrics: Metrics to compare by: dice,nsd,hd95_mm,asd_mm,volume_difference_ml,relative_volume_difference.
        metadata: CSV with the column case and properties of the cases.
        subgroups: Columns of it to compare groups by: sex,scanner.
        alpha: Level of the tests.
        num_resamples: Resamples of the bootstrap.
        num_worst: How many of the worst cases of each algorithm are shown, where score has drawn them.
        seed: Seed of the bootstrap.

    Raises:
        DatasetError: If scores cannot be read, or do not belong to the same cases.
        ValueError: If an option is not what it may be.
    """
    paths = _strings(scores)
    algorithms = load_algorithms(paths, None if names is None else _strings(names))
    columns = _strings(subgroups)
    if bool(columns) != (metadata is not None):
        raise ValueError(
            f"metadata and subgroups belong together; found {metadata!r} and {', '.join(columns) or 'none'}."
        )
    groups = {} if metadata is None else load_groups(metadata, columns, algorithms.cases)
    result = compare_algorithms(algorithms, _strings(metrics), groups, alpha, num_resamples, seed)
    overlays = {name: list(saved_overlays(path, num_worst)) for name, path in zip(algorithms.names, paths, strict=True)}
    output = Path(output_dir)
    write_text_atomically(json.dumps(result, indent=4) + "\n", output / "comparison.json")
    write_text_atomically(_long_form(result), output / "comparison.csv")
    write_text_atomically(comparison_page(algorithms, result, overlays), output / "report.html")
    for metric, found in result["metrics"].items():
        logger.info("%s\n%s", METRICS[metric].title, text_table(*comparison_table(found)))
        for conclusion in found["conclusions"]:
            logger.info("%s", conclusion)
        logger.info("")
    for rule in result["rules"]:
        logger.info("- %s", rule)
    for warning in result["warnings"]:
        logger.warning("WARNING %s", warning)
    logger.info("Written to %s: comparison.csv, comparison.json, report.html", output)


def _long_form(result: dict[str, Any]) -> str:
    """Return every figure of a comparison as a row: metric, structure, algorithm, other, statistic, value."""
    rows = io.StringIO(newline="")
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(("metric", "structure", "algorithm", "other", "statistic", "value"))
    names = result["algorithms"]
    for metric, found in result["metrics"].items():
        entries = [("overall", name, figures) for name, figures in found["summary"].items()]
        entries += [(s, name, figures) for s, rows_ in found["structures"].items() for name, figures in rows_.items()]
        for structure, name, figures in entries:
            low, high = figures["confidence_interval"] or (None, None)
            statistics = {"mean": figures["mean"], "ci_low": low, "ci_high": high, "median": figures.get("median")}
            statistics.update({f"rank: {rule}": rank for rule, rank in figures.get("ranks", {}).items()})
            writer.writerows((metric, structure, name, "", k, v) for k, v in statistics.items() if v is not None)
        for structure, matrix in found["significance"].items():
            writer.writerows(
                (metric, structure, names[i], names[j], "adjusted p of being better", p)
                for i, row in enumerate(matrix)
                for j, p in enumerate(row)
                if i != j
            )
    return rows.getvalue()


def _strings(value: str | Sequence[str]) -> list[str]:
    """Take apart what the command line gives: `a,b` as one string or as a sequence."""
    parts = value.split(",") if isinstance(value, str) else [str(part) for part in value]
    return [part.strip() for part in parts if part.strip()]
