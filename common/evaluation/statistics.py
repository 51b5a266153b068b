"""Means with their uncertainty, rankings, and tests between algorithms and between groups of cases.

Textbook statistics, in the manner of Touchstone (arXiv:2411.03670, appendix D) and SegRap2023 (arXiv:2312.09576,
evaluation); on why several rankings are shown: Maier-Hein et al. 2018, Nature Communications 9, 5217.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import false_discovery_control, kruskal, mannwhitneyu, permutation_test, rankdata, wilcoxon

from .scores import mean_of_scored

Losses = np.ndarray  # shape (algorithms, cases, structures): distance from the best value, NaN where not scored

# Two means that differ by less are equal: sums of floating-point numbers in another order.
EQUAL_DIGITS = 9
EQUAL = 10.0**-EQUAL_DIGITS
CONFIDENCE = 0.95
# Up to so many differences all ways to give them signs are looked at, as SciPy does.
MAX_EXHAUSTIVE = 13
# Groups with fewer cases are not compared.
MIN_GROUP_SIZE = 5


@dataclass(frozen=True)
class Ranking:
    """One way to order algorithms.

    Attributes:
        name: Name.
        rule: The rule in a sentence, for reports.
        order: Function from losses to the figure by which algorithms are ordered, lowest first. Shape (algorithms,).
    """

    name: str
    rule: str
    order: Callable[[Losses], np.ndarray]

    def ranks(self, losses: Losses) -> np.ndarray:
        """Return the rank of each algorithm, 1 for the best; equal ones share the mean of their ranks."""
        return _ranks(self.order(losses))


def _ranks(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """Rank in ascending order; rounding makes one of what floating-point sums drive apart."""
    ranks: np.ndarray = rankdata(np.round(values, EQUAL_DIGITS), axis=axis, nan_policy="omit")
    return ranks


def _mean_of_structure_means(losses: Losses) -> np.ndarray:
    return mean_of_scored(mean_of_scored(losses, axis=1), axis=1)


def _median_of_case_means(losses: Losses) -> np.ndarray:
    medians: np.ndarray = np.nanmedian(mean_of_scored(losses, axis=2), axis=1)
    return medians


def _mean_of_case_ranks(losses: Losses) -> np.ndarray:
    ranks = _ranks(losses).reshape(len(losses), -1)
    return mean_of_scored(ranks, axis=1)


def _mean_of_structure_ranks(losses: Losses) -> np.ndarray:
    return mean_of_scored(_ranks(mean_of_scored(losses, axis=1)), axis=1)


RANKINGS = (
    Ranking(
        "rank of means",
        "Rank of means: each algorithm's mean over structures (first the mean of each structure over its cases, then "
        "the mean of these) is ranked.",
        _mean_of_structure_means,
    ),
    Ranking(
        "mean of ranks",
        "Mean of ranks: the algorithms are ranked in each structure of each case, then these ranks are averaged.",
        _mean_of_case_ranks,
    ),
    Ranking(
        "mean of structure ranks",
        "Mean of structure ranks (in the manner of SegRap2023): the algorithms are ranked by their mean in each "
        "structure, then these ranks are averaged.",
        _mean_of_structure_ranks,
    ),
    Ranking(
        "rank of medians",
        "Rank of medians: the median over cases of each case's mean over its structures is ranked.",
        _median_of_case_means,
    ),
)


def bootstrap_means(values: np.ndarray, num_resamples: int, generator: np.random.Generator) -> np.ndarray:
    """Resample cases with replacement, and return each algorithm's mean in each structure in each resample.

    All algorithms get the same cases in a resample, so that differences between them keep their pairing.

    Args:
        values: Shape (algorithms, cases, structures); NaN where not scored.
        num_resamples: Number of resamples.
        generator: Source of randomness.

    Returns:
        Shape (resamples, algorithms, structures); NaN where a resample has no scored case.
    """
    num_cases = values.shape[1]
    counts = generator.multinomial(num_cases, np.full(num_cases, 1 / num_cases), size=num_resamples).astype(float)
    scored = ~np.isnan(values)
    totals = np.einsum("rc,acs->ras", counts, np.where(scored, values, 0.0), optimize=True)
    sizes = np.einsum("rc,acs->ras", counts, scored.astype(float), optimize=True)
    return np.divide(totals, sizes, out=np.full(sizes.shape, math.nan), where=sizes > 0)


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values so that the chance of any false rejection is at most the level (Holm 1979).

    Args:
        p_values: Shape (n,).

    Returns:
        Adjusted values, same order, at most 1.
    """
    order = np.argsort(p_values)
    factors = np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def significance_map(losses: np.ndarray) -> np.ndarray:
    """Test for each ordered pair of algorithms whether the first is better: one-sided paired Wilcoxon, Holm.

    Args:
        losses: One value a case, lower is better. Shape (algorithms, cases); a case that one of two algorithms lacks
            does not enter their test.

    Returns:
        Adjusted p-value that row is better than column, over all ordered pairs of this map. Shape (algorithms,
        algorithms), NaN on the diagonal; 1 where two algorithms do not differ in any case.
    """
    num = len(losses)
    pairs = list(itertools.permutations(range(num), 2))
    p_values = np.array([_better_p(losses[first], losses[second]) for first, second in pairs])
    adjusted = np.full((num, num), math.nan)
    for (first, second), value in zip(pairs, holm(p_values), strict=True):
        adjusted[first, second] = value
    return adjusted


def _better_p(first: np.ndarray, second: np.ndarray) -> float:
    """Test whether losses of the first are smaller; exact for few cases."""
    difference = np.round(first - second, EQUAL_DIGITS)
    difference = difference[np.abs(difference) > 0]  # NaN, too, is not
    if not difference.size:
        return 1.0
    ranks = rankdata(np.abs(difference))
    if difference.size > MAX_EXHAUSTIVE or len(np.unique(ranks)) == ranks.size:
        return float(wilcoxon(difference, alternative="less").pvalue)

    # What `wilcoxon` does by itself where sizes are tied, a thousand times faster: the ranks stay, signs are flipped.
    def rank_sum(flipped: np.ndarray, axis: int) -> np.ndarray:
        total: np.ndarray = np.where(flipped > 0, ranks, 0.0).sum(axis=axis)
        return total

    test = permutation_test(
        (difference,), rank_sum, permutation_type="samples", vectorized=True, n_resamples=np.inf, alternative="less"
    )
    return float(test.pvalue)


@dataclass(frozen=True)
class GroupTest:
    """Do groups of cases differ in one algorithm's scores?

    Attributes:
        sizes: Cases by group.
        means: Mean by group.
        medians: Median by group.
        p_value: Of the Kruskal-Wallis test over all groups.
        pairs: p-value of each pair of groups (two-sided Mann-Whitney, adjusted by Benjamini and Hochberg); empty where
            the test over all groups is not significant.
    """

    sizes: dict[str, int]
    means: dict[str, float]
    medians: dict[str, float]
    p_value: float
    pairs: dict[tuple[str, str], float]


def compare_groups(values: np.ndarray, groups: Sequence[str], alpha: float) -> GroupTest | None:
    """Compare the groups of cases.

    Args:
        values: One value a case; NaN where not scored. Shape (cases,).
        groups: Group of each case; an empty string is no group, and one under `MIN_GROUP_SIZE` is left out.
        alpha: Level of the test over all groups.

    Returns:
        The test, or None where fewer than two groups are large enough.
    """
    samples: dict[str, np.ndarray] = {}
    for group in sorted(set(groups) - {""}):
        sample = values[np.array([g == group for g in groups]) & ~np.isnan(values)]
        if len(sample) >= MIN_GROUP_SIZE:
            samples[group] = sample
    if len(samples) < 2:
        return None
    together = np.concatenate(list(samples.values()))
    p_value = float(kruskal(*samples.values()).pvalue) if np.ptp(together) > EQUAL else 1.0
    pairs: dict[tuple[str, str], float] = {}
    if p_value < alpha:
        names = list(itertools.combinations(samples, 2))
        raw = [float(mannwhitneyu(samples[a], samples[b], alternative="two-sided").pvalue) for a, b in names]
        pairs = dict(zip(names, false_discovery_control(raw, method="bh").tolist(), strict=True))
    return GroupTest(
        {group: len(sample) for group, sample in samples.items()},
        {group: float(sample.mean()) for group, sample in samples.items()},
        {group: float(np.median(sample)) for group, sample in samples.items()},
        p_value,
        pairs,
    )
