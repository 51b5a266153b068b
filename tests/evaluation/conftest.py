"""Cases, folders and label sets that the tests of `common.evaluation` write."""

import json
import logging
import sys

import nibabel as nib
import numpy as np
import pytest

from common.evaluation.__main__ import main
from common.evaluation.structures import load_label_set

AFFINE = np.array([[-0.8, 0, 0, 10], [0, -1.0, 0, 20], [0, 0, 3.0, -30], [0, 0, 0, 1]], dtype=float)


@pytest.fixture
def affine():
    """LPS axes, anisotropic."""
    return AFFINE.copy()


@pytest.fixture
def write():
    """Write a NIfTI file and return its path."""

    def write_nifti(path, array, affine=AFFINE):
        path.parent.mkdir(parents=True, exist_ok=True)
        array = np.asarray(array)
        nib.save(nib.Nifti1Image(array.astype(np.uint8) if array.dtype == bool else array, affine), path)
        return path

    return write_nifti


@pytest.fixture
def label_file(tmp_path):
    """A label set of two structures with different tolerances."""
    path = tmp_path / "labels.json"
    structures = [{"name": "liver", "label": 1, "nsd_tolerance_mm": 2.0}, {"name": "spleen", "label": 2}]
    path.write_text(json.dumps({"title": "Two organs", "structures": structures}))
    return path


@pytest.fixture
def label_set(label_file):
    return load_label_set(label_file)


@pytest.fixture
def label_map():
    """A label map with both structures, shifted by a number of voxels along the first axis."""

    def make(shift=0, spleen=True):
        labels = np.zeros((16, 12, 8), dtype=np.uint8)
        labels[2 + shift : 8 + shift, 3:9, 2:6] = 1
        if spleen:
            labels[9 + shift : 12 + shift, 4:8, 2:6] = 2
        return labels

    return make


@pytest.fixture
def folders(tmp_path, write, label_map):
    """References `a b c`, and predictions moved by 0, 1 and 2 voxels."""
    for shift, case in enumerate("abc"):
        write(tmp_path / "references" / f"{case}.nii.gz", label_map())
        write(tmp_path / "predictions" / f"{case}.nii.gz", label_map(shift))
    return tmp_path


@pytest.fixture
def command(monkeypatch, caplog):
    """Run `python -m common.evaluation` in this process; return exit status (None: success) and log."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["common.evaluation", *map(str, arguments)])
        caplog.clear()
        with caplog.at_level(logging.INFO):
            try:
                main()
            except SystemExit as end:
                return end.code, caplog.text
        return None, caplog.text

    return run
