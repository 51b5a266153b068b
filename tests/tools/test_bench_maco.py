"""The benchmark of learning from scribbles: its table, its refusals, and that its methods exist."""

from __future__ import annotations

import json

import pytest

from common.tools.bench_maco import ARMS, bench_maco, format_results
from common.tools.runs import find_bundles


def make_scores(*dice):
    return [
        {
            "mean_over_structures": {"dice": value, "hd95_mm": 10.0, "nsd": 0.5},
            "structures": {
                "left_ventricle": {"dice": {"mean": value + 0.1}},
                "myocardium": {"dice": {"mean": value - 0.1}},
            },
        }
        for value in dice
    ]


def test_table():
    table = format_results({"full_supervision": make_scores(0.7, 0.8, 0.9), "maco": make_scores(0.7, 0.6, 0.5)})
    head, line, full, maco = table.splitlines()
    assert head.count("|") == line.count("|") == full.count("|")
    assert full == "| full supervision | 0.800 | 0.100 | 0.700, 0.800, 0.900 | 0.900 | 0.700 | 10.0 | 100.0 % |"
    assert maco == "| maco | 0.600 | 0.100 | 0.700, 0.600, 0.500 | 0.700 | 0.500 | 10.0 | 75.0 % |"
    assert format_results({"maco": make_scores(0.5)}).splitlines()[2].endswith("| 10.0 |  |")


def test_methods_are_those_of_the_bundle():
    (bundle,) = (path for path in find_bundles() if path.name == "maco")
    train = json.loads((bundle / "configs" / "train.json").read_text())
    assert {options["method"].removeprefix("@methods#") for options in ARMS.values()} == set(train["methods"])
    assert {key for options in ARMS.values() for key in options} <= set(train)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"arms must be some of full_supervision, .*; found macaw\."):
        bench_maco(str(tmp_path), arms=["macaw"])
    (tmp_path / "settings.json").write_text('{"epochs": 7}')
    with pytest.raises(ValueError, match=r"holds a benchmark with other settings.*Give another --output_dir"):
        bench_maco(str(tmp_path), seeds=1)


@pytest.mark.slow
def test_two_methods_from_data_to_table(tmp_path):
    options = {"num_training": 2, "num_validation": 1, "num_test": 1, "image_size": 64, "epochs": 1, "epoch_length": 2}
    overrides = {"features": [8, 8, 8, 8, 8, 8], "roi_size": [64, 64], "patch_size": 8}
    arms = ["full_supervision", "maco_10_percent"]
    bench_maco(str(tmp_path), seeds=1, arms=arms, overrides=overrides, num_processes=1, **options)
    table = (tmp_path / "results.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == ["full supervision", "maco 10 percent"]
