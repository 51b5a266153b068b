"""Headers say what reading says."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from common.data.headers import read_header
from common.data.readers import read_volume


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_volume(tmp_path, write_volume, voxels, suffix):
    path = write_volume(tmp_path, voxels, suffix)
    volume, header = read_volume(path), read_header(path)
    assert header.spatial_shape == volume.spatial_shape
    np.testing.assert_allclose(header.spacing_mm, volume.spacing_mm, rtol=1e-4)


def test_a_picture(tmp_path):
    Image.new("RGB", (90, 70)).save(tmp_path / "a.png")
    assert read_header(tmp_path / "a.png") == ((90, 70), None)


def test_what_has_no_header(tmp_path, write_volume, voxels):
    assert read_header(write_volume(tmp_path, voxels, "dicom")) is None
    (tmp_path / "broken.nii.gz").write_bytes(b"nothing")
    (tmp_path / "note.txt").touch()
    assert [read_header(tmp_path / name) for name in ("broken.nii.gz", "note.txt", "missing.nii")] == [None] * 3
