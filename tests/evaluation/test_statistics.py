"""Statistics: cases solved by hand, planted results, and how often nothing is taken for something."""

import numpy as np
import pytest
from scipy.stats import wilcoxon

from common.evaluation.statistics import RANKINGS, bootstrap_means, compare_groups, holm, significance_map


def planted(means, num_cases=40, num_structures=3, seed=0):
    """Losses of algorithms with known means on cases of different difficulty. Shape (algorithms, cases, structures)."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 0.05, (1, num_cases, num_structures))
    return np.array(means)[:, None, None] + difficulty + rng.normal(0, 0.02, (len(means), num_cases, num_structures))


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.5])) == pytest.approx([1, 1])


def test_rankings_by_hand():
    # two algorithms, three cases, two structures: A is better twice in each structure and much worse once
    first = [[0.1, 0.1], [0.1, 0.1], [0.9, 0.9]]
    second = [[0.2, 0.2], [0.2, 0.2], [0.2, 0.2]]
    losses = np.array([first, second])
    ranks = {ranking.name: ranking.ranks(losses).tolist() for ranking in RANKINGS}
    assert ranks == {
        "rank of means": [2, 1],
        "mean of ranks": [1, 2],
        "mean of structure ranks": [2, 1],
        "rank of medians": [1, 2],
    }
    figures = {ranking.name: ranking.order(losses).tolist() for ranking in RANKINGS}
    assert figures["rank of means"] == pytest.approx([1.1 / 3, 0.2])
    assert figures["mean of ranks"] == pytest.approx([4 / 3, 5 / 3])


def test_a_known_order_is_found_by_every_rule():
    losses = planted([0.30, 0.10, 0.20, 0.40])
    for ranking in RANKINGS:
        assert ranking.ranks(losses).tolist() == [3, 1, 2, 4]


def test_known_ties_share_their_rank():
    losses = planted([0.1, 0.2, 0.3])
    losses = np.stack([losses[1], losses[0], losses[1], losses[2]])
    for ranking in RANKINGS:
        assert ranking.ranks(losses).tolist() == [2.5, 1, 2.5, 4]
    # equal up to the order in which floating-point numbers are added
    losses[2] = losses[2, ::-1]
    assert RANKINGS[0].ranks(losses).tolist() == [2.5, 1, 2.5, 4]


def test_missing_scores_are_left_out():
    losses = planted([0.1, 0.3])
    losses[:, :5, 0] = np.nan
    losses[1, 6, 1] = np.nan
    for ranking in RANKINGS:
        assert ranking.ranks(losses).tolist() == [1, 2]
    assert RANKINGS[0].order(losses)[0] == pytest.approx(np.mean([losses[0, 5:, 0].mean(), *losses[0, :, 1:].mean(0)]))


def test_the_significance_map_finds_the_planted_order():
    p_values = significance_map(planted([0.1, 0.3, 0.3]).mean(axis=2))
    assert np.isnan(np.diag(p_values)).all()
    assert p_values[0, 1] < 0.001
    assert p_values[0, 2] < 0.001
    assert p_values[1, 0] == p_values[2, 0] == 1
    assert min(p_values[1, 2], p_values[2, 1]) > 0.05


def test_the_map_is_scipys_test_with_holm():
    losses = planted([0.10, 0.11]).mean(axis=2)
    raw = [wilcoxon(losses[a], losses[b], alternative="less").pvalue for a, b in ((0, 1), (1, 0))]
    p_values = significance_map(losses)
    assert p_values[0, 1] == pytest.approx(min(1, 2 * raw[0]))
    assert p_values[1, 0] == pytest.approx(max(raw[1], p_values[0, 1]))


def test_few_cases_with_ties_are_tested_exactly():
    """As SciPy does by a permutation of its own, which takes a second for twelve cases."""
    first = np.array([1.0, 2.0, 3.0, 2.0, 5.0, 1.0])
    second = np.array([2.0, 3.0, 2.0, 4.0, 8.0, 1.0])
    raw = [wilcoxon(*pair, alternative="less").pvalue for pair in ((first, second), (second, first))]
    assert raw[0] == pytest.approx(4 / 32)  # of the signs of ranks 2 2 2 4 5, four ways sum up to 2 or less
    p_values = significance_map(np.stack([first, second]))
    assert p_values[0, 1] == pytest.approx(2 * raw[0])
    assert p_values[1, 0] == pytest.approx(max(raw[1], 2 * raw[0]))


def test_equal_algorithms_are_not_tested_into_a_difference():
    losses = np.tile(np.linspace(0, 1, 20), (3, 1))
    p_values = significance_map(losses)
    assert np.array_equal(p_values[~np.eye(3, dtype=bool)], np.ones(6))


def test_the_bootstrap_has_the_spread_of_the_mean():
    values = planted([0.1, 0.3], num_cases=200, num_structures=1)
    means = bootstrap_means(values, 2000, np.random.default_rng(0))
    assert means.shape == (2000, 2, 1)
    assert means.mean(axis=0)[:, 0] == pytest.approx(values.mean(axis=(1, 2)), abs=0.002)
    assert means.std(axis=0)[:, 0] == pytest.approx(values[:, :, 0].std(axis=1) / np.sqrt(200), rel=0.1)
    # the same cases for both: what makes a case difficult cancels out
    assert (means[:, 0] - means[:, 1]).std() < 0.7 * means[:, 0].std()
    np.testing.assert_array_equal(means, bootstrap_means(values, 2000, np.random.default_rng(0)))


def test_the_bootstrap_leaves_out_missing_scores():
    values = np.full((1, 4, 2), 0.5)
    values[0, :3, 1] = np.nan
    means = bootstrap_means(values, 500, np.random.default_rng(0))
    assert np.nanmax(np.abs(means - 0.5)) < 1e-12
    assert np.isnan(means[:, 0, 1]).mean() == pytest.approx(0.75**4, abs=0.06)


def test_groups_that_differ():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0.9, 0.02, 20), rng.normal(0.9, 0.02, 20), rng.normal(0.7, 0.02, 20)])
    groups = ["a"] * 20 + ["b"] * 20 + ["c"] * 20
    test = compare_groups(np.append(values, [0.1, np.nan, 0.2]), [*groups, "rare", "a", ""], 0.05)
    assert test.sizes == {"a": 20, "b": 20, "c": 20}
    assert test.p_value < 1e-6
    assert test.pairs["a", "c"] < 1e-4
    assert test.pairs["b", "c"] < 1e-4
    assert test.pairs["a", "b"] > 0.05
    assert test.means["c"] == pytest.approx(0.7, abs=0.02)


def test_groups_that_do_not_differ_have_no_pairs():
    values = np.tile([0.8, 0.85, 0.9, 0.95, 1.0], 2)
    test = compare_groups(values, ["a"] * 5 + ["b"] * 5, 0.05)
    assert test.p_value == 1
    assert test.pairs == {}
    assert compare_groups(np.ones(10), ["a"] * 5 + ["b"] * 5, 0.05).p_value == 1
    assert compare_groups(values, ["a"] * 8 + ["b"] * 2, 0.05) is None


@pytest.mark.slow
@pytest.mark.parametrize("num_cases", [12, 40])
def test_type_one_error_of_the_map(num_cases):
    """Of maps of four algorithms that do not differ, at most 5 % show any difference."""
    rng = np.random.default_rng(0)
    num_maps = 800
    alarms = 0
    for _ in range(num_maps):
        # beta-distributed as Dice is, on cases of different difficulty, with ties from rounding
        skill = rng.beta(8, 2, (1, num_cases))
        losses = np.round(1 - np.clip(skill + rng.normal(0, 0.05, (4, num_cases)), 0, 1), 3)
        alarms += bool((significance_map(losses)[~np.eye(4, dtype=bool)] < 0.05).any())
    # three standard errors of a share of 5 %
    assert alarms / num_maps <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / num_maps)
