"""The table of the adaptation benchmark."""

from __future__ import annotations

import pytest

from common.tools.bench_adaptation import ARMS, bench_adaptation, format_results


def make_summary(b, c):
    domains = {"domain_b": {"mean": {"dice": b}}, "domain_c": {"mean": {"dice": c}}}
    mean = {"mean": {"dice": (b + c) / 2}}
    return {"domains": domains, "mean_over_domains": mean, "pooled": mean}


def test_means_spread_and_gain_by_seed():
    arms = {
        "none": [make_summary(0.4, 0.6), make_summary(0.6, 0.6)],
        "tent": [make_summary(0.5, 0.7), make_summary(0.5, 0.5)],
    }
    results = {"seeds": 2, "source": [make_summary(0.9, 0.9)] * 2, "scores": {"continual": arms}}
    lines = format_results(results).splitlines()
    assert lines[0].endswith("over 2 seeds; on the source domain 90.0 ± 0.0.")
    assert "| none | 50.0 ± 14.1 | 60.0 ± 0.0 | 55.0 ± 7.1 | 0.0 ± 0.0 | +0.0 |" in lines
    assert "| tent | 50.0 ± 0.0 | 60.0 ± 14.1 | 55.0 ± 7.1 | 0.0 ± 14.1 | -10.0 |" in lines


def test_results_of_other_settings_are_not_mixed(tmp_path):
    (tmp_path / "settings.json").write_text('{"num_train": 7}')
    with pytest.raises(ValueError, match=r"holds a benchmark with other settings.*Give another --output_dir"):
        bench_adaptation(str(tmp_path), seeds=1)


def test_both_forms_of_vptta_are_compared():
    assert ARMS["vptta"].overrides["published"] is False
    assert ARMS["vptta, published"].overrides["published"] is True
