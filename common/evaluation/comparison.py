"""Compare algorithms that were scored on the same cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .algorithms import Algorithms
from .protocols import METRICS
from .rules import aggregation_rules, conclusions, rank_warnings, sample_warnings
from .scores import mean_of_scored
from .statistics import CONFIDENCE, RANKINGS, GroupTest, bootstrap_means, compare_groups, significance_map

OVERALL = "overall"


def compare_algorithms(
    algorithms: Algorithms,
    metrics: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None = None,
    alpha: float = 0.05,
    num_resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Return means with confidence intervals, rankings, significance maps and subgroups, and the rules behind them.

    Args:
        algorithms: Scores of at least two algorithms.
        metrics: Metrics to compare by.
        groups: Group of each case by property.
        alpha: Level of the tests.
        num_resamples: Resamples of the bootstrap.
        seed: Seed of the bootstrap.

    Returns:
        Numbers, strings, lists and dictionaries only: `rules`, `warnings` and, for each metric, `summary`,
        `structures`, `significance` and `subgroups`.

    Raises:
        ValueError: If a metric was not scored, or alpha or num_resamples is out of range.
    """
    unknown = [metric for metric in metrics if metric not in algorithms.values]
    if unknown or not metrics:
        raise ValueError(f"metrics must be among {', '.join(algorithms.values)}; found {', '.join(unknown) or 'none'}.")
    if not 0 < alpha < 1 or num_resamples < 100:
        raise ValueError(f"alpha must be in (0, 1) and num_resamples from 100; found {alpha} and {num_resamples}.")
    result: dict[str, Any] = {
        "algorithms": algorithms.names,
        "num_cases": len(algorithms.cases),
        "structures": algorithms.structures,
        "alpha": alpha,
        "rules": aggregation_rules(algorithms, metrics, groups, alpha, num_resamples, seed),
        "warnings": list(sample_warnings(algorithms, metrics, alpha)),
        "metrics": {},
    }
    for metric in metrics:
        values = algorithms.values[metric]
        losses = np.abs(values - METRICS[metric].best)
        result["metrics"][metric] = {
            **_summary(algorithms, values, losses, num_resamples, np.random.default_rng(seed)),
            "significance": {
                OVERALL: _matrix(significance_map(mean_of_scored(losses, axis=2))),
                **{s: _matrix(significance_map(losses[:, :, j])) for j, s in enumerate(algorithms.structures)},
            },
            "subgroups": {
                column: {
                    name: _group_json(compare_groups(means, labels, alpha))
                    for name, means in zip(algorithms.names, mean_of_scored(values, axis=2), strict=True)
                }
                for column, labels in (groups or {}).items()
            },
        }
        found = result["metrics"][metric]
        found["conclusions"] = conclusions(metric, found, OVERALL, alpha)
        result["warnings"] += rank_warnings(metric, algorithms.names, result["metrics"][metric]["summary"])
    return result


def _summary(
    algorithms: Algorithms, values: np.ndarray, losses: np.ndarray, num_resamples: int, generator: np.random.Generator
) -> dict[str, Any]:
    """Return figures of each algorithm over all structures, and in each of them."""
    resampled = bootstrap_means(values, num_resamples, generator)
    structure_means = mean_of_scored(values, axis=1)
    ranks = {ranking.name: ranking.ranks(losses) for ranking in RANKINGS}
    figures = {ranking.name: ranking.order(losses) for ranking in RANKINGS}
    medians = np.array([np.median(m[~np.isnan(m)]) if (~np.isnan(m)).any() else math.nan
                        for m in mean_of_scored(values, axis=2)])  # fmt: skip
    summary = {}
    for i, name in enumerate(algorithms.names):
        summary[name] = {
            "mean": _number(mean_of_scored(structure_means[i], axis=0)),
            "confidence_interval": _interval(mean_of_scored(resampled[:, i], axis=1)),
            "median": _number(medians[i]),
            "ranks": {rule: _number(rank[i]) for rule, rank in ranks.items()},
            "ranked_by": {rule: _number(figure[i]) for rule, figure in figures.items()},
        }
    structures = {
        structure: {
            name: {"mean": _number(structure_means[i, j]), "confidence_interval": _interval(resampled[:, i, j])}
            for i, name in enumerate(algorithms.names)
        }
        for j, structure in enumerate(algorithms.structures)
    }
    return {"summary": summary, "structures": structures}


def _interval(means: np.ndarray) -> list[float] | None:
    means = means[~np.isnan(means)]
    tail = 50 * (1 - CONFIDENCE)
    return np.percentile(means, [tail, 100 - tail]).tolist() if means.size else None


def _group_json(test: GroupTest | None) -> dict[str, Any] | None:
    if test is None:
        return None
    return {
        "groups": {
            group: {"num": size, "mean": test.means[group], "median": test.medians[group]}
            for group, size in test.sizes.items()
        },
        "kruskal_wallis_p": test.p_value,
        "pairs": [{"groups": list(pair), "adjusted_p": p} for pair, p in test.pairs.items()],
    }


def _matrix(values: np.ndarray) -> list[list[float | None]]:
    return [[_number(value) for value in row] for row in values]


def _number(value: Any) -> float | None:
    return None if math.isnan(value) else float(value)
