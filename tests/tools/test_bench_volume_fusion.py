"""The table of the pretraining benchmark."""

from __future__ import annotations

import pytest

from common.tools.bench_volume_fusion import bench_volume_fusion, format_results


def make_scores(*dice):
    return [{"mean_over_structures": {"dice": value, "hd95_mm": 10.0, "nsd": 0.5}} for value in dice]


def test_means_spread_and_gain_by_seed():
    table = format_results({"scratch": make_scores(0.4, 0.5, 0.6), "pretrained": make_scores(0.5, 0.7, 0.6)})
    rows = table.splitlines()
    assert rows[2] == "| scratch | 0.500 | 0.100 | 0.400, 0.500, 0.600 | 10.0 | 0.500 |"
    assert rows[4].startswith("| gain | 0.100 | 0.100 | 0.100, 0.200, 0.000")


def test_results_of_other_settings_are_not_mixed(tmp_path):
    (tmp_path / "settings.json").write_text('{"num_labeled": 7}')
    with pytest.raises(ValueError, match=r"holds a benchmark with other settings.*Give another --output_dir"):
        bench_volume_fusion(str(tmp_path), seeds=1)
