"""Every rule of `check_datalist` by its message, and what it lets through."""

import json
import logging
import threading

import numpy as np
import pytest
from monai.bundle import ConfigParser
from PIL import Image

from common.data import DatasetError, check_datalist, inspect_datalist


@pytest.fixture
def case(tmp_path, voxels, write_nifti):
    """A case that breaks no rule: one image, one label map of two classes."""
    label = (voxels > 0).astype(np.uint8)
    return {
        "case": "a",
        "image": str(write_nifti(tmp_path / "image.nii.gz", voxels)),
        "label": str(write_nifti(tmp_path / "label.nii.gz", label)),
    }


def refused(datalist, **kwargs):
    with pytest.raises(DatasetError) as caught:
        check_datalist(datalist, **kwargs)
    for problem in caught.value.problems:
        assert all((problem.rule, problem.found, problem.remedy))
    return str(caught.value)


def test_a_good_list_comes_back(case, caplog):
    with caplog.at_level(logging.INFO):
        assert check_datalist([case], num_classes=2) == [case]
    assert "Checked 1 cases in " in caplog.text


def test_what_a_case_contains(case, voxels):
    (summary,) = inspect_datalist([case], num_classes=2)
    assert summary.case == "a"
    assert summary.spatial_shape == (13, 9, 7)
    assert summary.spacing_mm == pytest.approx((0.8, 1.1, 3.0), abs=1e-5)
    assert summary.intensity_range == (voxels.min(), voxels.max())
    assert summary.label_voxels == {0: int((voxels <= 0).sum()), 1: int((voxels > 0).sum())}


def test_config_composes_listing_and_checking(tmp_path, case):
    entry = {"image": case["image"], "label": case["label"]}
    (tmp_path / "dataset.json").write_text(json.dumps({"training": [entry], "validation": [entry]}))
    parser = ConfigParser(
        {
            "dataset_dir": str(tmp_path),
            "datalist": {
                "_target_": "common.data.check_datalist",
                "datalist": {"_target_": "common.data.load_datalist", "dataset_dir": "@dataset_dir"},
                "num_classes": 2,
            },
        }
    )
    assert parser.get_parsed_content("datalist")[0]["label"] == case["label"]
    parser["datalist"]["num_classes"] = 1
    parser.parse(reset=True)
    with pytest.raises((DatasetError, RuntimeError)) as caught:  # MONAI wraps what a component raises
        parser.get_parsed_content("datalist")
    assert "must hold labels in [0, 1); found 1 in " in f"{caught.value} {caught.value.__cause__}"


def test_an_empty_list_is_refused():
    assert "datalist: must have a case; found an empty list. Remedy: check dataset_dir and section" in refused([])


def test_a_switch_skips_the_reading():
    assert check_datalist([{"image": "/nowhere.nii.gz"}], enabled=False) == [{"image": "/nowhere.nii.gz"}]


def test_spatial_dims_must_be_two_or_three(case):
    with pytest.raises(ValueError, match="spatial_dims must be 2 or 3; found 4"):
        check_datalist([case], spatial_dims=4)


def test_every_problem_of_every_case_is_listed(tmp_path, case, voxels, write_nifti):
    flipped = np.where(voxels > 1400, np.nan, voxels).astype(np.float32)
    broken = write_nifti(tmp_path / "broken.nii.gz", flipped)
    fraction = write_nifti(tmp_path / "fraction.nii.gz", voxels[:, :, 1:] / 7)
    datalist = [
        case | {"image": "/nowhere.nii.gz"},
        {"case": "b", "image": str(broken), "label": str(fraction)},
        {"case": "c", "image": case["image"]},
        case,
    ]
    message = refused(datalist)
    lines = message.splitlines()
    assert lines[0] == "5 problems in the data:"
    assert lines[1].startswith("  /nowhere.nii.gz: must exist; found nothing. Remedy: correct the path")
    count = int((voxels > 1400).sum())
    assert f"{broken}: must be finite; found NaN, infinity or more than 3.4e+38 in {count} voxels of 819" in lines[2]
    assert f"{fraction}: must hold whole numbers; found fractions such as " in lines[3]
    assert f"{fraction}: must have the size of broken.nii.gz; found 13 x 9 x 6 against 13 x 9 x 7" in lines[4]
    assert "c: must have `label`; found `case`, `image`. Remedy: add it, or leave 'label' out of keys" in lines[5]


def test_infinity_is_not_finite(tmp_path, voxels, write_nifti):
    array = voxels.astype(np.float32)
    array[0, 0, 0], array[1, 1, 1] = np.inf, -np.inf
    path = write_nifti(tmp_path / "a.nii", array)
    message = refused([{"image": str(path)}], keys="image")
    assert "must be finite; found NaN, infinity or more than 3.4e+38 in 2 voxels of 819" in message


@pytest.mark.parametrize(
    ("values", "found"),
    [([5], "found 5 in 1 voxel"), ([-1, 255, 255], "found -1, 255 in 3 voxels")],
)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_labels_outside_the_classes(tmp_path, case, voxels, write_nifti, values, found, dtype):
    label = np.zeros(voxels.shape, dtype)
    label.flat[: len(values)] = values
    datalist = [case | {"label": str(write_nifti(tmp_path / "bad.nii.gz", label))}]
    message = refused(datalist, num_classes=3)
    assert f"bad.nii.gz: must hold labels in [0, 3); {found}. Remedy: map them, or set num_classes" in message


def test_many_wrong_labels_are_abridged(tmp_path, case, voxels, write_nifti):
    datalist = [case | {"label": str(write_nifti(tmp_path / "bad.nii.gz", voxels))}]
    assert "must hold labels from 0; found -" in refused(datalist)
    assert "-984, -980, -976 and 262 more values in " in refused(datalist)


def test_ignore_label(tmp_path, case, voxels, write_nifti):
    label = np.where(voxels > 0, 255, 1).astype(np.uint8)
    datalist = [case | {"label": str(write_nifti(tmp_path / "s.nii.gz", label))}]
    assert check_datalist(datalist, num_classes=2, ignore_label=255) == datalist
    assert "in [0, 1) or 255; found 1 in " in refused(datalist, num_classes=1, ignore_label=255)
    assert "in [0, 2); found 255 in " in refused(datalist, num_classes=2)


def test_whole_numbers_stored_as_fractions_pass(tmp_path, case, voxels, write_nifti):
    label = (voxels > 0).astype(np.float64)
    datalist = [case | {"label": str(write_nifti(tmp_path / "l.nii.gz", label))}]
    assert check_datalist(datalist, num_classes=2) == datalist


def test_a_label_elsewhere_is_refused(tmp_path, case, voxels, affine, write_nifti):
    label = (voxels > 0).astype(np.uint8)
    moved = affine.copy()
    moved[:3, 3] += [0, 3, 4]
    datalist = [case | {"label": str(write_nifti(tmp_path / "moved.nii.gz", label, moved))}]
    message = refused(datalist)
    assert "moved.nii.gz: must lie where image.nii.gz lies, within 0.1 mm; found voxels up to 5 mm apart (" in message
    assert "mm, origin -50, 23, 304 against " in message
    assert check_datalist(datalist, tolerance_mm=5.1) == datalist


def test_a_small_rotation_is_refused_where_it_matters(tmp_path, case, voxels, affine, write_nifti):
    angle = 0.02
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = affine @ turn  # no element differs by more than 0.03
    assert np.abs(turned - affine).max() < 0.03
    label = write_nifti(tmp_path / "turned.nii.gz", (voxels > 0).astype(np.uint8), turned)
    assert "must lie where image.nii.gz lies" in refused([case | {"label": str(label)}])


def test_formats_may_be_mixed(tmp_path, case, voxels, write_itk):
    label = write_itk(tmp_path / "label.nrrd", (voxels > 0).astype(np.uint8))
    datalist = [case | {"label": str(label)}]
    assert check_datalist(datalist, num_classes=2) == datalist


def test_time_series_and_colors_are_refused(tmp_path, case, voxels, write_nifti):
    series = write_nifti(tmp_path / "series.nii.gz", np.stack([voxels] * 4, -1))
    datalist = [case | {"image": str(series)}]
    message = refused(datalist)
    assert "series.nii.gz: must have 1 channel; found 4 channels or time points. Remedy: convert it" in message
    assert check_datalist(datalist, in_channels=4) == datalist
    assert "must have 1 channel; found 4" in refused([case | {"label": str(series)}], in_channels=1)


def test_channel_files_are_counted_together(tmp_path, case, voxels, affine, write_nifti):
    second = str(write_nifti(tmp_path / "second.nii.gz", voxels))
    datalist = [case | {"image": [case["image"], second]}]
    assert check_datalist(datalist, in_channels=2) == datalist
    assert "image.nii.gz: must have 1 channel; found 2 channels" in refused(datalist)
    moved = affine.copy()
    moved[0, 3] += 1
    datalist = [case | {"image": [case["image"], str(write_nifti(tmp_path / "moved.nii.gz", voxels, moved))]}]
    assert "moved.nii.gz: must lie where image.nii.gz lies" in refused(datalist, in_channels=2)


def test_one_slice_is_a_volume(tmp_path, voxels, write_nifti):
    datalist = [{"image": str(write_nifti(tmp_path / "a.nii", voxels[:, :, :1]))}]
    assert check_datalist(datalist, "image") == datalist


def test_the_number_of_axes(tmp_path, case, voxels, write_nifti):
    flat = str(write_nifti(tmp_path / "flat.nii.gz", voxels[:, :, 0]))
    assert "must have 3 spatial axes; found 2 (13 x 9). Remedy: use 3D volumes" in refused(
        [{"image": flat}], keys="image"
    )
    assert check_datalist([{"image": flat}], "image", spatial_dims=2)
    message = refused([case], spatial_dims=2)
    assert "image.nii.gz: must have 2 spatial axes; found 3 (13 x 9 x 7). Remedy: use 2D images" in message


def test_pictures(tmp_path):
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 255, (20, 30, 3)).astype(np.uint8)
    mask = (colors[..., 0] > 128).astype(np.uint8)
    paths = {name: str(tmp_path / name) for name in ("a.png", "mask.png", "mask.jpg", "mask.tif", "palette.png")}
    Image.fromarray(colors).save(paths["a.png"])
    Image.fromarray(mask).save(paths["mask.png"])
    Image.fromarray(mask * 255).save(paths["mask.jpg"])
    Image.fromarray(mask.T).save(paths["mask.tif"])
    palette = Image.fromarray(mask, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0])
    palette.save(paths["palette.png"])
    options = {"num_classes": 2, "spatial_dims": 2, "in_channels": 3}
    good = {"case": "a", "image": paths["a.png"], "label": paths["mask.png"]}
    assert check_datalist([good, good | {"label": paths["palette.png"]}], **options)
    assert "a.png: must have 1 channel; found 3 channels" in refused([good], **options | {"in_channels": 1})
    message = refused([good | {"label": paths["mask.jpg"]}], **options)
    assert "Remedy: threshold it and save it as PNG, as JPEG changes labels" in message
    message = refused([good | {"label": paths["mask.tif"]}], **options)
    assert "mask.tif: must have the size of a.png; found 20 x 30 against 30 x 20" in message
    message = refused([{"image": paths["palette.png"]}], keys="image", spatial_dims=2)
    assert "palette.png: must hold intensities; found indices into a palette" in message


def test_doubts_are_logged(tmp_path, case, voxels, affine, write_nifti, caplog):
    qform = affine.copy()
    qform[0, 3] += 5
    check_datalist([{"image": str(write_nifti(tmp_path / "a.nii.gz", voxels, qform=qform))}], "image")
    assert "a.nii.gz: sform and qform place voxels up to 5 mm apart" in caplog.text


@pytest.mark.parametrize("suffix", [".mha", ".nrrd", "dicom"])
def test_many_threads_read_the_same_as_one(tmp_path, write_volume, suffix):
    datalist, sums = [], []
    for i in range(6):
        array = np.random.default_rng(i).integers(0, 50, (13, 9, 7)).astype(np.int16)
        datalist.append({"image": str(write_volume(tmp_path / str(i), array, suffix))})
        sums.append((array.min(), array.max()))
    summaries = inspect_datalist(datalist * 4, "image", num_workers=4)
    assert [summary.intensity_range for summary in summaries] == sums * 4
    assert threading.active_count() < 4


def test_shared_data_passes(shared_data):
    prostate, ct = shared_data / "prostatex_wsl4mis", shared_data / "ct_totalsegmentator"
    labelled = [
        {"image": str(prostate / "Prostatex_0000.nii.gz"), "label": str(prostate / "Prostatex_0000_lab.nii.gz")},
        {"image": str(ct / "abdomen_pelvis.nii.gz"), "label": str(ct / "abdomen_pelvis_label.nii.gz")},
        {"image": str(ct / "heart_a.nii.gz"), "label": str(ct / "heart_a_aorta.nii.gz")},
    ]
    assert len(inspect_datalist(labelled)) == 3
    scribble = {"image": labelled[0]["image"], "scribble": str(prostate / "Prostatex_0000_scribble.nii.gz")}
    (summary,) = inspect_datalist([scribble], ("image", "scribble"), num_classes=3, scribble_mode="wsl4mis")
    assert {c: summary.label_voxels[c] for c in range(3)} == {0: 9178, 1: 3544, 2: 267}
    assert not summary.warnings
    message = refused([scribble], keys=("image", "scribble"), num_classes=3)
    assert "must hold the values of mode 'user': 0, 1, 2, 3; found 255. Remedy: name the right convention" in message
