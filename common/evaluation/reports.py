"""The pages of `score` and `compare`, and their tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .algorithms import Algorithms
from .charts import box_plots, significance_panels
from .comparison import OVERALL
from .html import cell, figure, listing, page, table, warning
from .protocols import METRICS, OUTCOMES
from .scores import ScoreTable

PLOTTED = ("dice", "nsd", "hd95_mm")


def score_table(summary: Mapping[str, Any]) -> tuple[list[str], list[list[object]]]:
    """Return headings and rows of the means of each structure, the mean over structures last."""
    headings = ["structure", *(metric.title for metric in METRICS.values()), *OUTCOMES]
    rows: list[list[object]] = [
        [name, *(row[metric]["mean"] for metric in METRICS), *(row["outcomes"][o] for o in OUTCOMES)]
        for name, row in summary["structures"].items()
    ]
    totals = [sum(row["outcomes"][o] for row in summary["structures"].values()) for o in OUTCOMES]
    rows.append(["mean over structures", *(summary["mean_over_structures"][m] for m in METRICS), *totals])
    return headings, rows


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
        yield warning(f"{len(missing)} cases lack predictions, which score the worst value: {', '.join(missing)}.")
    if summary["extra_predictions"]:
        yield warning(f"Not scored, for want of a reference: {', '.join(summary['extra_predictions'])}.")
    yield "<h2>Means</h2>" + table(*score_table(summary))
    spread = [
        [name, row["nsd_tolerance_mm"], *(row[metric][key] for metric in PLOTTED for key in ("std", "median"))]
        for name, row in summary["structures"].items()
    ]
    titles = [f"{METRICS[metric].title} {key}" for metric in PLOTTED for key in ("deviation", "median")]
    yield "<h2>Spread</h2>" + table(["structure", "NSD tolerance (mm)", *titles], spread)
    yield "<h2>Distributions</h2>"
    for metric in PLOTTED:
        groups = {name: {metric: scores.values[metric][:, j]} for j, name in enumerate(scores.structures)}
        yield figure(
            box_plots(groups, METRICS[metric].title), "svg", f"{METRICS[metric].title} of each structure, over cases"
        )
    yield "<h2>Worst cases</h2><p>By mean Dice; each shows its worst structure.</p>"
    for image, caption in overlays:
        yield figure(image, "png", caption)
    yield "<h2>How it was scored</h2>" + listing([*summary["rules"], *summary["notes"]])


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
    yield from (warning(text) for text in result["warnings"])
    for metric, found in result["metrics"].items():
        title = METRICS[metric].title
        yield f"<h2>{title}</h2>" + table(*comparison_table(found))
        yield "<p>Ranks; in brackets what was ranked (distance from the perfect score, or a mean of ranks).</p>"
        rows = [
            [structure, *(found["structures"][structure][name]["mean"] for name in algorithms.names)]
            for structure in algorithms.structures
        ]
        yield "<h3>Means of each structure</h3>" + table(["structure", *algorithms.names], rows)
        groups = {
            structure: {name: algorithms.values[metric][i, :, j] for i, name in enumerate(algorithms.names)}
            for j, structure in enumerate(algorithms.structures)
        }
        yield figure(box_plots(groups, title), "svg", f"{title} of each structure, over cases")
        yield "<h3>Significance map</h3>"
        overall = [[name, *row] for name, row in zip(algorithms.names, found["significance"][OVERALL], strict=True)]
        yield table(["adjusted p: row better than column", *algorithms.names], overall)
        maps = significance_panels(found["significance"], algorithms.names, result["alpha"])
        yield figure(maps, "svg", f"{title}: blue where the row is significantly better than the column")
        yield from _subgroup_sections(found["subgroups"])
    for name, pictures in overlays.items():
        if pictures:
            yield f"<h2>Worst cases of {name}</h2>"
            yield from (figure(image, "png", caption) for image, caption in pictures)
    yield "<h2>Rules that were applied</h2>" + listing(result["rules"])


def _subgroup_sections(subgroups: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for column, tests in subgroups.items():
        rows: list[list[object]] = []
        for name, test in tests.items():
            if test is None:
                rows.append([name, "too few cases in all groups but one", None, ""])
                continue
            texts = [f"{group}: {g['mean']:.3f} (n = {g['num']})" for group, g in test["groups"].items()]
            pairs = [f"{' / '.join(pair['groups'])}: {pair['adjusted_p']:.3f}" for pair in test["pairs"]]
            rows.append([name, "; ".join(texts), test["kruskal_wallis_p"], "; ".join(pairs)])
        yield f"<h3>Groups by {column}</h3>"
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
