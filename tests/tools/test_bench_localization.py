"""The localization benchmark: its table, and a tiny run of it that is resumed."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest

from common.tools.bench_localization import (
    ARMS,
    HALVES,
    bench_localization,
    format_absence,
    format_masks,
    format_results,
    write_halves,
)


def summary(iou, wall_mm):
    score = {"iou": iou, "wall_distance_mm": wall_mm}
    return {"organs": {"liver": score, "heart": {"iou": None, "wall_distance_mm": None}}, "mean_over_organs": score}


def test_table():
    table = format_results({"search, 1 supports": [summary(0.4, 8.0), summary(0.6, 6.0)]})
    assert table.splitlines()[2:] == [
        "| liver | 0.500, 7.0 mm |",
        "| mean | 0.500, 7.0 mm |",
        "| mean IoU of each seed | 0.400, 0.600 |",
    ]


def test_absence():
    counts = {"num_scored": 5, "num_absent": 3, "num_missed": 2, "num_false_alarms": 1}
    summary = {"organs": {"liver": counts, "heart": counts}}
    assert format_absence([summary, summary]) == (
        "Halves of scans: of 16 whole organs that are there, 8 were missed; of 16 that are not there, 4 were seen."
    )


def test_masks():
    def dice(liver, heart):
        structures = {"liver": {"dice": {"mean": liver}}, "heart": {"dice": {"mean": heart}}}
        return {"structures": structures, "mean_over_structures": {"dice": liver}}

    table = format_masks({"localized boxes": [dice(0.3, None), dice(0.5, None)], "true boxes": [dice(0.7, 0.25)] * 2})
    assert table.splitlines() == [
        "| Dice of masks | localized boxes | true boxes |",
        "|---|---|---|",
        "| liver | 0.400 | 0.700 |",
        "| heart | - | 0.250 |",
        "| mean | 0.400 | 0.700 |",
        "| mean of each seed | 0.300, 0.500 | 0.700, 0.700 |",
    ]


def test_halves_make_up_the_scan(tmp_path):
    volume = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
    affine = np.diag([2.0, 2.0, 6.0, 1.0])
    for name in ("image", "label"):
        nib.save(nib.Nifti1Image(volume, affine), tmp_path / f"{name}.nii.gz")
    entry = {"image": "image.nii.gz", "label": "label.nii.gz"}
    (tmp_path / "dataset.json").write_text(json.dumps({"test": [entry]}))
    for _ in range(2):
        write_halves(tmp_path)
        lower, upper = json.loads((tmp_path / "dataset.json").read_text())[HALVES]
        parts = [nib.load(tmp_path / part["label"]) for part in (lower, upper)]
        np.testing.assert_array_equal(np.concatenate([np.asarray(p.dataobj) for p in parts], axis=2), volume)
        assert parts[1].affine[2, 3] == 12.0


def test_results_of_other_settings_are_not_mixed(tmp_path):
    (tmp_path / "settings.json").write_text('{"num_test": 99}')
    with pytest.raises(ValueError, match=r"holds a benchmark with other settings.*Give another --output_dir"):
        bench_localization(str(tmp_path), seeds=1)


@pytest.mark.slow
def test_a_tiny_run_is_finished_and_not_repeated(tmp_path):
    options = {
        "seeds": 1,
        "num_supports": (2,),
        "mask_epochs": 1,
        "mask_epoch_length": 2,
        "num_unlabeled": 3,
        "num_test": 1,
        "epochs": 1,
        "epoch_length": 2,
        "spacing_mm": 12.0,
        "num_threads": 1,
        "overrides": {"spacing_mm": [12.0] * 3, "patch_size": [16, 16, 32], "base_channels": 2, "num_val_samples": 1},
    }
    bench_localization(str(tmp_path), **options)
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["scores"]) == len(ARMS)
    assert results[HALVES][0]["num_cases"] == 2
    assert [len(seeds) for seeds in results["masks"].values()] == [1, 1]
    (tmp_path / "results.json").unlink()
    log = tmp_path / "seed0" / "model" / "log.txt"
    before = log.stat().st_mtime_ns
    bench_localization(str(tmp_path), **options)
    assert log.stat().st_mtime_ns == before
    assert json.loads((tmp_path / "results.json").read_text()) == results
