"""Scribbles: drawn into masks, cut, converted, carried through spatial transforms, written to files."""

import logging
import sys

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandAffined, RandFlipd, RandRotated, Rotated, SpatialPadd
from PIL import Image
from scipy import ndimage

from common.data.scribbles import UNLABELLED, conversion_table, convert_scribble, user_convention
from common.transforms import CutScribbled, GenerateScribbled, ScribbleConvertd, ShiftScribbled, UnshiftScribbled
from common.transforms.scribbles import cut_scribble, generate_scribble
from common.transforms.scribbles.__main__ import main
from common.transforms.scribbles.strokes import brush, longest_path

NUM_CLASSES = 4
U = UNLABELLED


def cardiac_slice(radius=16.0, shape=(96, 80)):
    """A ring around a disk, a crescent beside them, as in a short-axis slice."""
    i, j = np.indices(shape)
    from_axis = np.hypot(i - 52, j - 40)
    label = np.zeros(shape, np.uint8)
    label[np.hypot(i - 30, j - 40) < 1.3 * radius] = 1
    label[from_axis < radius + 8] = 2
    label[from_axis < radius] = 3
    return label


@pytest.fixture(scope="module")
def label():
    """Base without structures, four slices that get smaller, apex without structures."""
    empty = np.zeros((96, 80), np.uint8)
    return np.stack([empty, *(cardiac_slice(r) for r in (18, 16, 12, 7)), empty], axis=2)


def wrong(scribble, truth):
    drawn = scribble != U
    return int((scribble[drawn] != truth[drawn]).sum())


# --- drawing


@pytest.mark.parametrize("options", [{"width": 1}, {}, {"width": 7, "border_stroke": True}])
def test_no_pixel_is_wrong_and_every_class_is_drawn(label, options):
    scribble = generate_scribble(label, NUM_CLASSES, "a", **options)
    assert scribble.shape == label.shape
    assert scribble.dtype == np.uint8
    assert set(np.unique(scribble)) == {0, 1, 2, 3, U}
    assert wrong(scribble, label) == 0
    for k in range(label.shape[2]):
        assert set(np.unique(scribble[..., k])) - {U} == set(np.unique(label[..., k]))


def test_strokes_cover_about_what_experts_draw(label):
    """Expert scribbles of ACDC cover 12, 17 and 9 % of the structures, and 0.7 % of the slice as background."""
    scribble = generate_scribble(label[..., 1:5], NUM_CLASSES, "a")
    for number in (1, 2, 3):
        assert 0.03 < (scribble == number).sum() / (label == number).sum() < 0.3
    assert 0.005 < (scribble == 0).mean() < 0.09  # of a small image


def test_a_case_is_drawn_the_same_each_time_and_others_differently(label):
    first = generate_scribble(label, NUM_CLASSES, "a", seed=3)
    np.testing.assert_array_equal(first, generate_scribble(label, NUM_CLASSES, "a", seed=3))
    assert (first != generate_scribble(label, NUM_CLASSES, "b", seed=3)).any()
    assert (first != generate_scribble(label, NUM_CLASSES, "a", seed=4)).any()


def test_a_stroke_depends_on_its_own_slice_and_class_alone(label):
    everything = generate_scribble(label, NUM_CLASSES, "a")
    changed = label.copy()
    changed[..., 1] = 0  # another slice
    changed[..., 3][label[..., 3] == 1] = 0  # another class
    scribble = generate_scribble(changed, NUM_CLASSES, "a")
    np.testing.assert_array_equal(scribble[..., 2], everything[..., 2])
    for number in (2, 3):
        np.testing.assert_array_equal(scribble[..., 3] == number, everything[..., 3] == number)


def test_the_axis_of_the_slices(label):
    turned = np.moveaxis(label, 2, 0)
    scribble = generate_scribble(turned, NUM_CLASSES, "a", slice_axis=0)
    np.testing.assert_array_equal(np.moveaxis(scribble, 0, 2), generate_scribble(label, NUM_CLASSES, "a"))


def test_the_background_has_an_arc_around_the_structures(label):
    scribble = generate_scribble(label, NUM_CLASSES, "a", width=1)
    for k in range(1, 5):
        distance = ndimage.distance_transform_edt(label[..., k] == 0)[scribble[..., k] == 0]
        assert distance.size > 60
        assert 4 < distance.min() < distance.max() < 16


def test_a_disk_gets_a_stroke_across(label):
    """The skeleton of a disk is a dot; a person would draw a line."""
    disk = np.zeros((64, 64), np.uint8)
    disk[np.hypot(*(np.indices((64, 64)) - 32)) < 15] = 1
    for case in range(10):
        pixels = np.argwhere(generate_scribble(disk, 2, str(case), width=1) == 1)
        assert np.linalg.norm(pixels.max(axis=0) - pixels.min(axis=0)) > 6


def test_each_part_of_a_structure_has_a_stroke_but_specks_have_none():
    label = np.zeros((60, 60), np.uint8)
    label[5:20, 5:20] = label[40:50, 30:55] = label[30, 3:9] = 1
    scribble = generate_scribble(label, 2, "a")
    parts, _ = ndimage.label(label)
    assert {int(parts[tuple(p)]) for p in np.argwhere(scribble == 1)} == {int(parts[5, 5]), int(parts[40, 30])}


def test_unknown_pixels_are_never_drawn(label):
    unknown = label.copy()
    unknown[40:60] = U
    assert (generate_scribble(unknown, NUM_CLASSES, "a")[40:60] == U).all()


def test_a_full_slice_has_no_background_stroke():
    scribble = generate_scribble(np.ones((20, 20), np.uint8), 2, "a")
    assert set(np.unique(scribble)) == {1, U}


@pytest.mark.parametrize(("fraction", "slices"), [(1.0, 6), (0.5, 3), (0.25, 1), (0.01, 1)])
def test_slice_fraction(label, fraction, slices):
    scribble = generate_scribble(label, NUM_CLASSES, "a", slice_fraction=fraction)
    annotated = (scribble != U).any(axis=(0, 1))
    assert annotated.sum() == slices
    assert annotated[1:5].any()
    full = generate_scribble(label, NUM_CLASSES, "a")
    np.testing.assert_array_equal(scribble[..., annotated], full[..., annotated])


def test_fewer_pixels_are_part_of_more(label):
    strokes = generate_scribble(label, NUM_CLASSES, "a")
    previous = strokes
    for fraction in (0.5, 0.25, 0.1):
        scribble = generate_scribble(label, NUM_CLASSES, "a", pixel_fraction=fraction)
        kept = scribble != U
        assert (previous[kept] == scribble[kept]).all()
        assert kept.sum() == pytest.approx(fraction * (strokes != U).sum(), rel=0.03)
        for k in range(label.shape[2]):
            assert set(np.unique(scribble[..., k])) == set(np.unique(strokes[..., k]))
        previous = scribble


def test_a_cut_stroke_is_one_piece():
    scribble = np.full((9, 60), U, np.uint8)
    scribble[3:6, 4:54] = 1
    for case in range(5):
        kept = cut_scribble(scribble, 0.3, str(case)) == 1
        assert kept.sum() == 45
        assert ndimage.label(kept, np.ones((3, 3)))[1] == 1


def test_slipping_strokes_leave_their_class(label):
    scribble = generate_scribble(label, NUM_CLASSES, "a", border_stroke=True, label_noise_px=4)
    share = wrong(scribble, label) / (scribble != U).sum()
    assert 0.005 < share < 0.3


def test_longest_path_drops_spurs():
    skeleton = np.zeros((7, 9), bool)
    skeleton[3, 1:8] = True
    skeleton[1:3, 4] = True
    np.testing.assert_array_equal(sorted(longest_path(skeleton).tolist()), [[3, j] for j in range(1, 8)])
    single = np.zeros((3, 3), bool)
    single[1, 2] = True
    np.testing.assert_array_equal(longest_path(single), [[1, 2]])


def test_brush_is_round_and_stays_in_the_image():
    assert brush(np.array([[4, 4]]), 1, (9, 9)).sum() == 1
    assert brush(np.array([[4, 4]]), 3, (9, 9)).sum() == 9
    assert brush(np.array([[4, 4]]), 5, (9, 9)).sum() == 21
    assert brush(np.array([[0, 0]]), 3, (9, 9)).sum() == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"width": 2}, ValueError, "width must be odd and at least 1, so that a stroke has a middle; found 2"),
        ({"width": 1.5}, TypeError, r"width must be a whole number of pixels; found 1\.5"),
        ({"label_noise_px": -1}, ValueError, "label_noise_px must be at least 0; found -1"),
        ({"slice_fraction": 0}, ValueError, r"slice_fraction must be in \(0, 1\]; found 0"),
        ({"pixel_fraction": 1.5}, ValueError, r"pixel_fraction must be in \(0, 1\]; found 1\.5"),
        ({"num_classes": 3}, ValueError, r"label must hold whole numbers in \[0, 3\), or 255; found 3"),
    ],
)
def test_drawing_options_are_refused_by_message(label, options, error, message):
    with pytest.raises(error, match=message):
        generate_scribble(label, **{"num_classes": NUM_CLASSES, **options})


def test_labels_that_are_none_are_refused(label):
    with pytest.raises(ValueError, match=r"label must hold whole numbers in \[0, 4\), or 255; found 0\.5"):
        generate_scribble(np.full((8, 8), 0.5), NUM_CLASSES)
    with pytest.raises(ValueError, match=r"label must have 2 or 3 axes, without channels; found shape \(1, 96"):
        generate_scribble(label[None], NUM_CLASSES)


def test_left_ventricles_of_patients(shared_data):
    """Sunnybrook: masks of the cavity."""
    paths = sorted((shared_data / "cardiac_sunnybrook" / "Labels").glob("*.png"))[::30]
    for path in paths:
        mask = (np.asarray(Image.open(path).convert("L")) > 127).astype(np.uint8)
        scribble = generate_scribble(mask, 2, path.stem)
        assert wrong(scribble, mask) == 0
        assert 0.02 < (scribble == 1).sum() / mask.sum() < 0.7
        assert (scribble == 0).sum() > 50


# --- as transforms


def meta_label(label, spacing=(1.5, 1.5, 8.0)):
    return MetaTensor(torch.as_tensor(label)[None].float(), affine=torch.diag(torch.tensor([*spacing, 1.0])))


def test_generate_transform_draws_along_the_coarse_axis_and_keeps_geometry(label):
    data = {"case": "a", "label": meta_label(np.moveaxis(label, 2, 1), (1.5, 8.0, 1.5))}
    out = GenerateScribbled(num_classes=NUM_CLASSES)(data)
    assert "scribble" not in data
    assert out["scribble"].dtype == torch.uint8
    torch.testing.assert_close(out["scribble"].affine, data["label"].affine)
    expected = generate_scribble(label, NUM_CLASSES, "a")
    np.testing.assert_array_equal(np.moveaxis(out["scribble"][0].numpy(), 1, 2), expected)


def test_generate_transform_in_2d_and_without_metadata():
    plane = cardiac_slice()
    out = GenerateScribbled("mask", "strokes", NUM_CLASSES, width=1)({"case": "b", "mask": plane[None]})
    np.testing.assert_array_equal(out["strokes"][0], generate_scribble(plane, NUM_CLASSES, "b", width=1))


def test_generate_transform_refuses_by_message(label):
    with pytest.raises(KeyError, match="the data must have a name under 'case'"):
        GenerateScribbled(num_classes=NUM_CLASSES)({"label": label[None]})
    with pytest.raises(ValueError, match=r"'label' must be one channel first.*found shape \(96, 80\)"):
        GenerateScribbled(num_classes=NUM_CLASSES)({"case": "a", "label": label[..., 0]})
    with pytest.raises(ValueError, match="width must be odd"):
        GenerateScribbled(num_classes=NUM_CLASSES, width=4)
    with pytest.raises(ValueError, match="output_key must name as many keys as keys"):
        GenerateScribbled(["a", "b"], num_classes=NUM_CLASSES)


def test_cut_transform(label):
    scribble = generate_scribble(label, NUM_CLASSES, "a")
    out = CutScribbled(pixel_fraction=0.25)({"case": "a", "scribble": meta_label(scribble)})
    assert out["scribble"].dtype == torch.float32
    np.testing.assert_array_equal(out["scribble"][0].numpy(), cut_scribble(scribble, 0.25, "a"))
    with pytest.raises(ValueError, match="pixel_fraction must be in"):
        CutScribbled(pixel_fraction=0)


# --- conventions

CONVENTIONS = [
    ("user", 4, [0, 1, 2, 3, 4], [U, 1, 2, 3, 0]),
    ("wsl4mis", 4, [0, 1, 2, 3, 4, 255], [0, 1, 2, 3, U, U]),
    ("scribblebench", 3, [0, 1, 2, 3], [0, 1, 2, U]),
    ("monailabel", 2, [0, 2, 3], [U, 0, 1]),
    ("internal", 3, [0, 1, 2, 255], [0, 1, 2, U]),
    ({"7": 0, "1": 1, "0": 255}, 2, [7, 1, 0], [0, 1, U]),
    ({-1: 255, 500: 0, 3: 2}, 3, [-1, 500, 3], [U, 0, 2]),
]


@pytest.mark.parametrize(("mode", "num_classes", "stored", "expected"), CONVENTIONS)
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_every_convention(mode, num_classes, stored, expected, dtype):
    array = np.array(stored, dtype).reshape(1, -1, 1)
    np.testing.assert_array_equal(convert_scribble(array, mode, num_classes).ravel(), expected)
    out = ScribbleConvertd(mode=mode, num_classes=num_classes)({"scribble": MetaTensor(torch.as_tensor(array))})
    assert out["scribble"].dtype == torch.uint8
    assert isinstance(out["scribble"], MetaTensor)
    np.testing.assert_array_equal(out["scribble"].numpy().ravel(), expected)


def test_user_convention_and_back(label):
    scribble = generate_scribble(label, NUM_CLASSES, "a")
    stored = user_convention(scribble, NUM_CLASSES)
    assert set(np.unique(stored)) == {0, 1, 2, 3, 4}
    np.testing.assert_array_equal(convert_scribble(stored, "user", NUM_CLASSES), scribble)


@pytest.mark.parametrize(
    ("mode", "num_classes", "message"),
    [
        ("itksnap", 3, "mode must be one of user, wsl4mis, scribblebench, monailabel, internal, or a mapping"),
        ("monailabel", 3, "mode 'monailabel' has background and one structure, so num_classes must be 2; found 3"),
        ("user", 1, r"num_classes must be a whole number in \[2, 255\], background included; found 1"),
        ("user", "4", r"num_classes must be a whole number in \[2, 255\], background included; found '4'"),
        ({0: 255, 1: 3, 2: 0}, 3, r"mode must map to classes in \[0, 3\) or 255 for unlabelled; found"),
        ({0: 255, 1: 1}, 3, "mode must map a value to 0, the background"),
    ],
)
def test_conventions_that_do_not_fit_are_refused(mode, num_classes, message):
    with pytest.raises(ValueError, match=message):
        conversion_table(mode, num_classes)
    with pytest.raises(ValueError, match=message):
        ScribbleConvertd(mode=mode, num_classes=num_classes)


def test_mappings_of_other_things_are_refused():
    with pytest.raises(TypeError, match="mode must map whole numbers to whole numbers"):
        conversion_table({"background": 0}, 2)


def test_values_without_meaning_are_refused_with_the_file():
    scribble = MetaTensor(torch.tensor([[[0.0, 5.0]]]), meta={"filename_or_obj": "a.nii.gz"})
    with pytest.raises(ValueError, match=r"a\.nii\.gz: must hold the values of mode 'user': 0, 1, 2, 3; found 5"):
        ScribbleConvertd(num_classes=3)({"scribble": scribble})
    with pytest.raises(ValueError, match=r"scribble: must hold whole numbers; found fractions such as 0\.5"):
        ScribbleConvertd(num_classes=3)({"scribble": np.array([[[0.5]]])})


# --- through spatial transforms


def test_shift_and_back():
    scribble = torch.tensor([[[0, 1, 3, U]]], dtype=torch.uint8)
    shifted = ShiftScribbled()({"scribble": scribble})["scribble"]
    assert shifted.tolist() == [[[1, 2, 4, 0]]]
    back = UnshiftScribbled()({"scribble": shifted})["scribble"]
    assert back.dtype == torch.int64
    assert back.tolist() == scribble.tolist()


SPATIAL = [
    RandRotated("scribble", range_x=(0.4, 0.8), prob=1, mode="nearest", padding_mode="zeros", keep_size=True),
    RandAffined(
        "scribble", prob=1, rotate_range=0.6, translate_range=20, scale_range=0.4, mode="nearest", padding_mode="zeros"
    ),
    SpatialPadd("scribble", (120, 120)),
    Compose(
        [
            RandFlipd("scribble", prob=1),
            RandRotated("scribble", (0.3, 0.5), prob=1, mode="nearest", padding_mode="zeros"),
        ]
    ),
]


@pytest.mark.parametrize("spatial", SPATIAL, ids=["rotate", "affine", "pad", "flip-rotate"])
def test_what_comes_in_from_outside_is_unlabelled(spatial):
    """Without a single background stroke no transform may make one."""
    scribble = np.where(cardiac_slice() > 0, cardiac_slice(), U)
    scribble[0], scribble[:, -1] = 2, 3  # labelled up to the border
    chain = Compose([ShiftScribbled(), spatial, UnshiftScribbled()])
    chain.set_random_state(0)
    for _ in range(5):
        out = chain({"scribble": MetaTensor(torch.as_tensor(scribble)[None])})["scribble"]
        assert set(out.unique().tolist()) <= {1, 2, 3, U}
        assert out.dtype == torch.int64
    unprotected = spatial({"scribble": MetaTensor(torch.as_tensor(scribble)[None])})["scribble"]
    assert 0 in unprotected.unique().tolist()  # what the shift is for


def test_interpolated_scribbles_are_refused(label):
    shifted = ShiftScribbled()({"scribble": torch.as_tensor(generate_scribble(label[..., 2], NUM_CLASSES))[None]})
    turned = Rotated("scribble", 0.3, mode="bilinear")(shifted)
    with pytest.raises(ValueError, match=r"must hold whole numbers; found .* Remedy: give 'scribble' mode 'nearest'"):
        UnshiftScribbled()(turned)


# --- files


@pytest.fixture
def run(monkeypatch, caplog):
    """Run the command in this process; return its log, or what it exits with."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["common.transforms.scribbles", *map(str, arguments)])
        with caplog.at_level(logging.INFO):
            try:
                main()
            except SystemExit as end:
                return end.code
        return caplog.text

    return command


@pytest.fixture
def label_file(tmp_path, label):
    affine = np.array([[0, -1.5, 0, 10], [1.4, 0, 0.3, -20], [0, 0.2, 8, 30], [0, 0, 0, 1]])
    image = nib.Nifti1Image(label.astype(np.float32), affine)
    image.header.set_xyzt_units("mm")
    (tmp_path / "labels").mkdir()
    nib.save(image, tmp_path / "labels" / "p1.nii.gz")
    return tmp_path / "labels" / "p1.nii.gz"


def test_generate_command(tmp_path, run, label, label_file):
    out = tmp_path / "scribbles"
    log = run("generate", "--labels", label_file.parent, "--output_dir", out, "--num_classes", 4, "--seed", 2)
    written, source = nib.load(out / "p1.nii.gz"), nib.load(label_file)
    np.testing.assert_array_equal(written.affine, source.affine)
    assert written.header["sform_code"] == source.header["sform_code"]
    assert written.header["qform_code"] == source.header["qform_code"]
    assert written.header.get_xyzt_units() == source.header.get_xyzt_units()
    assert written.get_data_dtype() == np.uint8
    expected = generate_scribble(label, 4, "p1", seed=2)
    np.testing.assert_array_equal(np.asarray(written.dataobj), user_convention(expected, 4))
    assert f"p1.nii.gz: {(expected == 0).sum():,} background, {(expected == 1).sum():,} class 1, " in log
    assert [path.name for path in out.iterdir()] == ["p1.nii.gz"]


def test_convert_command(tmp_path, run, label, label_file):
    scribble = generate_scribble(label, 4, "a")
    source = tmp_path / "acdc.nii.gz"
    nib.save(nib.Nifti1Image(np.where(scribble == U, 4, scribble).astype(np.uint8), np.eye(4)), source)
    run("convert", "--scribbles", source, "--output_dir", tmp_path / "out", "--num_classes", 4, "--mode", "wsl4mis")
    stored = np.asarray(nib.load(tmp_path / "out" / "acdc.nii.gz").dataobj)
    np.testing.assert_array_equal(stored, user_convention(scribble, 4))


def test_pictures_stay_pictures(tmp_path, run):
    plane = cardiac_slice()
    Image.fromarray(plane).save(tmp_path / "s.png")
    run("generate", "--labels", tmp_path / "s.png", "--output_dir", tmp_path / "out", "--num_classes", 4)
    stored = np.asarray(Image.open(tmp_path / "out" / "s.png"))
    assert stored.shape == plane.shape
    assert wrong(convert_scribble(stored, "user", 4), plane) == 0
    assert set(np.unique(stored)) == {0, 1, 2, 3, 4}


def test_a_mapping_on_the_command_line(tmp_path, run):
    stored = np.zeros((30, 30, 1), np.uint8)
    stored[3:5, 3:20], stored[20:22, 3:20] = 9, 5
    nib.save(nib.Nifti1Image(stored, np.eye(4)), tmp_path / "s.nii.gz")
    arguments = ("--scribbles", tmp_path / "s.nii.gz", "--output_dir", tmp_path / "out", "--num_classes", 2)
    run("convert", *arguments, "--mode", "{0: 255, 9: 0, 5: 1}")
    np.testing.assert_array_equal(
        np.asarray(nib.load(tmp_path / "out" / "s.nii.gz").dataobj)[[3, 20, 10], 5, 0], [2, 1, 0]
    )


def test_files_without_background_or_that_are_masks_are_refused(tmp_path, run, label):
    scribble = user_convention(generate_scribble(label, 4, "a"), 4)
    folder = tmp_path / "in"
    folder.mkdir()
    for name, array in (("no_bg", np.where(scribble == 4, 0, scribble)), ("mask", label), ("empty", 0 * label)):
        nib.save(nib.Nifti1Image(array, np.eye(4)), folder / f"{name}.nii.gz")
    out = tmp_path / "out"
    message = run("convert", "--scribbles", folder, "--output_dir", out, "--num_classes", 4, "--mode", "user")
    assert message.startswith("error: 3 problems in the data:")
    assert "no_bg.nii.gz: must have a background stroke (value 4); found " in message
    assert "mask.nii.gz: must be strokes, not a mask; found filled structures and no background" in message
    assert "empty.nii.gz: must have strokes; found none" in message
    assert not out.exists()


def test_generating_without_room_for_background_is_refused(tmp_path, run):
    nib.save(nib.Nifti1Image(np.ones((20, 20, 2), np.uint8), np.eye(4)), tmp_path / "full.nii.gz")
    arguments = ("--output_dir", tmp_path / "out", "--num_classes", 2)
    message = run("generate", "--labels", tmp_path / "full.nii.gz", *arguments)
    assert "full.nii.gz: must give background strokes; found structures only" in message


def test_the_command_refuses_by_message_before_writing(tmp_path, run, label_file):
    arguments = ("--labels", label_file, "--output_dir", tmp_path / "out")
    assert "p1.nii.gz: label must hold whole numbers in [0, 3)" in run("generate", *arguments, "--num_classes", 3)
    assert "width must be odd" in run("generate", *arguments, "--num_classes", 4, "--width", 2)
    assert run("generate", *arguments, "--num_classes", 4, "--widht", 5) == 2
    assert not (tmp_path / "out").exists()
    missing = run("generate", "--labels", tmp_path / "none", "--output_dir", tmp_path / "out", "--num_classes", 4)
    assert "none: must be a file or a folder; found nothing" in missing
    run("generate", *arguments, "--num_classes", 4)
    assert "must not hold a file of the same name; found" in run("generate", *arguments, "--num_classes", 4)
