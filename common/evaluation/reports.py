"""The pages of `score` and `compare`, and their tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from .algorithms import Algorithms
from .charts import box_plots, significance_panels
from .comparison import OVERALL
from .html import Strong, cell, figure, heading, listing, p_text, page, table, warning
from .protocols import METRICS, OUTCOMES, SCORED
from .scores import ScoreTable, mean_of_scored

PLOTTED = ("dice", "nsd", "hd95_mm", "hd95_px")
BOXES = (
    "A box holds the middle half of the cases, the line in it is the median; whiskers reach the last case within 1.5 "
    "box lengths, points are cases beyond."
)


def score_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return headings and rows of the means of each structure, the mean over structures last.

    Outcomes that no structure had in any case have no column.
    """
    metrics, structures = list(summary["mean_over_structures"]), summary["structures"]
    totals = {o: sum(row["outcomes"][o] for row in structures.values()) for o in OUTCOMES}
    outcomes = [o for o in OUTCOMES if totals[o] or o == SCORED]
    rows: list[list[object]] = [
        [name, *(row[metric]["mean"] for metric in metrics), *(row["outcomes"][o] for o in outcomes)]
        for name, row in structures.items()
    ]
    means = (summary["mean_over_structures"][m] for m in metrics)
    rows.append(["mean over structures", *means, *(totals[o] for o in outcomes)])
    return ["structure", *(METRICS[metric].title for metric in metrics), *outcomes], rows


def group_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return headings and rows of the means over structures of each group of cases, the mean over groups last."""
    metrics = list(summary["mean_over_structures"])
    rows: list[list[object]] = [
        [name, group["num_cases"], *(group["mean_over_structures"][m] for m in metrics)]
        for name, group in summary["groups"].items()
    ]
    rows.append(["mean over groups", None, *(summary["mean_over_groups"][m] for m in metrics)])
    return ["group", "cases", *(METRICS[metric].title for metric in metrics)], rows


def score_page(table_of_scores: ScoreTable, summary: Mapping[str, Any], overlays: Sequence[tuple[bytes, str]]) -> str:
    """Return the page of one algorithm's scores.

    Args:
        table_of_scores: Scores.
        summary: Content of `summary.json`.
        overlays: PNG and caption of the worst cases, the worst first.

    Returns:
        HTML.
    """
    return page(f"Scores: {summary['label_set']}", _score_sections(table_of_scores, summary, overlays))


def _score_sections(
    scores: ScoreTable, summary: Mapping[str, Any], overlays: Sequence[tuple[bytes, str]]
) -> Iterator[str]:
    missing = summary["missing_predictions"]
    counts = f"{summary['num_cases']} cases, {len(summary['structures'])} structures"
    yield f"<p>{counts}, distances in {summary['distance_unit']}.</p>"
    if missing:
        yield warning(f"Without a prediction, and scored with the worst value: {', '.join(missing)}.")
    if summary["extra_predictions"]:
        yield warning(f"Not scored, for want of a reference: {', '.join(summary['extra_predictions'])}.")
    metrics = list(scores.values)
    plotted = [metric for metric in PLOTTED if metric in metrics]
    yield heading("Means") + table(*score_table(summary))
    yield "<p>" + "; ".join(f"{name}: {meaning}" for name, meaning in OUTCOMES.items()) + ".</p>"
    if "groups" in summary:
        yield heading("Groups") + table(*group_table(summary))
    yield heading("Spread") + table(*_spread_table(summary, plotted))
    yield heading("Distributions") + f"<p>{BOXES}</p>"
    for metric in plotted:
        groups = {name: {metric: scores.values[metric][:, j]} for j, name in enumerate(scores.structures)}
        yield figure(
            box_plots(groups, METRICS[metric].title), "svg", f"{METRICS[metric].title} of each structure, over cases"
        )
    yield heading("Worst cases") + "<p>By mean Dice; each shows its worst structure, where most of it is wrong.</p>"
    for image, caption in overlays:
        yield figure(image, "png", caption)
    yield heading("What is measured") + listing(_meanings(metrics))
    yield heading("How it was scored") + listing([*summary["rules"], *summary["notes"]])


def _spread_table(summary: Mapping[str, Any], metrics: Sequence[str]) -> tuple[list[str], list[list[object]]]:
    rows: list[list[object]] = [
        [name, row["nsd_tolerance_mm"], *(row[metric][key] for metric in metrics for key in ("std", "median"))]
        for name, row in summary["structures"].items()
    ]
    titles = [f"{METRICS[m].title}, {key}" for m in metrics for key in ("standard deviation", "median")]
    return ["structure", f"NSD tolerance ({summary['distance_unit']})", *titles], rows


def _meanings(metrics: Sequence[str]) -> list[str]:
    return [f"{METRICS[metric].title}: {METRICS[metric].meaning}" for metric in metrics]


def comparison_table(metric_result: Mapping[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return headings and rows of one metric's figures: an algorithm a row, the best mean first."""
    rows: list[list[object]] = []
    rules: list[str] = []
    ordered = sorted(metric_result["summary"].items(), key=lambda item: item[1]["ranks"]["rank of means"] or np.inf)
    for name, found in ordered:
        rules = list(found["ranks"])
        interval = found["confidence_interval"]
        text = "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
        ranks = [
            "-" if rank is None else f"{rank:g} ({cell(found['ranked_by'][r])})" for r, rank in found["ranks"].items()
        ]
        rows.append([name, found["mean"], text, found["median"], *ranks])
    return ["algorithm", "mean", "95% interval", "median", *rules], rows


def comparison_page(
    algorithms: Algorithms, result: Mapping[str, Any], overlays: Mapping[str, Sequence[tuple[bytes, str]]]
) -> str:
    """Return the page of a comparison.

    Args:
        algorithms: Scores.
        result: What `compare_algorithms` returned.
        overlays: By algorithm PNG and caption of its worst cases.

    Returns:
        HTML.
    """
    return page("Comparison of " + ", ".join(algorithms.names), _comparison_sections(algorithms, result, overlays))


def _comparison_sections(
    algorithms: Algorithms, result: Mapping[str, Any], overlays: Mapping[str, Sequence[tuple[bytes, str]]]
) -> Iterator[str]:
    yield f"<p>{result['num_cases']} cases, {len(result['structures'])} structures.</p>"
    yield heading("In short")
    for found in result["metrics"].values():
        yield listing(found["conclusions"])
    yield f"<p>Significant: adjusted p below {result['alpha']:g}, by each case's mean over its structures.</p>"
    yield from (warning(text) for text in result["warnings"])
    for metric, found in result["metrics"].items():
        yield heading(METRICS[metric].title) + f"<p>{METRICS[metric].meaning}</p>"
        yield from _metric_sections(algorithms, metric, found, result["alpha"])
    for name, pictures in overlays.items():
        if pictures:
            yield heading(f"Worst cases of {name}")
            yield from (figure(image, "png", caption) for image, caption in pictures)
    yield heading("Rules that were applied") + listing(result["rules"])


def _metric_sections(algorithms: Algorithms, metric: str, found: Mapping[str, Any], alpha: float) -> Iterator[str]:
    title, names = METRICS[metric].title, algorithms.names
    yield table(*comparison_table(found))
    yield "<p>Ranks; in brackets what was ranked (distance from the perfect score, or a mean of ranks).</p>"
    losses = mean_of_scored(np.abs(algorithms.values[metric] - METRICS[metric].best), axis=1)
    rows = [
        [structure, *_best_bold([found["structures"][structure][name]["mean"] for name in names], losses[:, j])]
        for j, structure in enumerate(algorithms.structures)
    ]
    yield ("<h3>Means of each structure</h3>" + table(["structure", *names], rows) + "<p>Bold: best on average.</p>")
    groups = {
        structure: {name: algorithms.values[metric][i, :, j] for i, name in enumerate(names)}
        for j, structure in enumerate(algorithms.structures)
    }
    yield f"<h3>Distributions</h3><p>{BOXES}</p>"
    yield figure(box_plots(groups, title), "svg", f"{title} of each structure, over cases")
    yield "<h3>Significance map</h3>"
    p_values = [
        [name, *(Strong(p_text(p)) if p is not None and p < alpha else p_text(p) for p in row)]
        for name, row in zip(names, found["significance"][OVERALL], strict=True)
    ]
    yield table(["adjusted p: row better than column", *names], p_values) + f"<p>Bold: below {alpha:g}.</p>"
    maps = significance_panels(found["significance"], names, alpha)
    yield figure(maps, "svg", f"{title}: blue where the row is significantly better than the column")
    yield from _subgroup_sections(found["subgroups"])


def _best_bold(means: Sequence[float | None], losses: np.ndarray) -> list[object]:
    best = losses.min(where=~np.isnan(losses), initial=np.inf)
    return [Strong(m) if loss <= best else m for m, loss in zip(means, losses, strict=True)]


def _subgroup_sections(subgroups: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for column, tests in subgroups.items():
        rows: list[list[object]] = []
        for name, test in tests.items():
            if test is None:
                rows.append([name, "too few cases in all groups but one", None, ""])
                continue
            texts = [f"{group}: {g['mean']:.3f} (n = {g['num']})" for group, g in test["groups"].items()]
            pairs = [f"{' / '.join(pair['groups'])}: {p_text(pair['adjusted_p'])}" for pair in test["pairs"]]
            rows.append([name, "; ".join(texts), p_text(test["kruskal_wallis_p"]), "; ".join(pairs)])
        yield f"<h3>Groups by {escape(column)}</h3>"
        yield table(["algorithm", "means", "Kruskal-Wallis p", "adjusted p of pairs"], rows)


def text_table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Lay out a table for a terminal."""
    texts = [list(headings), *([cell(value) for value in row] for row in rows)]
    widths = [max(len(row[k]) for row in texts) for k in range(len(headings))]
    return "\n".join(
        "  ".join(
            text.ljust(w) if k == 0 else text.rjust(w) for k, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    )
