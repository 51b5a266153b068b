"""The contract of every inference config: what is written has the geometry of what was read, for every format."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import (
    AsDiscreted,
    Compose,
    Invertd,
    LoadImaged,
    Orientationd,
    SaveImaged,
    Spacingd,
)

from common.data.readers import read_volume


def predict_and_save(image_path, output_dir):
    """Read, reorient, resample, "predict", undo and write, with stock transforms as in an inference config."""
    preprocessing = Compose(
        [
            LoadImaged("image", ensure_channel_first=True),
            Orientationd("image", axcodes="RAS", labels=None),
            Spacingd("image", pixdim=(1.0, 1.0, 1.5), mode="bilinear"),
        ]
    )
    batch = list_data_collate([preprocessing({"image": str(image_path)})])
    batch["pred"] = MetaTensor((batch["image"] > 0).float())  # no metadata, as from a network
    batch["pred"] = torch.cat([1 - batch["pred"], batch["pred"]], dim=1)
    postprocessing = Compose(
        [
            Invertd("pred", preprocessing, orig_keys="image", nearest_interp=False, to_tensor=True),
            AsDiscreted("pred", argmax=True),
            SaveImaged(
                "pred",
                output_dir=str(output_dir),
                output_postfix="seg",
                output_ext=".nii.gz",
                output_dtype=np.uint8,
                separate_folder=False,
                resample=False,
                print_log=False,
            ),
        ]
    )
    for item in decollate_batch(batch):
        postprocessing(item)
    (written,) = output_dir.glob("*.nii.gz")
    return written


def ball(shape, affine):
    """A bright ball, in mm, that no axis or sign is symmetric to."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    center = np.array(shape) * [0.3, 0.6, 0.4]
    distance_mm = np.linalg.norm((grid - center) @ affine[:3, :3].T, axis=-1)
    return np.where(distance_mm < 7, 800, -800).astype(np.int16)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", "dicom"])
def test_prediction_lies_on_its_image(tmp_path, affine, write_volume, suffix):
    array = ball((31, 26, 17), affine)
    path = write_volume(tmp_path / "in", array, suffix)
    written = nib.load(predict_and_save(path, tmp_path / "out"))
    assert written.shape == array.shape
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    np.testing.assert_allclose(written.get_qform(), affine, atol=1e-4)
    assert nib.aff2axcodes(written.affine) == nib.aff2axcodes(affine)
    prediction, truth = np.asarray(written.dataobj) > 0, array > 0
    dice = 2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())
    assert dice > 0.95  # resampled twice; a shift of one voxel costs more


@pytest.mark.parametrize("axes", ["LPS", "SAR", "AIL"])
def test_prediction_keeps_other_orientations(tmp_path, affine, write_nifti, axes):
    canonical = nib.Nifti1Image(ball((31, 26, 17), affine), affine)
    to_axes = nib.orientations.ornt_transform(nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes)))
    image = canonical.as_reoriented(to_axes)
    path = write_nifti(tmp_path / "in/image.nii.gz", np.asarray(image.dataobj), image.affine)
    written = nib.load(predict_and_save(path, tmp_path / "out"))
    assert written.shape == image.shape
    np.testing.assert_allclose(written.affine, image.affine, atol=1e-4)


def test_prediction_keeps_a_sheared_affine(tmp_path, affine):
    sheared = affine @ np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(ball((31, 26, 17), affine), sheared), tmp_path / "image.nii.gz")
    written = nib.load(predict_and_save(tmp_path / "image.nii.gz", tmp_path / "out"))
    assert written.shape == (31, 26, 17)
    np.testing.assert_allclose(written.affine, sheared, atol=1e-4)


def test_prediction_lies_on_shared_images(tmp_path, shared_data):
    for name in ("ct_totalsegmentator/heart_b.nii.gz", "ct_elastix_lung_small/3DCT_lung_baseline_small.mha"):
        volume = read_volume(shared_data / name)
        out = tmp_path / name.split("/")[0]
        written = nib.load(predict_and_save(shared_data / name, out))
        assert written.shape == volume.spatial_shape
        np.testing.assert_allclose(written.affine, volume.affine, atol=1e-4)
