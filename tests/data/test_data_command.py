"""`python -m common.data check`, as a user runs it."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import common
from common.data.__main__ import main


@pytest.fixture
def dataset(tmp_path, voxels, write_nifti):
    entries = []
    for name, size in (("a", 13), ("b", 10)):
        write_nifti(tmp_path / f"{name}.nii.gz", voxels[:size])
        write_nifti(tmp_path / f"{name}_label.nii.gz", (voxels[:size] > 0).astype(np.uint8))
        entries.append({"image": f"{name}.nii.gz", "label": f"{name}_label.nii.gz"})
    (tmp_path / "dataset.json").write_text(json.dumps({"training": entries}))
    return tmp_path


@pytest.fixture
def check(monkeypatch, caplog):
    """Run the command in this process; return its log, or what it exits with."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["common.data", "check", *arguments])
        with caplog.at_level(logging.INFO):
            try:
                main()
            except SystemExit as end:
                return end.code
        return caplog.text

    return run


def test_a_good_data_set_is_summarized(dataset, voxels, check, monkeypatch):
    monkeypatch.chdir(dataset)
    log = check("--dataset_dir", ".", "--keys", "image,label", "--num_classes", "2")
    for line in (
        f"{dataset} holds training (2)",
        "cases       2",
        "size        10..13 x 9 x 7",
        "spacing_mm  0.8 x 1.1 x 3",
        f"intensity   {voxels.min()} to {voxels.max()}",
        "label 1     in 2 cases, ",
    ):
        assert line in log


def test_images_alone(dataset, check):
    log = check("--dataset_dir", str(dataset), "--keys", "image")
    assert "cases       2" in log
    assert "label 0" not in log


def test_a_missing_section_is_refused(dataset, check):
    assert "must have a section `test`; found training (2)" in check("--dataset_dir", str(dataset), "--section", "test")


def test_problems_end_with_status_one_and_without_traceback(dataset):
    (dataset / "b.nii.gz").write_bytes((dataset / "b.nii.gz").read_bytes()[:1000])
    (dataset / "a_label.nii.gz").unlink()
    environment = os.environ | {"PYTHONPATH": str(Path(common.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "common.data", "check", "--dataset_dir", str(dataset)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 1
    assert "2 problems in the data:" in result.stderr
    assert "a_label.nii.gz: must exist; found nothing. Remedy: " in result.stderr
    assert "b.nii.gz: must open; found a gzip stream that is cut off (1,000 bytes). Remedy: " in result.stderr
    assert "Traceback" not in result.stderr
    assert "cases " not in result.stdout
