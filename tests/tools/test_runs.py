"""Bundles as processes."""

from __future__ import annotations

import pytest

from common.tools.demo import demo
from common.tools.runs import bundle_command, ensure_phantoms, find_bundles, run_bundle


def test_command_is_what_a_user_types():
    (bundle,) = (path for path in find_bundles() if path.name == "volume_fusion")
    command = bundle_command(bundle, ["train.json"], {"roi_size": [8, 16, 16], "device": "cpu", "resume": True})
    assert command[1:5] == ["-m", "monai.bundle", "run", "--config_file"]
    assert command[5] == repr([str(bundle / "configs" / "train.json")])
    assert command[6:] == ["--roi_size", "[8, 16, 16]", "--device", "cpu", "--resume", "True"]


def test_a_failed_run_is_an_error_with_the_end_of_its_log(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_text('{"run": ["$1 / 0"]}')
    with pytest.raises(RuntimeError, match=r"ended with exit status 1; the end of .*log.txt(.|\n)*1 / 0"):
        run_bundle(tmp_path, ["train.json"], {}, tmp_path / "log.txt", num_threads=1)


def test_demo_of_an_unknown_bundle_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no bundle 'unet'; there are .*volume_fusion"):
        demo(str(tmp_path), bundle="unet")


def test_interrupted_phantoms_are_written_anew(tmp_path):
    def write(folder, num_cases):
        folder.mkdir()
        (folder / "dataset.json").write_text(str(num_cases))

    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "half_written.nii.gz").touch()
    for num_cases in (3, 4):  # the second finds them there
        ensure_phantoms(write, tmp_path / "data", {"num_cases": num_cases})
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["dataset.json"]
    assert (tmp_path / "data" / "dataset.json").read_text() == "3"
