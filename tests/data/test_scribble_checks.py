"""What `check_datalist` says about scribbles."""

import json
import logging

import numpy as np
import pytest

from common.data import DatasetError, check_datalist, inspect_datalist, load_datalist
from common.data.__main__ import check

KEYS = ("image", "scribble")


def strokes(shape=(64, 60, 5)):
    """Thin strokes of three classes, in the convention `user`: 1, 2, and 3 for the background."""
    array = np.zeros(shape, np.uint8)
    array[10:12, 5:50], array[30:33, 10:40], array[50:52, 5:30, 1:4] = 3, 1, 2
    return array


@pytest.fixture
def case(tmp_path, write_nifti):
    """Make a case with this scribble."""

    def make(scribble, **options):
        image = write_nifti(tmp_path / "image.nii.gz", np.zeros(strokes().shape, np.int16))
        path = write_nifti(tmp_path / "scribble.nii.gz", scribble, **options)
        return [{"case": "a", "image": str(image), "scribble": str(path)}]

    return make


def refused(datalist, num_classes=3, **options):
    with pytest.raises(DatasetError) as caught:
        check_datalist(datalist, KEYS, num_classes, **options)
    return str(caught.value)


def test_good_strokes_pass_and_are_counted(case):
    datalist = case(strokes())
    assert check_datalist(datalist, KEYS, num_classes=3) == datalist
    (summary,) = inspect_datalist(datalist, KEYS, num_classes=3)
    assert {c: summary.label_voxels[c] for c in range(3)} == {0: 450, 1: 450, 2: 150}
    assert not summary.warnings


def test_strokes_of_other_conventions_pass(case):
    internal = np.choose(strokes(), [255, 1, 2, 0]).astype(np.uint8)
    for mode in ("internal", "wsl4mis", {255: 255, 0: 0, 1: 1, 2: 2}):
        assert check_datalist(case(internal), KEYS, num_classes=3, scribble_mode=mode)
    assert check_datalist(case(np.where(internal == 255, 3, internal)), KEYS, 3, scribble_mode="scribblebench")


def test_another_grid_or_place(case, affine):
    assert "scribble.nii.gz: must have the size of image.nii.gz; found 64 x 60 x 4 against" in refused(
        case(strokes()[..., 1:])
    )
    moved = affine.copy()
    moved[0, 3] += 3
    assert "scribble.nii.gz: must lie where image.nii.gz lies" in refused(case(strokes(), sform=moved))


def test_fractions(case):
    message = refused(case(strokes() * np.float32(0.5)))
    assert "scribble.nii.gz: must hold whole numbers; found fractions such as 0.5" in message
    assert "Remedy: resample scribbles by nearest neighbor, never linearly" in message


def test_a_class_out_of_range(case):
    array = strokes()
    array[60, 5:9, 2] = 7
    message = refused(case(array))
    assert (
        "scribble.nii.gz: must hold the values of mode 'user': 0, 1, 2, 3; found 7. Remedy: name the right" in message
    )


def test_no_background_stroke(case):
    array = strokes()
    array[array == 3] = 0
    message = refused(case(array))
    assert "must have a background stroke (value 3); found 450 voxels of class 1, 150 voxels of class 2" in message
    assert "Remedy: draw background near the structures and far away, or correct scribble_mode" in message


def test_no_stroke_at_all(case):
    assert "scribble.nii.gz: must have strokes; found none, all voxels are unlabelled" in refused(case(0 * strokes()))


def mask():
    array = np.zeros(strokes().shape, np.uint8)
    array[10:40, 10:40], array[40:55, 15:40] = 1, 2
    return array


@pytest.mark.parametrize(
    ("mode", "found"),
    [("user", "filled structures and no background stroke (value 3)"), ("internal", "100 % of the voxels labelled")],
)
def test_a_mask_is_recognized(case, mode, found):
    message = refused(case(mask()), scribble_mode=mode)
    assert f"scribble.nii.gz: must be strokes, not a mask; found {found}. Remedy: list a mask as `label`" in message


def test_doubtful_strokes_are_logged(case, caplog):
    array = strokes()
    array[array == 2] = 0
    with caplog.at_level(logging.WARNING):
        check_datalist(case(array), KEYS, num_classes=3)
    assert "scribble.nii.gz: class 2 has no stroke" in caplog.text
    thick = mask()
    thick[1:4, 1:50] = 3
    with caplog.at_level(logging.WARNING):
        check_datalist(case(thick), KEYS, num_classes=3)
    assert "strokes are as thick as structures; if this is a mask, list it as `label`" in caplog.text


def test_num_classes_and_mode_are_needed(case):
    with pytest.raises(ValueError, match="num_classes must be given to check scribbles"):
        check_datalist(case(strokes()), KEYS)
    with pytest.raises(ValueError, match="mode must be one of user"):
        check_datalist(case(strokes()), KEYS, num_classes=3, scribble_mode="paint")


def test_channels_are_refused_once(case):
    message = refused(case(np.stack([strokes()] * 2, axis=-1)))
    assert message.startswith("1 problem")
    assert "must have 1 channel; found 2 channels" in message


def test_pictures(tmp_path):
    from PIL import Image

    for name, array in (("image", np.zeros((60, 50), np.uint8)), ("scribble", strokes((60, 50, 1))[..., 0])):
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    datalist = [{"image": str(tmp_path / "image.png"), "scribble": str(tmp_path / "scribble.png")}]
    (summary,) = inspect_datalist(datalist, KEYS, num_classes=4, spatial_dims=2, scribble_mode={0: 255, 1: 1, 3: 0})
    assert summary.label_voxels[0] == 90


def test_command_and_folders(tmp_path, case, write_nifti, caplog):
    """`scribblesTr` beside `imagesTr`, without dataset.json, then with it."""
    root = tmp_path / "set"
    for name in ("a", "b"):
        write_nifti(root / "imagesTr" / f"{name}.nii.gz", np.zeros(strokes().shape, np.int16))
        write_nifti(root / "scribblesTr" / f"{name}.nii.gz", strokes())
    assert [c["case"] for c in load_datalist(root, keys=KEYS, val_fraction=0)] == ["a", "b"]
    entry = {"image": "imagesTr/a.nii.gz", "scribble": "scribblesTr/a.nii.gz"}
    (root / "dataset.json").write_text(json.dumps({"training": [entry]}))
    with caplog.at_level(logging.INFO):
        check(str(root), keys=KEYS, num_classes=3)
    assert "label 0     in 1 cases, 2.34 % of the voxels" in caplog.text
    with pytest.raises(DatasetError, match="must hold the values of mode 'monailabel': 0, 2, 3; found 1"):
        check(str(root), keys=KEYS, num_classes=2, scribble_mode="monailabel")
