"""The rules behind a comparison in words, and where its result hangs on them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .algorithms import Algorithms
from .protocols import METRICS
from .scores import MEAN_OVER_STRUCTURES
from .statistics import CONFIDENCE, MIN_GROUP_SIZE, RANKINGS


def aggregation_rules(
    algorithms: Algorithms,
    metrics: Sequence[str],
    groups: Mapping[str, Sequence[str]] | None,
    alpha: float,
    num_resamples: int,
    seed: int,
) -> list[str]:
    """Say everything that was done to single scores to come to the figures.

    Args:
        algorithms: Scores of the algorithms, with the rules of the scoring.
        metrics: Metrics that are compared.
        groups: Group of each case by property.
        alpha: Level of the tests.
        num_resamples: Resamples of the bootstrap.
        seed: Seed of the bootstrap.

    Returns:
        One rule a string.
    """
    rules = [rule for rule in algorithms.rules if rule != MEAN_OVER_STRUCTURES]
    rules.append(MEAN_OVER_STRUCTURES)
    if any(METRICS[metric].best == 0 for metric in metrics):
        rules.append("Ranks and tests of distances and volume differences use their absolute values: nearer to 0 wins.")
    rules.append(
        f"Confidence intervals: {CONFIDENCE:.0%}, percentiles of {num_resamples} bootstrap resamples of cases (seed "
        f"{seed}), the same cases for all algorithms."
    )
    rules.append("Median: over cases, of each case's mean over its scored structures.")
    rules += [ranking.rule for ranking in RANKINGS]
    rules.append("Equal figures share the mean of their ranks.")
    num_pairs = len(algorithms.names) * (len(algorithms.names) - 1)
    rules.append(
        "Significance map (in the manner of Touchstone): one-sided paired Wilcoxon signed-rank tests in both "
        f"directions, p-values adjusted by Holm over the {num_pairs} tests of a map, level {alpha:g}; each metric and "
        "structure has a map of its own, and nothing is adjusted across maps. The overall map tests each case's mean "
        "over its scored structures."
    )
    if groups:
        rules.append(
            f"Subgroups: each case's mean over its scored structures; groups of fewer than {MIN_GROUP_SIZE} cases are "
            "left out; Kruskal-Wallis over all groups (not adjusted across algorithms and properties), and where it is "
            f"significant at {alpha:g} two-sided Mann-Whitney tests of pairs, adjusted by Benjamini and Hochberg."
        )
    return rules


def sample_warnings(algorithms: Algorithms, metrics: Sequence[str], alpha: float) -> Iterator[str]:
    """Say where there are too few cases for the tests, or scores that not all algorithms have."""
    num_cases, num = len(algorithms.cases), len(algorithms.names)
    if num * (num - 1) / 2**num_cases > alpha:
        yield (
            f"{num_cases} cases are too few for any of the {num * (num - 1)} tests of a map to be significant at "
            f"{alpha:g}: an empty map says nothing here."
        )
    for metric in metrics:
        lacking = np.isnan(algorithms.values[metric])
        uneven = int((lacking.any(axis=0) & ~lacking.all(axis=0)).sum())
        if uneven:
            yield (
                f"{metric}: {uneven} of {lacking[0].size} scores are there for some algorithms only (a structure that "
                "is not in the reference); means are over what each algorithm was scored on, tests over what both were."
            )


def conclusions(metric: str, found: Mapping[str, Any], overall: str, alpha: float) -> list[str]:
    """Say in a sentence for each algorithm which others it is significantly better than, the best mean first.

    Args:
        metric: Metric.
        found: Figures of the comparison by this metric.
        overall: Name of the map over all structures.
        alpha: Level.
    """
    names = list(found["summary"])
    sentences = []
    for name, figures in sorted(
        found["summary"].items(), key=lambda item: item[1]["ranks"][RANKINGS[0].name] or np.inf
    ):
        row = zip(names, found["significance"][overall][names.index(name)], strict=True)
        beaten = [other for other, p in row if p is not None and p < alpha]
        what = f"significantly better than {', '.join(beaten)}" if beaten else "not significantly better than any other"
        mean = "none" if figures["mean"] is None else f"{figures['mean']:.3f}"
        sentences.append(f"{name}: mean {METRICS[metric].title} {mean}; {what}.")
    return sentences


def rank_warnings(metric: str, names: Sequence[str], summary: Mapping[str, Any]) -> Iterator[str]:
    """Name the pairs of algorithms that not all rules put in the same order."""
    for first, second in itertools.combinations(names, 2):
        relations: dict[str, list[str]] = {}
        for rule, rank in summary[first]["ranks"].items():
            other = summary[second]["ranks"][rule]
            if rank is None or other is None:
                continue
            relation = f"{first} = {second}" if rank == other else " before ".join(
                (first, second) if rank < other else (second, first)
            )  # fmt: skip
            relations.setdefault(relation, []).append(rule)
        if len(relations) > 1:
            orders = "; ".join(f"{relation} by {', '.join(rules)}" for relation, rules in relations.items())
            yield f"{metric}: the ranking depends on the rule. {orders}."
