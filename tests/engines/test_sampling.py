"""The order of cases over epochs and interruptions."""

from __future__ import annotations

from common.engines import EpochSampler


def test_every_case_once_before_any_comes_again():
    drawn = list(EpochSampler(range(5), num_samples=13, seed=0))
    assert len(drawn) == 13
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == list(range(5))
    assert len(set(drawn[10:])) == 3


def test_a_resumed_sampler_goes_on():
    sampler = EpochSampler(range(50), num_samples=50, seed=0)
    first = list(sampler)
    state = sampler.state_dict()
    second = list(sampler)
    assert first != second
    resumed = EpochSampler(range(50), num_samples=50, seed=0)
    resumed.load_state_dict(state)
    assert list(resumed) == second
