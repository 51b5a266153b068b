"""Label maps are written whole or not at all, in the grid of their scan."""

from __future__ import annotations

import errno

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, NibabelWriter

from common.files import remove_temporaries, whole_file
from common.transforms import NameByCased, SaveImaged

AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, 3.0, 11], [0, 0, 0, 1]])


def save(folder, shape, **options):
    label = MetaTensor(torch.randint(0, 3, (1, *shape), dtype=torch.uint8), affine=torch.tensor(AFFINE))
    label.meta["filename_or_obj"] = "scan.nii.gz"
    data = NameByCased("pred")({"pred": label, "case": "patient.1"})
    return label, SaveImaged("pred", folder, output_dtype=torch.uint8, **options)(data)


@pytest.mark.parametrize("shape", [(4, 5, 6), (4, 5, 1), (1, 5, 6), (1, 1, 1), (4, 1, 1)])
def test_every_axis_stays(tmp_path, shape):
    label, saved = save(tmp_path, shape)
    assert saved["saved"] == [str(tmp_path / "patient.1_seg.nii.gz")]
    image = nib.load(saved["saved"][0])
    assert image.shape == shape
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(image.affine, AFFINE)
    np.testing.assert_array_equal(np.asarray(image.dataobj), label[0].numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["patient.1_seg.nii.gz"]


def test_twice_the_same_bytes(tmp_path):
    label, _ = save(tmp_path, (4, 5, 6))
    path = tmp_path / "patient.1_seg.nii.gz"
    first = path.read_bytes()
    SaveImaged("pred", tmp_path, output_dtype=torch.uint8)({"pred": label})
    assert path.read_bytes() == first


def test_another_format(tmp_path):
    _, saved = save(tmp_path, (4, 5, 6), output_ext=".nii", output_postfix="mask")
    assert saved["saved"] == [str(tmp_path / "patient.1_mask.nii")]
    assert nib.load(saved["saved"][0]).shape == (4, 5, 6)


def test_an_error_arrives_as_it_was_and_leaves_the_old_file(tmp_path, monkeypatch):
    save(tmp_path, (4, 5, 6))
    path = tmp_path / "patient.1_seg.nii.gz"
    before = path.read_bytes()

    def full(self, filename, **_):
        filename.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(NibabelWriter, "write", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, (4, 5, 6))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_without_geometry_it_refuses(tmp_path):
    with pytest.raises(TypeError, match="must be a MetaTensor"):
        SaveImaged("pred", tmp_path)({"pred": torch.zeros(1, 2, 2, 2)})


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with whole_file(path, ".bin") as temporary:
        temporary.write_bytes(b"1")
        assert not path.exists()
    assert path.read_bytes() == b"1"
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass  # nothing was written
    assert path.read_bytes() == b"1"
    assert list(path.parent.iterdir()) == [path]


def test_only_leftovers_are_removed(tmp_path):
    keep = ["a.nii.gz", ".hidden", ".a.tmp", "a.123.tmp"]
    gone = [".a.nii.gz.123.tmp", ".a.nii.gz.123.tmp.nii.gz", ".p_mask.png.9.tmp.png"]
    for name in (*keep, *gone):
        (tmp_path / name).write_text("")
    assert sorted(path.name for path in remove_temporaries(tmp_path)) == sorted(gone)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(keep)
