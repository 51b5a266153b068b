"""Sections of the page of a run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from ...evaluation.html import charts, details, facts, table, warning
from ...evaluation.protocols import METRICS
from ...evaluation.reports import group_table, score_table
from ...evaluation.scores import ScoreTable
from ...handlers.domain_metrics import domain_table
from .cases import choose_cases, draw_cases, read_scores
from .curves import Curve, draw_curve, read_curves
from .methods import method_sections
from .prompt_pictures import draw_stream
from .records import Run, numbers

# Metrics of the table of cases, where a run has them.
SHOWN = ("dice", "nsd", "hd95_mm", "hd95_px")
# Settings that are data, not choices.
NOT_SHOWN = ("datalist",)
BYTES_PER_GIB = 1024**3
MINUTE_S, HOUR_S = 60, 3600


def run_section(run: Run, num_cases: int, recompute: bool) -> str:
    """Return everything about one run but its heading.

    Args:
        run: The run; problems that come up are added to it.
        num_cases: How many of the worst and of the best cases are drawn.
        recompute: Whether pictures of the method are made, for which parts of the run are run again.

    Returns:
        HTML.
    """
    parts = list(_parts(run, num_cases, recompute))
    problems = "".join(warning(problem) for problem in dict.fromkeys(run.problems))
    body = "".join(f"<h3>{escape(title)}</h3>{content}" for title, content in parts if content)
    return what_ran(run) + problems + body


def what_ran(run: Run) -> str:
    """Return where, when, with what and for how long a run ran, and with which settings.

    Args:
        run: The run.

    Returns:
        HTML.
    """
    record = run.record
    if not record:
        return facts({"folder": str(run.folder)})
    device, versions = record.get("device", {}), record.get("versions", {})
    memory = record.get("peak_memory_bytes", {})
    shown = {
        "bundle": " ".join(record.get("bundle", {}).values()) or "-",
        "folder": str(run.folder),
        "started": started(run),
        "outcome": record.get("outcome"),
        "took": duration(record.get("seconds")),
        "epochs, iterations": f"{record.get('epochs', '-')}, {record.get('iterations', '-')}",
        "peak memory": ", ".join(f"{name} {size / BYTES_PER_GIB:.2f} GiB" for name, size in memory.items()) or "-",
        "device": ", ".join(f"{key} {value}" for key, value in device.items()),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    settings = [[key, json.dumps(value)] for key, value in run.settings.items() if key not in NOT_SHOWN]
    config = json.dumps(record.get("config", {}), indent=2, ensure_ascii=False)
    return (
        facts(shown)
        + details("Command", f"<pre>{escape(shlex.join(record.get('command', ())))}</pre>")
        + details(f"Settings that were used ({len(settings)})", table(["setting", "value"], settings))
        + details("Configuration after all overrides", f"<pre>{escape(config)}</pre>")
    )


def started(run: Run) -> str:
    """Return when a run was started, as a person writes it.

    Args:
        run: The run.
    """
    return str(run.record.get("started", "-")).replace("T", " ").replace("+00:00", " UTC")


def duration(seconds: float | None) -> str:
    """Return a time as a person says it.

    Args:
        seconds: The time; None for one that is not known.
    """
    if seconds is None:
        return "-"
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), MINUTE_S)
    return f"{minutes} min {rest} s" if seconds < HOUR_S else f"{minutes // 60} h {minutes % 60} min"


def _parts(run: Run, num_cases: int, recompute: bool) -> Iterator[tuple[str, str]]:
    curves, problems = read_curves(run.folder)
    run.problems += problems
    drawn = [(draw_curve(curve, _unit(run, curve)), tag.replace("_", " ")) for tag, curve in curves.items()]
    yield "Training curves", charts(drawn) if drawn else ""
    scores = read_scores(run)
    yield "Scores", score_tables(run)
    yield "Metrics of the papers", domain_means(run) + _case_metrics(run)
    yield "Boxes", _box_tables(run)
    yield "Cases", _case_table(run, scores)
    yield "Adaptation over the stream", "".join(draw_stream(run))
    chosen = choose_cases(run, scores, num_cases)
    yield "Worst and best cases" if scores is not None else "First cases", "".join(draw_cases(run, chosen))
    if recompute:
        yield from method_sections(run)


def _unit(run: Run, curve: Curve) -> str:
    """What a step of a curve is: nothing is logged at every epoch that has more steps than there are epochs."""
    return "iteration" if curve[-1][0] > run.record.get("epochs", 0) else "epoch"


def score_tables(run: Run) -> str:
    """Return the means of each structure, and of each group of cases, empty where nothing was scored.

    Args:
        run: The run.
    """
    summary = run.content("summary.json")
    if not {"mean_over_structures", "structures"} <= set(summary):
        return ""
    groups = table(*group_table(summary)) if "groups" in summary else ""
    return table(*score_table(summary)) + groups


def domain_means(run: Run) -> str:
    """Return the metrics of the papers for photographs of several domains, empty where there are none.

    Args:
        run: The run.
    """
    summary = run.content("domains.json")
    return table(*domain_table(summary)) if {"domains", "pooled", "mean_over_domains"} <= set(summary) else ""


def _case_metrics(run: Run) -> str:
    rows = numbers(run.rows("metrics.csv"))
    return _sortable(rows, "Every case") if rows else ""


def _box_tables(run: Run) -> str:
    summary, rows = run.content("boxes.json"), numbers(run.rows("boxes.csv"))
    means = ""
    if isinstance(summary.get("organs"), dict):
        organs: Mapping[str, Mapping[str, Any]] = summary["organs"]
        fields = list(next(iter(organs.values()), {}))
        means = table(["organ", *_titles(fields)], [[name, *(row[f] for f in fields)] for name, row in organs.items()])
    return means + (_sortable(rows, "Every case and organ") if rows else "")


def _case_table(run: Run, scores: ScoreTable | None) -> str:
    """A row for each case: its seconds and outcome, means of the metrics, Dice of each structure."""
    outcomes = {row["case"]: row for row in numbers(run.rows("cases.csv"))}
    names = list(outcomes) + [name for name in (scores.cases if scores else ()) if name not in outcomes]
    if not names:
        return ""
    columns: dict[str, Sequence[object]] = {}
    if scores is not None:
        shown = [metric for metric in SHOWN if metric in scores.values]
        columns = {METRICS[metric].title: _of_cases(scores, names, scores.case_means(metric)) for metric in shown}
        for j, structure in enumerate(scores.structures if "dice" in scores.values else ()):
            columns[f"Dice of {structure}"] = _of_cases(scores, names, scores.values["dice"][:, j])
    if outcomes:
        for key in ("seconds", "outcome", "reason"):
            values = [outcomes.get(name, {}).get(key) for name in names]
            if any(value is not None for value in values):
                columns[key] = values
    rows = [[name, *values] for name, *values in zip(names, *columns.values(), strict=True)]
    return table(["case", *columns], rows, sortable=True, caption=f"{len(names)} cases; a heading sorts by its column")


def _of_cases(scores: ScoreTable, names: Sequence[object], values: np.ndarray) -> list[float | None]:
    by_name = dict(zip(scores.cases, values, strict=True))
    return [None if by_name.get(str(name)) is None else float(by_name[str(name)]) for name in names]


def _sortable(rows: list[dict[str, Any]], caption: str) -> str:
    title = f"{caption}; a heading sorts by its column"
    return table(_titles(rows[0]), [list(row.values()) for row in rows], sortable=True, caption=title)


def _titles(names: Sequence[str] | Mapping[str, Any]) -> list[str]:
    return [name.replace("_", " ") for name in names]
