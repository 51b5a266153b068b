"""The page about runs, from folders as runs leave them, whole and damaged."""

from __future__ import annotations

import csv
import json
import re

import nibabel as nib
import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from common.tools.report import find_runs, report
from common.tools.report.curves import read_curves
from common.tools.report.records import numbers

NASTY = "<script>alert('x')</script>"
AFFINE = np.diag([2.0, 2.0, 4.0, 1.0])


def write_rows(path, *rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)


def write_scalars(folder, **curves):
    with SummaryWriter(str(folder)) as writer:
        for tag, values in curves.items():
            for step, value in enumerate(values, start=1):
                writer.add_scalar(tag, value, step)


def write_run(folder, **changes):
    record = {
        "outcome": "completed",
        "started": "2026-01-02T03:04:05+00:00",
        "bundle": {"name": "Some method", "version": "1.2.3"},
        "command": ["python", "-m", "monai.bundle", "run", "--note", NASTY],
        "versions": {"python": "3.11", "torch": "2.13"},
        "device": {"type": "cpu"},
        "config": {"max_epochs": 4, "note": NASTY},
        "settings": {"max_epochs": 4, "note": NASTY},
        "epochs": 4,
        "iterations": 80,
        "seconds": 200.4,
        "peak_memory_bytes": {"process": 3 * 1024**3},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({**record, **changes}))


def write_evaluation(folder, num_cases=4, names=None):
    """Cases whose prediction lies more and more beside the reference."""
    names = names or [f"case_{k}" for k in range(num_cases)]
    datalist, scores = [], [("case", "structure", "metric", "value", "outcome")]
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    for k, name in enumerate(names):
        image = generator.normal(0, 30, (24, 26, 12)).astype(np.int16)
        label = np.zeros(image.shape, dtype=np.uint8)
        label[6:14, 8:18, 3:9] = 1
        image[label > 0] += 120
        for file, array in (("image", image), ("label", label), ("seg", np.roll(label, k, axis=0))):
            path = folder / (f"{name}_seg.nii.gz" if file == "seg" else f"{k}_{file}.nii.gz")
            nib.save(nib.Nifti1Image(array, AFFINE), path)
        files = {key: str(folder / f"{k}_{key}.nii.gz") for key in ("image", "label")}
        datalist.append({"case": name, **files})
        scores += [(name, "liver", "dice", 1 - k / 8, "scored"), (name, "liver", "hd95_mm", 2 * k, "scored")]
    settings = {"datalist": datalist, "label_names": {"1": "liver"}, "intensity_range_hu": [-1000, 1000]}
    write_run(folder, settings=settings)
    write_rows(folder / "scores.csv", *scores)
    write_rows(
        folder / "cases.csv",
        ("case", "seconds", "outcome", "reason"),
        *((name, f"{k + 1}.5", "done", "") for k, name in enumerate(names)),
    )
    return folder


def page_of(folder, tmp_path, **options):
    report(str(folder), str(tmp_path / "page.html"), **options)
    return (tmp_path / "page.html").read_text()


@pytest.fixture
def trained(tmp_path):
    folder = tmp_path / "train"
    write_run(folder)
    write_scalars(folder, train_loss=np.geomspace(2, 0.5, 80), val_mean_dice=[0.1, 0.4, 0.5, 0.6])
    return folder


class TestPage:
    def test_it_says_what_ran(self, trained, tmp_path):
        page = page_of(trained, tmp_path)
        for text in ("Some method 1.2.3", "3 min 20 s", "process 3.00 GiB", "torch 2.13", "2026-01-02 03:04:05 UTC"):
            assert f"<dd>{text}" in page or text in page
        assert "max_epochs" in page
        assert "train loss" in page
        assert "val mean dice" in page

    def test_it_needs_nothing_but_itself(self, trained, tmp_path):
        page = page_of(trained, tmp_path)
        links = re.findall(r'(?:src|href)="([^"]{0,40})', page)
        assert links
        assert all(link.startswith(("data:", "#")) for link in links)
        assert "url(" not in page
        assert "import" not in re.search(r"<style>(.*?)</style>", page)[1]

    def test_what_was_named_by_others_is_text(self, trained, tmp_path):
        page = page_of(trained, tmp_path)
        assert NASTY not in page
        assert "&lt;script&gt;alert" in page

    def test_worst_and_best_cases_are_drawn(self, tmp_path):
        folder = write_evaluation(tmp_path / "evaluate")
        page = page_of(folder, tmp_path, num_cases=1)
        titles = re.findall(r"<h4>(.*?)</h4>", page)
        assert titles == [
            "1 of the worst: case_3, mean Dice 0.625; its worst structure, liver, 0.625",
            "1 of the best: case_0, mean Dice 1.000; its worst structure, liver, 1.000",
        ]
        assert page.count("data:image/png") == 18
        assert page.count("<figcaption>prediction, coronal</figcaption>") == 2
        assert '<th aria-sort="none"><button type="button">Dice</button></th>' in page
        assert "<td>case_2</td><td>0.750</td><td>4.000</td><td>0.750</td><td>3.500</td><td>done</td>" in page

    def test_few_cases_are_not_drawn_twice(self, tmp_path):
        page = page_of(write_evaluation(tmp_path / "evaluate"), tmp_path, num_cases=3)
        assert len(re.findall(r"<h4>\d of the worst", page)) == 3
        assert len(re.findall(r"<h4>\d of the best", page)) == 1

    def test_without_scores_the_first_cases_are_drawn(self, tmp_path):
        folder = write_evaluation(tmp_path / "inference")
        (folder / "scores.csv").unlink()
        page = page_of(folder, tmp_path, num_cases=2)
        assert re.findall(r"<h4>(.*?)</h4>", page) == ["case_0", "case_1"]
        assert "<h3>First cases</h3>" in page

    def test_several_runs_are_in_order_and_summed_up(self, trained, tmp_path):
        write_evaluation(tmp_path / "a_later" / "evaluate")
        write_run(tmp_path / "earlier", started="2025-01-01T00:00:00+00:00", outcome="started")
        page = page_of(tmp_path, tmp_path)
        assert re.findall(r'<a href="#[^"]+">(.*?)</a>', page) == ["earlier", "a_later/evaluate", "train"]
        assert "<h1>Report of 3 runs</h1>" in page
        assert "did not come to its end" in page

    def test_names_of_cases_may_hold_anything(self, tmp_path):
        folder = write_evaluation(tmp_path / "evaluate", names=["a<b>&'c", "Müller 1"])
        page = page_of(folder, tmp_path)
        assert "a&lt;b&gt;&amp;&#x27;c" in page
        assert "a<b>" not in page
        assert page.count("data:image/png") == 18


class TestDamage:
    def test_no_folder(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="run_dir must be the output_dir of a run"):
            report(str(tmp_path / "nothing"))

    def test_nothing_of_a_run(self, tmp_path):
        (tmp_path / "model.pt").touch()
        with pytest.raises(ValueError, match=r"holds nothing of a run: none of run\.json, cases\.csv"):
            report(str(tmp_path))
        assert not (tmp_path / "run_report.html").exists()

    def test_a_negative_number_of_cases(self, trained):
        with pytest.raises(ValueError, match="num_cases must be at least 0, got -1"):
            report(str(trained), num_cases=-1)

    def test_a_run_without_record_and_metrics(self, tmp_path):
        folder = tmp_path / "old"
        folder.mkdir()
        write_scalars(folder, train_loss=[2, 1])
        page = page_of(folder, tmp_path)
        assert "No run.json: settings, versions, device, seconds and memory were not recorded." in page
        assert "train loss" in page

    def test_a_run_that_has_just_begun(self, tmp_path):
        write_run(tmp_path / "run", outcome="started", config={}, settings={}, seconds=None, peak_memory_bytes={})
        assert "did not come to its end" in page_of(tmp_path / "run", tmp_path)

    def test_tables_that_are_cut_off(self, tmp_path):
        folder = write_evaluation(tmp_path / "evaluate")
        for name in ("scores.csv", "cases.csv"):
            text = (folder / name).read_text()
            (folder / name).write_text(text[:-8])
        page = page_of(folder, tmp_path)
        assert "scores.csv ends in the middle of line 9, which is left out." in page
        assert "cases.csv ends in the middle of line 5, which is left out." in page
        assert "<td>case_3</td><td>0.625</td><td>-</td>" in page

    def test_a_row_too_long_and_a_table_of_something_else(self, tmp_path):
        folder = write_evaluation(tmp_path / "evaluate")
        with (folder / "cases.csv").open("a") as stream:
            stream.write("x,1,done,,more\n")
        write_rows(folder / "scores.csv", ("name", "score"), ("a", "good"))
        page = page_of(folder, tmp_path)
        assert "cases.csv has a row with more or fewer columns than its head; it is left out." in page
        assert "scores.csv is no table of scores" in page

    @pytest.mark.parametrize("text", ['{"outcome": "comp', "[1, 2]", "\x00"])
    def test_a_damaged_record(self, trained, tmp_path, text):
        (trained / "run.json").write_text(text)
        page = page_of(trained, tmp_path)
        assert "run.json" in page
        assert "left out" in page
        assert "train loss" in page

    def test_files_of_cases_that_are_gone(self, tmp_path):
        folder = write_evaluation(tmp_path / "evaluate")
        (folder / "3_image.nii.gz").unlink()
        (folder / "case_0_seg.nii.gz").write_bytes(b"no NIfTI")
        page = page_of(folder, tmp_path, num_cases=1)
        assert "Case case_3 is not drawn" in page
        assert "must exist; found nothing" in page
        assert "Case case_0 is not drawn" in page

    def test_what_cannot_be_built_again_says_why(self, tmp_path):
        config = {"inferer": {"_target_": "common.inferers.VPTTAInferer", "num_steps": 0}, "dataset": []}
        write_run(tmp_path / "run", config=config)
        page = page_of(tmp_path / "run", tmp_path)
        assert "num_steps must be at least 1, got 0." in page
        assert "is not drawn" in page
        assert "num_steps must" not in page_of(tmp_path / "run", tmp_path, recompute=False)


class TestCurves:
    def test_every_scalar_is_read(self, trained):
        curves, problems = read_curves(trained)
        assert problems == []
        assert [step for step, _ in curves["val_mean_dice"]] == [1, 2, 3, 4]
        np.testing.assert_allclose([value for _, value in curves["val_mean_dice"]], [0.1, 0.4, 0.5, 0.6], rtol=1e-6)

    def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(self, trained):
        (path,) = trained.glob("events*")
        path.write_bytes(path.read_bytes()[:-20])
        curves, problems = read_curves(trained)
        assert len(curves["train_loss"]) == 80
        assert len(curves["val_mean_dice"]) == 3
        assert problems == [f"{path.name} is cut off or damaged; what stands before that is shown."]

    @pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 100])
    def test_a_file_of_something_else(self, tmp_path, content):
        (tmp_path / "events.out.tfevents.1.host").write_bytes(content)
        curves, problems = read_curves(tmp_path)
        assert curves == {}
        assert len(problems) == bool(content)

    def test_a_later_run_replaces_what_it_repeats(self, tmp_path):
        for number, steps in enumerate(((1, 2, 3, 4), (3, 4, 5))):
            with SummaryWriter(str(tmp_path / str(number))) as writer:
                for step in steps:
                    writer.add_scalar("loss", 10 * number + step, step)
            (path,) = (tmp_path / str(number)).iterdir()
            path.rename(tmp_path / f"events.out.tfevents.{number}.host")
        assert read_curves(tmp_path)[0]["loss"] == [(1, 1), (2, 2), (3, 13), (4, 14), (5, 15)]


def test_numbers_of_a_table():
    rows = [{"a": "1", "b": "2", "c": "x", "d": ""}, {"a": "3", "b": "2.5", "c": "7", "d": "nan"}]
    first, second = numbers(rows)
    assert first == {"a": 1, "b": 2.0, "c": "x", "d": None}
    assert isinstance(first["a"], int)
    assert isinstance(first["b"], float)
    assert np.isnan(second["d"])
    assert numbers([]) == []


def test_a_folder_of_a_run_is_called_by_its_name(trained, tmp_path):
    assert [run.name for run in find_runs(trained)] == ["train"]
    assert [run.name for run in find_runs(tmp_path)] == ["train"]
