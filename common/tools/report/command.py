"""The command: a page for the runs in a folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from ...evaluation.html import heading, page, table
from ...files import write_text_atomically
from .records import Run, find_runs
from .sections import duration, run_section, started

# `report.html` is the page of the scores, which an evaluation writes into the same folder.
PAGE = "run_report.html"

_logger = logging.getLogger(__name__)


def report(run_dir: str, output_file: str | None = None, num_cases: int = 3, recompute: bool = True) -> None:
    """Write one HTML file about the runs in a folder: settings, curves, scores, cases, pictures of the method.

    The page needs no network and no other file. Any run of any bundle will do: training, inference, evaluation.

    Args:
        run_dir: `output_dir` of a run, or a folder of several.
        output_file: The page; by default `run_report.html` in `run_dir`.
        num_cases: How many of the worst and of the best cases are drawn.
        recompute: Whether to draw what belongs to the method (fused volumes, prompts, localization, scribbles). For
            that, parts of the run are run again from its recorded configuration: leave it off for runs of others that
            you do not trust.

    Raises:
        FileNotFoundError: If `run_dir` is no folder.
        ValueError: If `num_cases` is negative, or `run_dir` holds no run.
    """
    if num_cases < 0:
        raise ValueError(f"num_cases must be at least 0, got {num_cases}.")
    start_s = time.perf_counter()
    runs = find_runs(run_dir)
    path = Path(output_file) if output_file else Path(run_dir) / PAGE
    text = report_page(runs, num_cases, recompute)
    write_text_atomically(text, path)
    for run in runs:
        for problem in dict.fromkeys(run.problems):
            _logger.warning("WARNING %s: %s", run.name, problem)
    seconds = time.perf_counter() - start_s
    _logger.info("%d runs, %.1f MB, %.0f s. Open %s", len(runs), len(text) / 1e6, seconds, path)


def report_page(runs: Sequence[Run], num_cases: int = 3, recompute: bool = True) -> str:
    """Return the page of some runs; arguments as those of `report`.

    Args:
        runs: What `find_runs` found.
        num_cases: How many of the worst and of the best cases are drawn.
        recompute: Whether to draw what belongs to the method.
    """
    sections = [heading(run.name) + run_section(run, num_cases, recompute) for run in runs]
    title = f"Report: {runs[0].name}" if len(runs) == 1 else f"Report of {len(runs)} runs"
    return page(title, [table(*overview_table(runs)), *sections] if len(runs) > 1 else sections)


def overview_table(runs: Sequence[Run]) -> tuple[list[str], list[list[object]]]:
    """Return headings, and a row for each run: when, how long, how it ended, and its mean Dice.

    Args:
        runs: The runs.
    """
    rows: list[list[object]] = []
    for run in runs:
        record = run.record
        bundle = record.get("bundle", {}).get("name")
        ended = duration(record.get("seconds")), record.get("outcome")
        rows.append([run.name, bundle, started(run), *ended, mean_dice(run)])
    return ["run", "bundle", "started", "took", "outcome", "mean Dice"], rows


def mean_dice(run: Run) -> float | None:
    """Return the mean Dice over structures of a run, None where it was not scored.

    Args:
        run: The run.
    """
    means = run.content("summary.json").get("mean_over_structures")
    return means.get("dice") if isinstance(means, dict) else None
