"""Scores of the masks that an evaluator writes."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
from ignite.engine import Engine
from PIL import Image

from common.data import MaskConvention
from common.evaluation import label_set_of_names, label_set_of_pictures
from common.handlers import CaseReport, CaseScores

LABELS = label_set_of_names({1: "liver", 2: "spleen"}, nsd_tolerance_mm=1.0)


def liver(depth):
    labels = np.zeros((8, 8, 8), dtype=np.uint8)
    labels[:depth, 2:6, 2:6] = 1
    return labels


def write(path, labels):
    path.parent.mkdir(exist_ok=True)
    nib.save(nib.Nifti1Image(labels, np.diag([2.0, 1.0, 1.0, 1.0])), path)
    return str(path)


@pytest.fixture
def run_cases(tmp_path):
    """Run an engine that writes a mask of the given depth for each case; all references have depth 4."""

    def run(depths, **options):
        cases = [
            {
                "case": case,
                "image": write(tmp_path / "images" / f"{case}.nii.gz", liver(4).astype(np.int16)),
                "label": write(tmp_path / "labels" / f"{case}.nii.gz", liver(4)),
                "site": "ab"[case > "b"],
            }
            for case in depths
        ]

        report = CaseReport(tmp_path / "out", cases)

        def step(engine, case):
            engine.state.batch = [{"case": case}]
            report.begin(case)
            if isinstance(depths[case], Exception):
                raise depths[case]
            if depths[case] is not None:
                write(tmp_path / "out" / f"{case}_seg.nii.gz", liver(depths[case]))
            return [{}]

        engine = Engine(step)
        report.attach(engine)
        CaseScores(tmp_path / "out", cases, LABELS, num_workers=1, **options).attach(engine)
        engine.run(list(depths), max_epochs=1)
        return engine

    return run


def test_scores_and_their_summary(run_cases, tmp_path):
    engine = run_cases({"a": 4, "b": 2, "c": 0}, group_key="site")
    with (tmp_path / "out" / "scores.csv").open() as stream:
        rows = {(row["case"], row["structure"], row["metric"]): row for row in csv.DictReader(stream)}
    assert float(rows["b", "liver", "dice"]["value"]) == pytest.approx(2 * 2 / 6)
    assert float(rows["b", "liver", "hd95_mm"]["value"]) == pytest.approx(4)  # two voxels of 2 mm
    assert rows["c", "liver", "dice"]["outcome"] == "only in reference"
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["protocol"] == "plain"
    assert summary["structures"]["liver"]["dice"]["mean"] == pytest.approx(5 / 9)
    assert summary["structures"]["spleen"]["dice"]["num"] == 0
    assert summary["mean_over_structures"]["dice"] == pytest.approx(5 / 9)
    assert engine.state.metrics["mean_dice"] == pytest.approx(5 / 9)
    groups = {name: group["mean_over_structures"]["dice"] for name, group in summary["groups"].items()}
    assert groups == pytest.approx({"a": 5 / 6, "b": 0})
    assert summary["mean_over_groups"]["dice"] == pytest.approx(5 / 12)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "c: mean Dice 0.000; liver 0.000 (only in reference)" in page
    assert "<td>mean over groups</td>" in page


def test_a_protocol_may_be_chosen(run_cases, tmp_path):
    run_cases({"a": 4}, protocol="segrap2023")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["structures"]["spleen"]["dice"]["mean"] == 1
    with pytest.raises(ValueError, match="protocol must be one of segrap2023, touchstone, plain; found 'fair'"):
        run_cases({"a": 4}, protocol="fair")


def test_a_case_that_was_not_written_ends_the_run(run_cases, tmp_path):
    with pytest.raises(ValueError, match="case b: must have a prediction; found nothing"):
        run_cases({"a": 4, "b": None})
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["structures"]["liver"]["dice"]["mean"] == 0.5


def test_no_average_after_a_failed_case(run_cases, tmp_path):
    run_cases({"a": 4})
    with pytest.raises(RuntimeError, match="broken"):
        run_cases({"a": 4, "b": RuntimeError("broken")})
    for name in ("scores.csv", "summary.json", "report.html"):
        assert not (tmp_path / "out" / name).exists()


def test_photographs_of_two_domains(tmp_path):
    """Gray masks in folders of their domains, distances in pixels."""
    convention = MaskConvention([[0, 254], [0, 0]], [128, 0], 255)
    reference = np.full((40, 60), 255, dtype=np.uint8)
    reference[10:30, 10:40] = 128
    reference[15:25, 20:30] = 0
    cases = []
    for domain, shift in (("near", 0), ("far", 3)):
        case = {"case": f"{domain}/x", "domain": domain}
        for key, array in (
            ("image", np.stack([reference] * 3, axis=-1)),
            ("label", reference),
            ("mask", np.roll(reference, shift, axis=1)),
        ):
            folder = tmp_path / ("out" if key == "mask" else key) / domain
            folder.mkdir(parents=True)
            path = folder / ("x_mask.png" if key == "mask" else "x.png")
            Image.fromarray(array).save(path)
            case[key] = str(path)
        cases.append(case)
    engine = Engine(lambda _engine, _batch: None)
    label_set = label_set_of_pictures(["disc", "cup"], convention, 2.0)
    options = {"mask_ending": "_mask.png", "group_key": "domain", "num_workers": 1}
    CaseScores(tmp_path / "out", cases, label_set, **options).attach(engine)
    engine.run([0], max_epochs=1)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(summary["groups"]) == ["near", "far"]
    assert summary["groups"]["near"]["mean_over_structures"]["dice"] == 1
    assert summary["groups"]["far"]["structures"]["cup"] == pytest.approx(
        {"dice": 0.7, "hd95_px": 3, "relative_volume_difference": 0}
        | {name: summary["groups"]["far"]["structures"]["cup"][name] for name in ("nsd", "asd_px")}
    )
    assert summary["distance_unit"] == "pixel"
    assert (tmp_path / "out" / "overlays" / "far" / "x.png").is_file()
