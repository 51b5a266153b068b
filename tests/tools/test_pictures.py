"""Pictures: the right planes, the right way up."""

from __future__ import annotations

import nibabel as nib
import numpy as np
from matplotlib.image import imread
from PIL import Image

from common.data import MaskConvention
from common.tools.pictures import _slice, draw_case, draw_fusion, draw_photograph


def test_planes_are_shown_as_radiologists_look_at_them():
    volume = np.zeros((3, 4, 5))  # RAS
    volume[2, 3, 4] = 1  # right, front, head
    assert _slice(volume, 2, 4)[0, 0] == 1  # axial: right of the patient on the left, front up
    assert _slice(volume, 1, 3)[0, 0] == 1  # coronal: head up
    assert _slice(volume, 0, 2)[0, 0] == 1  # sagittal: front on the left, head up
    assert _slice(volume, 2, 4).shape == (4, 3)


def test_overlays_are_written(tmp_path):
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    image = np.full((40, 44, 24), -1000, dtype=np.int16)
    image[10:30, 10:30, 5:20] = 40
    label = (image > 0).astype(np.uint8)
    for name, array in (("image", image), ("label", label), ("empty", label * 0)):
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    draw_case(tmp_path / "image.nii.gz", tmp_path / "label.nii.gz", tmp_path / "empty.nii.gz", tmp_path / "a.png")
    pixels = imread(tmp_path / "a.png")[..., :3]
    assert np.ptp(pixels, axis=2).max() > 0.1  # the prediction is in color
    draw_case(tmp_path / "image.nii.gz", tmp_path / "empty.nii.gz", None, tmp_path / "b.png")
    assert np.ptp(imread(tmp_path / "b.png")[..., :3], axis=2).max() < 0.01
    draw_fusion(tmp_path / "image.nii.gz", tmp_path / "c.png")
    assert imread(tmp_path / "c.png").shape[0] > 300


def test_contours_of_masks_are_drawn_beside_the_photograph(tmp_path):
    convention = MaskConvention([[0, 254], [0, 0]], [128, 0], 255)
    Image.fromarray(np.full((80, 100, 3), 90, dtype=np.uint8)).save(tmp_path / "image.png")
    mask = np.full((80, 100), 255, dtype=np.uint8)
    Image.fromarray(mask).save(tmp_path / "empty.png")
    mask[20:60, 30:70] = 128
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for name, prediction in (("a", "mask.png"), ("b", "empty.png")):
        files = (tmp_path / "image.png", tmp_path / prediction, None, tmp_path / f"{name}.png")
        draw_photograph(*files, convention, ["disc", "cup"])
    with_contour, without = (imread(tmp_path / f"{name}.png")[..., :3] for name in "ab")
    changed = np.abs(with_contour - without).max(axis=2) > 0.2
    assert changed[:, changed.shape[1] // 2 :].any()
    assert not changed[:, : changed.shape[1] // 2].any()
