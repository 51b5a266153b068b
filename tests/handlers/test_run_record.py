"""`run.json` of a run, and `adaptation.csv` of an adaptation."""

from __future__ import annotations

import csv
import json
from collections import namedtuple

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from common.handlers import AdaptationTrace, RunRecord

CONFIG = {
    "output_dir": "",
    "max_epochs": 3,
    "rate": "$@max_epochs / 2",
    "unused": 5,
    "device": "$torch.device('cpu')",
    "imports": ["$import torch"],
    "record": {"_target_": "common.handlers.RunRecord", "output_dir": "@output_dir"},
    "note": ["@rate", "@device"],
    "_meta_": {"name": "Some method", "version": "1.2.3", "description": "long"},
}


def read_run(folder):
    return json.loads((folder / "run.json").read_text())


def engine_that(step, *handlers):
    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    return engine


def test_a_run_leaves_its_configuration_and_what_it_took(tmp_path):
    parser = ConfigParser({**CONFIG, "output_dir": str(tmp_path)})
    parser["max_epochs"] = 4  # as an override does
    parser.get_parsed_content("note")
    engine_that(lambda engine, batch: None, parser.get_parsed_content("record")).run([0, 1], max_epochs=2)
    run = read_run(tmp_path)
    assert run["outcome"] == "completed"
    assert (run["epochs"], run["iterations"]) == (2, 4)
    assert run["bundle"] == {"name": "Some method", "version": "1.2.3"}
    assert run["config"]["max_epochs"] == 4
    assert run["config"]["rate"] == "$@max_epochs / 2"
    used = {"output_dir": str(tmp_path), "max_epochs": 4, "rate": 2.0, "device": "cpu", "note": [2.0, "cpu"]}
    assert run["settings"] == used  # without what nothing refers to
    assert run["versions"]["torch"] == torch.__version__
    assert run["device"]["type"] == "cpu"
    assert run["seconds"] >= 0
    assert 1e7 < run["peak_memory_bytes"]["process"] < 1e12


def test_what_is_no_json_is_written_as_text(tmp_path):
    parser = ConfigParser({**CONFIG, "output_dir": str(tmp_path)})
    parser["device"] = torch.device("cpu")
    engine_that(lambda engine, batch: None, parser.get_parsed_content("record")).run([0])
    assert read_run(tmp_path)["config"]["device"] == "cpu"


def test_a_record_built_by_hand_has_no_configuration(tmp_path):
    engine_that(lambda engine, batch: None, RunRecord(tmp_path)).run([0])
    run = read_run(tmp_path)
    assert (run["outcome"], run["config"], run["settings"]) == ("completed", {}, {})


def test_a_failed_run_is_not_completed(tmp_path):
    def fail(engine, batch):
        raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"):
        engine_that(fail, RunRecord(tmp_path)).run([0])
    assert read_run(tmp_path)["outcome"] == "started"


def test_a_handler_that_fails_at_the_end_makes_the_run_fail(tmp_path):
    class Scores:
        def attach(self, engine):
            engine.add_event_handler(Events.COMPLETED, self.fail)

        def fail(self, engine):
            raise ValueError("a mask is missing")

    with pytest.raises(ValueError, match="a mask is missing"):
        engine_that(lambda engine, batch: None, RunRecord(tmp_path), Scores()).run([0])
    assert read_run(tmp_path)["outcome"] == "started"


class Inferer:
    Step = namedtuple("Step", ("cosine", "loss", "prompt"))
    last_step = None


def adapt(folder, inferer, skipped=()):
    def step(engine, case):
        engine.state.batch = [{"case": case}]
        if case not in skipped and hasattr(inferer, "last_step"):
            inferer.last_step = inferer.Step(0.25, torch.tensor(1.5), torch.ones(3, 2, 2))

    engine_that(step, AdaptationTrace(folder, inferer)).run(["a/1", "a/2", "b/1"])


def test_steps_of_an_adaptation_are_listed_with_their_image(tmp_path):
    adapt(tmp_path, Inferer(), skipped=["a/2"])  # a constant image: the last step is that of the image before
    with (tmp_path / "adaptation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert rows == [{"case": case, "cosine": "0.25", "loss": "1.5"} for case in ("a/1", "b/1")]


def test_a_method_without_steps_leaves_no_file_of_a_former_run(tmp_path):
    adapt(tmp_path, Inferer())
    adapt(tmp_path, object())
    assert not (tmp_path / "adaptation.csv").exists()
