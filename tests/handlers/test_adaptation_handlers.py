"""Resets between domains, states kept over runs, scores of a stream."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from ignite.engine import Engine

from common.handlers import AdaptationState, DomainMetrics, DomainReset
from common.metrics import score_channels


class Counter:
    """An adaptation whose state is how many images it saw since its reset."""

    def __init__(self):
        self.count, self.resets = 0, 0

    def reset(self):
        self.count = 0
        self.resets += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def run_stream(domains, counter, *handlers):
    """Run an engine over one image of each domain; gives what the adaptation had seen before each."""
    seen = []

    def step(engine, batch):
        seen.append(counter.count)
        counter.count += 1

    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    engine.run([{"domain": [domain]} for domain in domains], max_epochs=1)
    return seen


class TestDomainReset:
    def test_a_fresh_start_per_domain(self):
        counter = Counter()
        assert run_stream("aabbba", counter, DomainReset(counter, True)) == [0, 1, 0, 1, 2, 0]

    def test_one_stream(self):
        counter = Counter()
        assert run_stream("aabb", counter, DomainReset(counter, False)) == [0, 1, 2, 3]
        assert counter.resets == 0

    def test_mixed_batches_are_refused(self):
        handler = DomainReset(Counter(), True)
        engine = Engine(lambda _engine, _batch: None)
        handler.attach(engine)
        with pytest.raises(ValueError, match=r"images of one domain.*found a, b"):
            engine.run([{"domain": ["a", "b"]}], max_epochs=1)


class TestAdaptationState:
    def test_a_second_run_goes_on(self, tmp_path):
        path = tmp_path / "state.pt"
        counter = Counter()
        run_stream("aa", counter, AdaptationState(counter, path, save=True))
        again = Counter()
        handlers = (DomainReset(again, True), AdaptationState(again, path, load=True))
        assert run_stream("ab", again, *handlers) == [2, 0]  # the first image of a run resets nothing
        assert torch.load(path, weights_only=True) == {"count": 2}

    def test_a_missing_state_is_named(self, tmp_path):
        counter = Counter()
        with pytest.raises(FileNotFoundError, match="no state to go on with"):
            run_stream("a", counter, AdaptationState(counter, tmp_path / "none.pt", load=True))

    def test_a_failed_run_leaves_the_former_state(self, tmp_path):
        path = tmp_path / "state.pt"
        torch.save({"count": 7}, path)
        counter = Counter()

        def fail(_engine, _batch):
            raise OSError("disk")

        engine = Engine(fail)
        AdaptationState(counter, path, save=True).attach(engine)
        with pytest.raises(OSError, match="disk"):
            engine.run([{}], max_epochs=1)
        assert torch.load(path, weights_only=True) == {"count": 7}


def square(first, last):
    mask = torch.zeros(2, 16, 16)
    mask[:, first:last, first:last] = 1
    return mask


def score_stream(tmp_path, predictions, channel_names=("disc", "cup")):
    """Score predictions against one reference; the first domain has two images, the second the rest."""

    def step(engine, index):
        if isinstance(predictions[index], Exception):
            raise predictions[index]
        domain = "b" if index < 2 else "c"
        engine.state.batch = [{"case": f"{domain}/{index}", "domain": domain}]
        return [{"pred": predictions[index], "label": square(4, 12)}]

    engine = Engine(step)
    DomainMetrics(tmp_path, channel_names).attach(engine)
    engine.run(list(range(len(predictions))), max_epochs=1)
    return engine


class TestDomainMetrics:
    def test_means(self, tmp_path):
        right, wrong = square(4, 12), square(0, 2)
        engine = score_stream(tmp_path, [right, wrong, right])
        summary = json.loads((tmp_path / "domains.json").read_text())
        assert {d: s["num_cases"] for d, s in summary["domains"].items()} == {"b": 2, "c": 1}
        assert summary["domains"]["b"]["mean"]["dice"] == pytest.approx(0.5, abs=1e-6)
        assert summary["domains"]["c"]["channels"]["cup"]["dice"] == pytest.approx(1)
        assert summary["pooled"]["mean"]["dice"] == pytest.approx(2 / 3, abs=1e-6)
        assert summary["mean_over_domains"]["mean"]["dice"] == pytest.approx(3 / 4, abs=1e-6)
        assert engine.state.metrics["pooled_dice"] == summary["pooled"]["mean"]["dice"]
        with (tmp_path / "metrics.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert [(row["domain"], row["case"], row["channel"]) for row in rows[:2]] == [
            ("b", "b/0", "disc"),
            ("b", "b/0", "cup"),
        ]
        expected = score_channels(wrong.numpy() > 0, right.numpy() > 0)[0]
        assert [float(rows[2][field]) for field in expected._fields] == pytest.approx(list(expected), rel=1e-5)

    def test_a_failed_case_leaves_no_average(self, tmp_path):
        score_stream(tmp_path, [square(4, 12)])
        with pytest.raises(OSError, match="disk"):
            score_stream(tmp_path, [square(4, 12), OSError("disk")])
        assert list(tmp_path.iterdir()) == []

    def test_channels_without_names_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"must name the 2 channels of the prediction; got \['polyp'\]"):
            score_stream(tmp_path, [square(4, 12)], ["polyp"])
