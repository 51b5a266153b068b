"""One bad case in a folder of twenty: nineteen results, and a failure that nobody can overlook."""

from __future__ import annotations

import errno
import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import common.transforms.whole_images as whole_images
from tests.faults.inference_runs import (
    POISON_HU,
    STREAMS,
    contents_of,
    error_text,
    heart_overrides,
    outcomes_of,
    rows_of,
    run_inference,
    stream_overrides,
    volume_overrides,
    write_photographs,
    write_volumes,
)

NUM_CASES = 20
BAD = "case_007"


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def fill_with(value):
    def write(path):
        image = nib.load(path)
        array = np.asarray(image.dataobj).astype(np.float32)
        array[2, 2, 2] = value
        path.unlink()
        nib.save(nib.Nifti1Image(array, image.affine), path)

    return write


def overflow(path):
    path.write_bytes(b"")


SPOILERS = {
    "truncated": (truncate, True, "case_007"),
    "truncated, found when it is loaded": (truncate, False, "case_007"),
    "removed": (lambda path: path.unlink(), True, "must exist"),
    "removed while running": (lambda path: path.unlink(), False, "must exist"),
    "empty": (overflow, True, "case_007"),
    "not a number": (fill_with(np.nan), True, "must be finite"),
    "fails in the network": (fill_with(POISON_HU), True, "the network met what it cannot segment"),
}


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("volumes"), NUM_CASES)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"), NUM_CASES)


@pytest.fixture
def failing(tmp_path, volumes):
    """Run a bundle on the volumes with one spoilt; gives the folder of its output and the error."""

    def start(spoil, bundle="volume_fusion", overrides=volume_overrides, configs=("inference.json",), **options):
        data = tmp_path / "data"
        shutil.copytree(volumes, data)
        (data / "dataset.json").write_text(dataset_json(data))
        spoil(data / "imagesTs" / f"{BAD}.nii.gz")
        settings = overrides(data, tmp_path, output_dir=str(tmp_path / "out"), **options)
        try:
            run_inference(bundle, settings, configs)
        except (RuntimeError, ValueError, OSError) as error:
            return tmp_path / "out", error_text(error)
        return tmp_path / "out", None

    return start


def dataset_json(data):
    names = sorted(path.name for path in (data / "imagesTs").iterdir())
    return json.dumps({"test": [{"image": f"imagesTs/{name}", "label": f"labelsTs/{name}"} for name in names]})


def assert_nineteen(folder, message, reason):
    outcomes = outcomes_of(folder)
    assert len(outcomes) == NUM_CASES
    assert [case for case, outcome in outcomes.items() if outcome != "done"] == [BAD]
    assert outcomes[BAD] == "failed"
    (row,) = [row for row in rows_of(folder) if row["case"] == BAD]
    assert reason in row["reason"]
    assert "\n" not in row["reason"]
    assert len(list(folder.glob("*_seg.nii.gz"))) == NUM_CASES - 1
    assert not (folder / f"{BAD}_seg.nii.gz").exists()
    assert f"1 of {NUM_CASES} cases failed" in message
    assert reason in message


class TestVolumes:
    @pytest.mark.parametrize("kind", SPOILERS)
    def test_nineteen_results_and_an_error(self, failing, kind):
        spoil, check_data, reason = SPOILERS[kind]
        folder, message = failing(spoil, check_data=check_data)
        assert_nineteen(folder, message, reason)

    def test_maco(self, failing):
        folder, message = failing(truncate, "maco", heart_overrides)
        assert_nineteen(folder, message, BAD)

    def test_workers_go_on(self, failing):
        folder, message = failing(truncate, check_data=False, num_workers=2)
        assert_nineteen(folder, message, BAD)

    def test_failures_may_be_allowed(self, failing):
        folder, message = failing(truncate, allow_failures=True)
        assert message is None
        assert outcomes_of(folder)[BAD] == "failed"
        assert json.loads((folder / "run.json").read_text())["outcome"] == "completed"

    def test_a_failure_counts_in_the_scores(self, failing):
        folder, message = failing(fill_with(np.nan), configs=("inference.json", "evaluate.json"))
        assert_nineteen(folder, message, "must be finite")
        summary = json.loads((folder / "summary.json").read_text())
        (structure,) = summary["structures"].values()
        assert structure["outcomes"]["missing prediction"] == 1
        assert structure["dice"]["mean"] == pytest.approx((NUM_CASES - 1) / NUM_CASES)
        assert json.loads((folder / "run.json").read_text())["outcome"] == "started"

    def test_a_stale_mask_of_a_failed_case_is_deleted(self, volumes, tmp_path):
        data = tmp_path / "data"
        shutil.copytree(volumes, data)
        settings = volume_overrides(data, tmp_path, output_dir=str(tmp_path / "out"))
        run_inference("volume_fusion", settings)
        before = contents_of(tmp_path / "out")
        fill_with(POISON_HU)(data / "imagesTs" / f"{BAD}.nii.gz")
        with pytest.raises((RuntimeError, ValueError)) as caught:
            run_inference("volume_fusion", settings)
        assert_nineteen(tmp_path / "out", error_text(caught.value), "cannot segment")
        after = contents_of(tmp_path / "out")
        assert {name for name in before if before[name] != after.get(name)} == {
            f"{BAD}_seg.nii.gz",
            "cases.csv",
            "cases.jsonl",
        }

    def test_an_empty_folder_is_refused_at_once(self, tmp_path):
        (tmp_path / "data").mkdir()
        with pytest.raises((RuntimeError, ValueError)) as caught:
            run_inference(
                "volume_fusion", volume_overrides(tmp_path / "data", tmp_path, output_dir=str(tmp_path / "o"))
            )
        assert "an empty directory" in error_text(caught.value)
        assert not (tmp_path / "o").exists()


class TestMachine:
    """What is not the fault of a case ends the run, and what is finished stays finished."""

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
    def test_outputs_that_cannot_be_written(self, volumes, tmp_path, monkeypatch, number):
        settings = volume_overrides(volumes, tmp_path, output_dir=str(tmp_path / "out"))
        written = whole_images.whole_file

        def fail(path, ending=""):
            if BAD in str(path):
                raise OSError(number, "injected", str(path))
            return written(path, ending)

        monkeypatch.setattr(whole_images, "whole_file", fail)
        with pytest.raises((RuntimeError, ValueError, OSError)) as caught:
            run_inference("volume_fusion", settings)
        text = error_text(caught.value)
        assert f"The run ended at case {BAD}" in text
        assert "7 of 20 cases are done and kept" in text
        outcomes = outcomes_of(tmp_path / "out")
        assert list(outcomes.values()) == ["done"] * 7 + ["failed"] + ["not run"] * 12
        assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 7
        monkeypatch.setattr(whole_images, "whole_file", written)
        kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*_seg.nii.gz")}
        run_inference("volume_fusion", settings)
        assert set(outcomes_of(tmp_path / "out").values()) == {"done"}
        assert all((tmp_path / "out" / name).stat().st_mtime_ns == time for name, time in kept.items())

    def test_a_folder_that_cannot_be_made(self, volumes, tmp_path):
        (tmp_path / "file").write_text("")
        settings = volume_overrides(volumes, tmp_path, output_dir=str(tmp_path / "file" / "out"))
        with pytest.raises((RuntimeError, ValueError, OSError)) as caught:
            run_inference("volume_fusion", settings)
        assert "The run ended at case case_000" in error_text(caught.value)
        assert "0 of 20 cases are done" in error_text(caught.value)


def spoil_photograph(path):
    Image.new("L", (80, 72)).save(path)


@pytest.mark.parametrize("bundle", STREAMS)
class TestStreams:
    def test_the_others_are_as_if_the_bad_image_were_not_there(self, bundle, photographs, tmp_path):
        """One stream over all domains; metrics, traces, probabilities and the state at the end, bit for bit."""
        configs = ("inference.json", "evaluate.json")
        clean, spoilt = tmp_path / "clean", tmp_path / "spoilt"
        for data in (clean, spoilt):
            shutil.copytree(photographs, data)
        for name in ("imagesTs", "labelsTs"):
            (clean / "b" / name / "p004.png").unlink()
        spoil_photograph(spoilt / "b" / "imagesTs" / "p004.png")
        options = {"reset_on_domain_change": False}
        run_inference(bundle, stream_overrides(clean, tmp_path, output_dir=str(tmp_path / "1"), **options), configs)
        settings = stream_overrides(spoilt, tmp_path, output_dir=str(tmp_path / "2"), **options)
        with pytest.raises((RuntimeError, ValueError)) as caught:
            run_inference(bundle, settings, configs)
        assert "1 of 20 cases failed" in error_text(caught.value)
        assert "found 1 gray channel" in error_text(caught.value)
        one, two = (contents_of(tmp_path / name) for name in "12")
        pictures = [name for name in one if name.endswith(".png") and name[:2] in ("b/", "c/")]
        assert len(pictures) == 19 * 3
        assert {name: two[name] for name in pictures} == {name: one[name] for name in pictures}
        assert two["adaptation.csv"] == one["adaptation.csv"]
        assert not any("p004" in name and name.startswith("b/") for name in two)
        rows = [row for row in rows_of(tmp_path / "2", "metrics.csv") if row["case"] != "b/p004"]
        assert rows == rows_of(tmp_path / "1", "metrics.csv")
        failed = [row for row in rows_of(tmp_path / "2", "metrics.csv") if row["case"] == "b/p004"]
        assert [float(row["dice"]) for row in failed] == [0, 0]
        summary = json.loads((tmp_path / "2" / "domains.json").read_text())
        assert summary["num_cases"] == 20
        one["stream_state.pt"]["num_seen"] += 1
        assert two["stream_state.pt"] == one["stream_state.pt"]

    def test_a_failure_behind_the_adaptation_leaves_no_trace(self, bundle, photographs, tmp_path, monkeypatch):
        """The prediction is not finite, which is found when the state has moved on already."""
        from common.transforms import SavePredictionsd

        call = SavePredictionsd.__call__

        def fail(self, data):
            if data["case"] == "c/p002":
                raise ValueError("not finite")
            return call(self, data)

        clean = tmp_path / "clean"
        shutil.copytree(photographs, clean)
        for name in ("imagesTs", "labelsTs"):
            (clean / "c" / name / "p002.png").unlink()
        run_inference(bundle, stream_overrides(clean, tmp_path, output_dir=str(tmp_path / "1")))
        monkeypatch.setattr(SavePredictionsd, "__call__", fail)
        settings = stream_overrides(photographs, tmp_path, output_dir=str(tmp_path / "2"), allow_failures=True)
        run_inference(bundle, settings)
        one, two = (contents_of(tmp_path / name) for name in "12")
        pictures = {name: one[name] for name in one if name.endswith(".png") and name[:2] in ("b/", "c/")}
        assert {name: two[name] for name in pictures} == pictures
        one["stream_state.pt"]["num_seen"] += 1
        assert two["stream_state.pt"] == one["stream_state.pt"]
