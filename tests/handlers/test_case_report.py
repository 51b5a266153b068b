"""`cases.csv` and the scores of an evaluation."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor

from common.handlers import CaseMetrics, CaseReport


def read_rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def run_cases(handlers, outputs):
    def step(engine, case):
        output = outputs[case]
        if isinstance(output, Exception):
            raise output
        engine.state.batch = [{"case": case}]
        return [output]

    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    engine.run(list(outputs), max_epochs=1)
    return engine


def label_pair(prediction_depth, reference_depth):
    maps = []
    for depth in (prediction_depth, reference_depth):
        label = torch.zeros(1, 8, 8, 8)
        label[:, :depth, 2:6, 2:6] = 1
        maps.append(MetaTensor(label, affine=torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0]))))
    return {"pred": maps[0], "label": maps[1]}


def test_every_case_has_a_row(tmp_path):
    run_cases([CaseReport(tmp_path, ["a", "b"])], {"a": {}, "b": {}})
    rows = read_rows(tmp_path / "cases.csv")
    assert [(r["case"], r["outcome"], r["reason"]) for r in rows] == [("a", "done", ""), ("b", "done", "")]
    assert all(float(r["seconds"]) >= 0 for r in rows)


def test_a_failure_is_written_down_and_goes_on(tmp_path):
    outputs = {"a": {}, "b": OSError("disk\nis full"), "c": {}}
    with pytest.raises(OSError, match="disk"):
        run_cases([CaseReport(tmp_path, list(outputs))], outputs)
    rows = read_rows(tmp_path / "cases.csv")
    assert [(r["case"], r["outcome"]) for r in rows] == [("a", "done"), ("b", "failed"), ("c", "not run")]
    assert rows[1]["reason"] == "OSError: disk is full"


@pytest.mark.parametrize("wrong", ["b", "c"])
def test_a_case_that_cannot_be_scored_is_the_one_that_failed(tmp_path, wrong):
    outputs = {case: label_pair(4, 4) for case in "abc"}
    outputs[wrong]["pred"] = outputs[wrong]["pred"][:, 1:]
    handlers = [CaseReport(tmp_path, list(outputs)), CaseMetrics(tmp_path, {1: "liver"}, 1.0)]
    with pytest.raises(ValueError, match="one shape"):
        run_cases(handlers, outputs)
    rows = {row["case"]: row["outcome"] for row in read_rows(tmp_path / "cases.csv")}
    outcomes = {"b": ["done", "failed", "not run"], "c": ["done", "done", "failed"]}[wrong]
    assert rows == dict(zip("abc", outcomes, strict=True))


def test_equal_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"these occur twice: \['a'\]"):
        CaseReport(tmp_path, ["a", "b", "a"])


def test_scores_and_their_summary(tmp_path):
    handler = CaseMetrics(tmp_path, {"0": "background", "1": "liver", "2": "spleen"}, nsd_tolerance_mm=1.0)
    engine = run_cases([handler], {"a": label_pair(4, 4), "b": label_pair(2, 4), "c": label_pair(0, 4)})
    rows = read_rows(tmp_path / "metrics.csv")
    dice = {(r["case"], r["structure"]): float(r["dice"]) for r in rows}
    assert dice["a", "liver"] == 1.0
    assert dice["b", "liver"] == pytest.approx(2 * 2 / 6, abs=1e-5)
    assert dice["c", "liver"] == 0.0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["num_cases"] == 3
    assert summary["structures"]["liver"]["dice"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert summary["structures"]["liver"]["num_scored"] == 3
    assert summary["structures"]["spleen"] == {
        "dice": None, "hd95_mm": None, "nsd": None, "num_scored": 0, "num_absent": 3,
    }  # fmt: skip
    assert summary["mean_over_structures"]["dice"] == pytest.approx(5 / 9)
    assert engine.state.metrics["mean_dice"] == pytest.approx(5 / 9)


def test_distances_use_the_spacing_of_the_case(tmp_path):
    run_cases([CaseMetrics(tmp_path, {1: "liver"}, 1.0)], {"a": label_pair(3, 4)})
    assert float(read_rows(tmp_path / "metrics.csv")[0]["hd95_mm"]) == pytest.approx(2.0)


def test_no_average_after_a_failed_case(tmp_path):
    for name in ("summary.json", "metrics.csv"):
        (tmp_path / name).write_text("from an older run")
    with pytest.raises(RuntimeError, match="broken"):
        run_cases([CaseMetrics(tmp_path, {1: "liver"}, 1.0)], {"a": label_pair(4, 4), "b": RuntimeError("broken")})
    assert list(tmp_path.iterdir()) == []
