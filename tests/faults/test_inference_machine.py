"""A disk that fills up, an input folder that goes away, a localization that fails: in real processes and files."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import signal

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.boxes import boxes_file
from common.data.phantoms import write_torso_phantoms
from common.files import write_atomically
from common.handlers import CaseReport
from common.handlers.case_journal import CaseJournal
from common.inferers import EmbeddingCache
from common.networks import MedLAM
from tests.faults.inference_runs import (
    StubSegmenter,
    contents_of,
    error_text,
    outcomes_of,
    rows_of,
    run_inference,
    segmenter_overrides,
    stream_overrides,
    volume_overrides,
    write_photographs,
    write_volumes,
)
from tests.faults.killing import run_and_kill

MAX_FILE_BYTES = 16


@pytest.mark.parametrize("bundle", ["volume_fusion", "vptta", "grata"])
def test_a_disk_that_fills_up(bundle, tmp_path):
    """The system refuses every file above some bytes from the fourth case on (EFBIG)."""
    if bundle == "volume_fusion":
        write_volumes(tmp_path / "data", 6)
        settings = volume_overrides(tmp_path / "data", tmp_path, output_dir=str(tmp_path / "out"))
    else:
        write_photographs(tmp_path / "data", 6)
        settings = stream_overrides(tmp_path / "data", tmp_path, output_dir=str(tmp_path / "out"))
    run_inference(bundle, {**settings, "output_dir": str(tmp_path / "whole")})

    def fill_up():
        begin = CaseReport.begin

        def begin_full(self, case):
            begin(self, case)
            if self.num_done == 3:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, resource.RLIM_INFINITY))

        CaseReport.begin = begin_full
        try:
            run_inference(bundle, settings)
        except (RuntimeError, ValueError, OSError) as error:
            soft = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, soft))
            (tmp_path / "message.txt").write_text(error_text(error))
            return
        raise AssertionError("the run went through")

    assert run_and_kill(fill_up, tmp_path / "out")
    message = (tmp_path / "message.txt").read_text()
    assert "File too large" in message
    assert "3 of 6 cases are done and kept" in message
    journal = CaseJournal(tmp_path / "out")
    journal.read()
    assert [entry.outcome for entry in journal.entries.values()] == ["done"] * 3
    assert not list((tmp_path / "out").rglob("*.tmp*"))
    run_inference(bundle, settings)
    assert contents_of(tmp_path / "out") == contents_of(tmp_path / "whole")


def test_an_input_folder_that_goes_away(tmp_path, monkeypatch):
    """A share that is unmounted while it is read: what is done is done, the rest fails with its reason, and is tried
    again when the share is back."""
    write_volumes(tmp_path / "data", 6)
    settings = volume_overrides(tmp_path / "data", tmp_path, output_dir=str(tmp_path / "out"))
    begin = CaseReport.begin

    def begin_and_unmount(self, case):
        begin(self, case)
        if self.num_done == 2:
            (tmp_path / "data").rename(tmp_path / "away")

    monkeypatch.setattr(CaseReport, "begin", begin_and_unmount)
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run_inference("volume_fusion", settings)
    monkeypatch.setattr(CaseReport, "begin", begin)
    assert "3 of 6 cases failed" in error_text(caught.value)
    assert list(outcomes_of(tmp_path / "out").values()) == ["done"] * 3 + ["failed"] * 3
    assert all("must exist; found nothing" in row["reason"] for row in rows_of(tmp_path / "out")[3:])
    (tmp_path / "away").rename(tmp_path / "data")
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*_seg.nii.gz")}
    run_inference("volume_fusion", settings)
    assert set(outcomes_of(tmp_path / "out").values()) == {"done"}
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == when for name, when in times.items())


class TestLocalization:
    @pytest.fixture(scope="class")
    def sources(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("sources")
        torso = {"num_unlabeled": 0, "num_validation": 0, "num_test": 3, "spacing_mm": 12.0, "field_of_view": "abdomen"}
        write_torso_phantoms(folder / "torso", 4, seed=1, **torso)
        torch.manual_seed(0)
        torch.save(MedLAM(base_channels=2, patch_size=(16, 16, 32)).state_dict(), folder / "medlam.pt")
        return {name: folder / name for name in ("torso", "medlam.pt")}

    def test_a_scan_that_is_not_localized_is_one_failed_case(self, sources, tmp_path, monkeypatch):
        from common.inferers.localization import PointsToBoxesd

        call = PointsToBoxesd.__call__

        def fail(self, data):
            if data["case"] == "test_001":
                raise ValueError("nothing looks like a template")
            return call(self, data)

        monkeypatch.setattr(PointsToBoxesd, "__call__", fail)
        configs = ("inference.json", "evaluate.json")
        settings = segmenter_overrides(sources, tmp_path, output_dir=str(tmp_path / "out"))
        with pytest.raises((RuntimeError, ValueError)) as caught:
            run_inference("medlsam", settings, configs)
        assert "1 of 3 cases failed" in error_text(caught.value)
        assert outcomes_of(tmp_path / "out") == {"test_000": "done", "test_001": "failed", "test_002": "done"}
        assert outcomes_of(tmp_path / "out" / "boxes")["test_001"] == "failed"
        assert "nothing looks like" in rows_of(tmp_path / "out" / "boxes")[1]["reason"]
        assert "test_001_boxes.json: must be a file of boxes" in rows_of(tmp_path / "out")[1]["reason"]
        boxes = json.loads((tmp_path / "out" / "boxes" / "boxes.json").read_text())
        assert boxes["num_cases"] == 3
        assert all(organ["num_missed"] >= 1 for organ in boxes["organs"].values() if organ["num_scored"] == 3)
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["num_cases"] == 3
        monkeypatch.setattr(PointsToBoxesd, "__call__", call)
        run_inference("medlsam", settings, configs)
        assert set(outcomes_of(tmp_path / "out").values()) == {"done"}

    def test_a_spoilt_scan_fails_in_both(self, sources, tmp_path):
        shutil.copytree(sources["torso"], tmp_path / "torso")
        (scan,) = (tmp_path / "torso" / "imagesTs").glob("test_002*")
        scan.write_bytes(scan.read_bytes()[:500])
        own = {**sources, "torso": tmp_path / "torso"}
        options = {"output_dir": str(tmp_path / "out"), "allow_failures": True}
        run_inference("medlsam", segmenter_overrides(own, tmp_path, **options))
        assert outcomes_of(tmp_path / "out") == {"test_000": "done", "test_001": "done", "test_002": "failed"}
        assert boxes_file(tmp_path / "out" / "boxes", "test_000").is_file()
        assert not boxes_file(tmp_path / "out" / "boxes", "test_002").exists()

    def test_bad_supports_are_refused_at_once(self, sources, tmp_path):
        shutil.copytree(sources["torso"], tmp_path / "torso")
        (label,) = (tmp_path / "torso" / "labelsTr").iterdir()
        image = nib.load(label)
        label.unlink()
        nib.save(nib.Nifti1Image(np.full(image.shape, 200, np.uint8), image.affine), label)
        own = {**sources, "torso": tmp_path / "torso"}
        with pytest.raises((RuntimeError, ValueError)) as caught:
            run_inference("medlsam", segmenter_overrides(own, tmp_path, output_dir=str(tmp_path / "out")))
        assert "must hold labels in [0, 13); found 200" in error_text(caught.value)


def test_embeddings_on_a_full_disk(tmp_path, monkeypatch):
    """What a cache cannot keep is nothing that a case needs, but half a file it must not leave."""
    network, cache = StubSegmenter(), EmbeddingCache(tmp_path / "cache")
    slices = torch.rand(2, 1, 9, 9)

    def full(_obj, _path):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("common.inferers.embedding_cache.write_atomically", full)
    with pytest.raises(OSError, match="No space left"):
        cache.encode(network, slices, "weights")
    assert not list(tmp_path.rglob("*.pt"))
    monkeypatch.setattr("common.inferers.embedding_cache.write_atomically", write_atomically)
    first = cache.encode(network, slices, "weights")
    assert torch.equal(cache.encode(network, slices, "weights"), first)
