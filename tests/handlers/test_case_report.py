"""`cases.csv` of an evaluation, and what a run that is started again skips."""

from __future__ import annotations

import csv
import errno
import json
import logging

import pytest
import torch
from ignite.engine import Engine, Events

from common.engines import CaseDataset, CaseIsolation
from common.engines.failures import describe_failure, machine_fault
from common.handlers import CaseReport, FailedCasesError
from common.handlers.case_journal import CaseEntry, CaseJournal
from common.handlers.stream_state import StreamState, chain_of


class Counter:
    """An adaptation whose state is how many images it saw."""

    def __init__(self):
        self.count = 0

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def read_rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def cases_of(tmp_path, names):
    folder = tmp_path / "in"
    folder.mkdir(exist_ok=True)
    for name in names:
        if not (folder / name).exists():
            (folder / name).write_text(name)
    return [{"case": name, "image": str(folder / name)} for name in names]


def run_cases(tmp_path, outputs, adaptation=None, **options):
    """Run cases that write their output, or raise it; gives those that were really run."""
    cases, ran = cases_of(tmp_path, outputs), []
    report = CaseReport(tmp_path, cases, adaptation=adaptation, **options)

    def step(engine, batch):
        (case,) = batch["case"]
        ran.append(case)
        if adaptation is not None:
            adaptation.count += 1
        if isinstance(outputs[case], BaseException):
            raise outputs[case]
        (tmp_path / f"{case}.txt").write_text(f"{outputs[case]} {adaptation.count if adaptation else ''}")
        return [{"saved": [str(tmp_path / f"{case}.txt")]}]

    engine = Engine(CaseIsolation(report, adaptation))
    engine._iteration = step
    report.attach(engine)
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda _: report.note("number", 0.1))
    dataset = CaseDataset(cases, lambda case: case, report.finished)

    def batches():
        for index in range(len(cases)):
            yield {key: [value] for key, value in dataset[index].items()}

    try:
        engine.run(batches(), max_epochs=1, epoch_length=len(cases))
    finally:
        run_cases.ran = ran
    return ran


def outcomes(tmp_path):
    return [(row["case"], row["outcome"]) for row in read_rows(tmp_path / "cases.csv")]


class TestRows:
    def test_every_case_has_a_row(self, tmp_path):
        run_cases(tmp_path, {"a": 1, "b": 2})
        rows = read_rows(tmp_path / "cases.csv")
        assert [(r["case"], r["outcome"], r["reason"]) for r in rows] == [("a", "done", ""), ("b", "done", "")]
        assert all(float(r["seconds"]) >= 0 for r in rows)

    def test_a_failure_is_written_down_and_the_others_go_on(self, tmp_path):
        with pytest.raises(FailedCasesError, match=r"1 of 3 cases failed(.|\n)*b: ValueError: too small"):
            run_cases(tmp_path, {"a": 1, "b": ValueError("too\nsmall"), "c": 3})
        assert outcomes(tmp_path) == [("a", "done"), ("b", "failed"), ("c", "done")]
        assert read_rows(tmp_path / "cases.csv")[1]["reason"] == "ValueError: too small"

    def test_failures_may_be_allowed(self, tmp_path, caplog):
        run_cases(tmp_path, {"a": ValueError("too small")}, allow_failures=True)
        assert outcomes(tmp_path) == [("a", "failed")]
        assert "1 of 1 cases failed" in caplog.text

    def test_one_reason_is_told_once(self, tmp_path):
        with pytest.raises(FailedCasesError, match=r"5 of 5 cases failed.*\n  a, b, c and 2 more: ValueError: no"):
            run_cases(tmp_path, dict.fromkeys("abcde", ValueError("no")))

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EFBIG])
    def test_a_full_disk_ends_the_run(self, tmp_path, number):
        with pytest.raises(OSError, match=r"ended at case b.*injected.*1 of 3 cases are done and kept"):
            run_cases(tmp_path, {"a": 1, "b": OSError(number, "injected"), "c": 3})
        assert outcomes(tmp_path) == [("a", "done"), ("b", "failed"), ("c", "not run")]
        assert run_cases(tmp_path, {"a": 1, "b": 2, "c": 3}) == ["b", "c"]

    def test_a_person_may_interrupt(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            run_cases(tmp_path, {"a": 1, "b": KeyboardInterrupt(), "c": 3})
        assert outcomes(tmp_path) == [("a", "done"), ("b", "failed"), ("c", "not run")]

    def test_equal_names_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"these occur twice: \['a'\]"):
            CaseReport(tmp_path, [{"case": name} for name in "aba"])

    def test_batches_of_several_cases_are_refused(self, tmp_path):
        isolation = CaseIsolation(CaseReport(tmp_path, [{"case": "a"}, {"case": "b"}]))
        with pytest.raises(ValueError, match=r"one case at a time.*got a batch of 2"):
            isolation(Engine(lambda *_: None), {"case": ["a", "b"]})


class TestSkipping:
    def test_finished_cases_are_skipped_and_failed_ones_tried_again(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        with pytest.raises(FailedCasesError):
            run_cases(tmp_path, {"a": 1, "b": ValueError("no"), "c": 3})
        seconds = {row["case"]: row["seconds"] for row in read_rows(tmp_path / "cases.csv")}
        assert run_cases(tmp_path, {"a": 1, "b": 2, "c": 3}) == ["b"]
        assert "2 of 3 cases are finished and not run again" in caplog.text
        rows = read_rows(tmp_path / "cases.csv")
        assert [(row["case"], row["outcome"]) for row in rows] == [("a", "done"), ("b", "done"), ("c", "done")]
        assert rows[0]["seconds"] == seconds["a"]
        assert run_cases(tmp_path, {"a": 1, "b": 2, "c": 3}, skip_finished=False) == ["a", "b", "c"]

    def test_other_weights_run_all_again(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        weights = tmp_path / "model.pt"
        weights.write_bytes(b"1")
        options = {"weights": [weights]}
        run_cases(tmp_path, {"a": 1}, **options)
        assert run_cases(tmp_path, {"a": 1}, **options) == []
        weights.write_bytes(b"2")
        assert run_cases(tmp_path, {"a": 1}, **options) == ["a"]
        assert "settings, weights or code are others" in caplog.text

    def test_other_inputs_run_their_case_again(self, tmp_path):
        options = {"inputs": [str(tmp_path / "{case}_boxes.json")]}
        run_cases(tmp_path, {"a": 1, "b": 2}, **options)
        (tmp_path / "b_boxes.json").write_text("{}")
        assert run_cases(tmp_path, {"a": 1, "b": 2}, **options) == ["b"]
        (tmp_path / "in" / "a").write_text("longer")
        assert run_cases(tmp_path, {"a": 1, "b": 2}, **options) == ["a"]

    def test_a_case_that_fails_now_leaves_no_former_output(self, tmp_path, caplog):
        run_cases(tmp_path, {"a": 1, "b": 2})
        (tmp_path / "in" / "b").write_text("another file")
        with pytest.raises(FailedCasesError):
            run_cases(tmp_path, {"a": 1, "b": ValueError("no")})
        assert (tmp_path / "a.txt").exists()
        assert not (tmp_path / "b.txt").exists()
        assert "Outputs of a former run of b are deleted: b.txt" in caplog.text


class TestStream:
    def test_an_image_that_fails_leaves_the_state(self, tmp_path):
        counter = Counter()
        outputs = {"a": 1, "b": ValueError("no"), "c": 3}
        run_cases(tmp_path, outputs, counter, allow_failures=True)
        assert counter.count == 2
        assert (tmp_path / "c.txt").read_text() == "3 2"

    def test_a_state_that_is_not_finite_is_taken_back(self, tmp_path, caplog):
        class Fragile(Counter):
            def state_dict(self):
                return {"count": self.count, "moments": [torch.tensor(float("nan") if self.count == 2 else 1.0)]}

        fragile = Fragile()
        run_cases(tmp_path, {"a": 1, "b": 2}, fragile)
        assert fragile.count == 1
        assert "Case b: the adaptation to it is not finite and is taken back" in caplog.text

    def test_a_stream_goes_on_where_it_was(self, tmp_path):
        with pytest.raises(OSError, match="ended at case c"):
            run_cases(tmp_path, {"a": 1, "b": 2, "c": OSError(errno.ENOSPC, "full"), "d": 4}, Counter())
        assert run_cases(tmp_path, dict(zip("abcd", range(4), strict=True)), Counter()) == ["c", "d"]
        assert (tmp_path / "d.txt").read_text() == "3 4"

    def test_another_order_begins_anew(self, tmp_path):
        run_cases(tmp_path, {"a": 1, "b": 2}, Counter())
        assert run_cases(tmp_path, {"a": 1, "b": 2, "c": 3}, Counter()) == ["c"]
        assert run_cases(tmp_path, {"b": 2, "a": 1, "c": 3}, Counter()) == ["b", "a", "c"]

    def test_images_that_failed_keep_their_place(self, tmp_path):
        outputs = {"a": 1, "b": ValueError("no"), "c": 3}
        run_cases(tmp_path, outputs, Counter(), allow_failures=True)
        with pytest.raises(FailedCasesError, match=r"--skip_finished False tries the failed ones again"):
            run_cases(tmp_path, {"a": 1, "b": 2, "c": 3}, Counter())
        assert run_cases.ran == []

    def test_the_chain_knows_the_order(self, tmp_path):
        state = StreamState(tmp_path)
        for fingerprint in "ab":
            state.write(fingerprint, {"x": torch.ones(2)})
        assert state.chain == chain_of("ab") != chain_of("ba")
        again = StreamState(tmp_path)
        assert again.read(list("abc"))
        assert again.num_seen == 2
        assert not StreamState(tmp_path).read(list("bac"))
        assert not StreamState(tmp_path).read(list("a"))


class TestJournal:
    def test_a_torn_line_is_no_entry(self, tmp_path):
        journal = CaseJournal(tmp_path)
        for name in "ab":
            journal.append(CaseEntry(name, notes={"x": [0.1]}))
        journal.path.write_bytes(journal.path.read_bytes()[:-5])
        again = CaseJournal(tmp_path)
        again.read()
        assert list(again.entries) == ["a"]
        assert again.entries["a"].notes == {"x": [0.1]}
        again.rewrite()
        assert len(journal.path.read_text().splitlines()) == 1

    @pytest.mark.parametrize("line", ["null", "[]", '{"case": "a", "other": 1}', "{}", "\x00\x00"])
    def test_what_is_no_entry_is_passed_over(self, tmp_path, line):
        (tmp_path / "cases.jsonl").write_text(line + "\n" + json.dumps({"case": "b"}) + "\n")
        journal = CaseJournal(tmp_path)
        journal.read()
        assert list(journal.entries) == ["b"]


class TestDataset:
    def test_what_stands_for_a_case_that_is_not_run(self, tmp_path):
        cases = cases_of(tmp_path, "abcd")
        cases[1]["failure"] = "found bad before"

        def load(case):
            if case["case"] == "c":
                raise ValueError("cannot be loaded")
            if case["case"] == "d":
                raise OSError(errno.EMFILE, "Too many open files")
            return {**case, "image": 1}

        finished = set()
        dataset = CaseDataset(cases, load, finished)
        assert dataset[0]["image"] == 1
        assert dataset[1]["failure"] == "found bad before"
        assert "must " in dataset[2]["failure"]  # the file says why, as it is no image
        assert dataset[3] == {**cases[3], "failure": "[Errno 24] Too many open files", "fatal": True}
        finished.add("a")
        assert dataset[0] == {**cases[0], "finished": True}

    def test_what_no_case_can_help_ends_the_run(self, tmp_path):
        report = CaseReport(tmp_path, [{"case": "a"}])
        batch = {"case": ["a"], "failure": ["Too many open files"], "fatal": [True]}
        with pytest.raises(OSError, match="Too many open files"):
            CaseIsolation(report)(Engine(lambda *_: None), batch)


class TestFaults:
    def test_whose_fault_it_is(self):
        full = RuntimeError("applying transform")
        full.__cause__ = OSError(errno.ENOSPC, "No space left on device")
        assert "No space left" in machine_fault(full, is_writing=False)
        assert machine_fault(OSError(errno.EIO, "damaged sector"), is_writing=False) is None
        assert "damaged sector" in machine_fault(OSError(errno.EIO, "damaged sector"), is_writing=True)
        assert machine_fault(FileNotFoundError(errno.ENOENT, "gone"), is_writing=True) is None
        assert machine_fault(ValueError("bad case"), is_writing=True) is None
        assert "the device failed" in machine_fault(torch.AcceleratorError("unspecified launch failure"), True)

    def test_out_of_memory_names_the_remedy(self):
        for error in (torch.OutOfMemoryError("CUDA out of memory"), MemoryError()):
            assert machine_fault(error, is_writing=True) is None
            assert "Remedy: lower roi_size" in describe_failure(error)

    def test_a_reason_is_one_short_line(self):
        assert describe_failure(ValueError("a\n  b")) == "ValueError: a b"
        assert len(describe_failure(ValueError("x" * 10_000))) <= 600
        assert describe_failure(KeyboardInterrupt()) == "KeyboardInterrupt"
