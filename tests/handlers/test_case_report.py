"""`cases.csv` of an evaluation."""

from __future__ import annotations

import csv

import pytest
from ignite.engine import Engine

from common.handlers import CaseReport


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


def test_equal_names_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"these occur twice: \['a'\]"):
        CaseReport(tmp_path, ["a", "b", "a"])
