"""The box of the patient: table and air go, in every orientation, and the crop can be undone."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, LoadImaged

from common.transforms.body_crop import CropBodyd, body_box

AFFINE = np.diag([2.0, 2.0, 5.0, 1.0])  # RAS, mm


@pytest.fixture
def patient():
    """An elliptic body with lungs of air on a thin, wide table, 80 x 60 pixels of 2 mm, 20 slices of 5 mm."""
    x, y = np.meshgrid(np.arange(80), np.arange(60), indexing="ij")
    radius = np.hypot((x - 38) / 25, (y - 33) / 18)
    body = np.where(radius <= 1, 40, -1000)
    body[np.hypot((x - 28) / 10, (y - 33) / 12) <= 1] = -850
    body[np.hypot((x - 48) / 10, (y - 33) / 12) <= 1] = -850
    body[5:75, 8:10] = 200  # 4 mm thick
    volume = np.repeat(body[:, :, None], 20, axis=2).astype(np.float32)
    volume[60:70, 50:58, :5] = 40  # an arm in a quarter of the slices
    volume[0, 0] = -3024  # padding outside the field of view
    return volume


def as_case(volume, affine=AFFINE):
    image = MetaTensor(volume[None].copy(), affine=torch.as_tensor(np.ascontiguousarray(affine)))
    return {"image": image, "label": MetaTensor((image > 0).as_tensor(), affine=image.affine)}


def test_table_and_air_are_cut_off(patient):
    box = body_box(torch.as_tensor(patient[None]), AFFINE)
    # The ellipse spans 13..63 x 15..51; the opening rounds its ends by less than a pixel.
    for found, (start, stop) in zip(box, [(13, 64), (15, 52), (0, 20)], strict=True):
        assert abs(found.start - start) <= 1
        assert abs(found.stop - stop) <= 1
    assert box[2] == slice(0, 20)


def test_a_smaller_share_of_the_slices_keeps_more(patient):
    patient[60:72, 30:36, :8] = 40  # something that sticks out in 40 % of the slices
    image = torch.as_tensor(patient[None])
    assert body_box(image, AFFINE, min_fraction=0.6)[0].stop <= 64
    assert body_box(image, AFFINE, min_fraction=0.3)[0].stop == 72


@pytest.mark.parametrize("axcodes", ["LPS", "SAR", "ASL", "IRP"])
def test_the_axial_plane_is_found_in_any_orientation(patient, axcodes):
    image = nib.Nifti1Image(patient, AFFINE)
    to_axes = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), nib.orientations.axcodes2ornt(tuple(axcodes)))
    turned = image.as_reoriented(to_axes)
    cropped = CropBodyd(["image", "label"])(as_case(np.asarray(turned.dataobj), turned.affine))
    expected = CropBodyd(["image", "label"])(as_case(patient))
    for key in ("image", "label"):
        back = nib.Nifti1Image(cropped[key][0].numpy().astype(np.float32), cropped[key].affine.numpy())
        back = nib.as_closest_canonical(back)
        np.testing.assert_array_equal(np.asarray(back.dataobj), expected[key][0].numpy().astype(np.float32))
        np.testing.assert_allclose(back.affine, expected[key].affine.numpy())


def test_a_tilted_scan_is_cropped_too(patient):
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert body_box(torch.as_tensor(patient[None]), turn @ AFFINE) == body_box(torch.as_tensor(patient[None]), AFFINE)


@pytest.mark.parametrize("value", [-1000.0, -3024.0, 0.0, 500.0])
def test_no_body_and_nothing_but_body_are_left_alone(value):
    """Air alone, padding alone, and what is no CT: all above the threshold."""
    case = as_case(np.full((9, 8, 7), value, np.float32))
    assert CropBodyd("image")(case)["image"].shape == (1, 9, 8, 7)


def test_noise_without_a_body_is_left_alone():
    volume = np.full((20, 20, 6), -1000, np.float32)
    volume[3, 4], volume[10:12, 10] = 100, 100  # thinner than the opening
    assert body_box(torch.as_tensor(volume[None]), AFFINE) == (slice(0, 20), slice(0, 20), slice(0, 6))


def test_a_body_cut_by_the_field_of_view_keeps_its_side():
    volume = np.full((40, 40, 6), -1000, np.float32)
    volume[:25, 10:] = 0
    assert body_box(torch.as_tensor(volume[None]), AFFINE)[:2] == (slice(0, 25), slice(10, 40))


def test_invertd_gives_back_size_place_and_affine(patient):
    preprocessing = Compose([CropBodyd(["image", "label"])])
    case = as_case(patient)
    cropped = preprocessing(case)
    assert cropped["image"].shape[1:] == cropped["label"].shape[1:]
    cropped["pred"] = MetaTensor((cropped["image"] > 0).as_tensor())
    restored = Invertd("pred", preprocessing, orig_keys="image")(cropped)["pred"]
    assert restored.shape == case["image"].shape
    torch.testing.assert_close(restored.affine, case["image"].affine)
    box = body_box(case["image"], AFFINE)
    expected = torch.zeros_like(restored.as_tensor())
    expected[(slice(None), *box)] = (case["image"].as_tensor() > 0)[(slice(None), *box)].to(expected.dtype)
    torch.testing.assert_close(restored.as_tensor(), expected)


def test_what_it_refuses(patient):
    with pytest.raises(TypeError, match=r"'image' must be a MetaTensor, whose .*; found Tensor. Load it"):
        CropBodyd("image")({"image": torch.as_tensor(patient[None])})
    with pytest.raises(ValueError, match=r"image must be one channel of a volume.*found shape \(2, 3, 4, 5\)"):
        body_box(torch.zeros(2, 3, 4, 5), AFFINE)
    with pytest.raises(ValueError, match=r"found shape \(1, 4, 5\)"):
        body_box(torch.zeros(1, 4, 5), AFFINE)


def test_real_abdomen(shared_data):
    path = str(shared_data / "ct_crlm_1004/ct.nii.gz")
    image = LoadImaged("image", ensure_channel_first=True)({"image": path})["image"]
    cropped = CropBodyd("image")({"image": image})["image"]
    width_mm, height_mm, length_mm = (np.array(cropped.shape[1:]) * cropped.pixdim.numpy()).tolist()
    assert 250 < width_mm < 330  # looked at: the patient is 287 mm x 214 mm
    assert 190 < height_mm < 240
    assert length_mm == pytest.approx(41 * 5)
    assert (cropped > -600).float().mean() > 2 * (image > -600).float().mean()
    assert not (cropped == -3024).any()
