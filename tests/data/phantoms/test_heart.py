"""Heart phantoms: anatomy, signal, determinism, and the data set on disk."""

import json
import sys

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from common.data import check_datalist, load_datalist
from common.data.phantoms import HEART_LABELS, render_heart, write_heart_phantoms
from common.data.phantoms.__main__ import main
from common.data.phantoms.heart_anatomy import DIAGNOSES, contract, draw_heart
from common.data.scribbles import UNLABELLED, convert_scribble

COARSE = {"image_size": 72, "spacing_mm": 2.8}
RIGHT, MYOCARDIUM, LEFT = 1, 2, 3
IN_PLANE = np.ones((3, 3, 1), bool)


@pytest.fixture(scope="module")
def patients():
    return [render_heart(np.random.default_rng(seed), **COARSE) for seed in range(6)]


@pytest.fixture(scope="module")
def cases(patients):
    return [case for patient in patients for case in patient.values()]


def volume_ml(case, number):
    return (case.label == number).sum() * abs(np.linalg.det(case.affine[:3, :3])) / 1000


def world_centroid_mm(case, number):
    return case.affine[:3, :3] @ np.argwhere(case.label == number).mean(axis=0) + case.affine[:3, 3]


def test_image_and_label_share_a_grid_of_plausible_values(cases):
    for case in cases:
        assert case.image.shape == case.label.shape
        assert case.image.shape[:2] == (72, 72)
        assert 8 <= case.image.shape[2] <= 12
        assert case.image.dtype == np.int16
        assert case.image.min() >= 0
        assert case.label.dtype == np.uint8
        assert set(np.unique(case.label)) == set(HEART_LABELS)


def test_slices_are_thick(cases):
    for case in cases:
        spacing = np.linalg.norm(case.affine[:3, :3], axis=0)
        assert spacing[0] == pytest.approx(spacing[1])
        assert 2.8 * 0.92 <= spacing[0] <= 2.8 * 1.08
        assert 8 <= spacing[2] <= 10


def test_volumes_are_plausible(patients):
    for patient in patients:
        ed, es = patient["ed"], patient["es"]
        assert 60 < volume_ml(ed, LEFT) < 300
        assert 45 < volume_ml(ed, RIGHT) < 260
        assert 70 < volume_ml(ed, MYOCARDIUM) < 260
        assert volume_ml(es, MYOCARDIUM) == pytest.approx(volume_ml(ed, MYOCARDIUM), rel=0.2)
        ejection = 1 - volume_ml(es, LEFT) / volume_ml(ed, LEFT)
        assert ejection == pytest.approx(ed.heart.ejection_fraction, abs=0.12)
        assert volume_ml(es, RIGHT) < 0.9 * volume_ml(ed, RIGHT)


def test_contraction_keeps_the_volume_of_the_wall():
    for seed in range(20):
        heart = draw_heart(np.random.default_rng(seed))
        volumes = []
        for phase in ("ed", "es"):
            state = contract(heart, phase)
            outer = state.cavity_mm + state.wall_mm
            volumes.append((outer**2 - state.cavity_mm**2) * (heart.length_mm - state.base_mm))
        assert volumes[1] == pytest.approx(volumes[0])


def test_every_diagnosis_is_drawn():
    assert {draw_heart(np.random.default_rng(seed)).diagnosis for seed in range(60)} == set(DIAGNOSES)


def test_the_myocardium_encloses_the_left_ventricle(cases):
    for case in cases:
        around = ndimage.binary_dilation(case.label == LEFT, IN_PLANE)
        assert set(np.unique(case.label[around])) == {MYOCARDIUM, LEFT}
        with_left = np.flatnonzero((case.label == LEFT).any(axis=(0, 1)))
        with_wall = np.flatnonzero((case.label == MYOCARDIUM).any(axis=(0, 1)))
        assert set(with_left) <= set(with_wall)
        assert (np.diff(with_wall) == 1).all()


def test_the_right_ventricle_lies_on_the_septum(cases):
    for case in cases:
        right = case.label == RIGHT
        for k in np.flatnonzero(right.any(axis=(0, 1)) & (case.label == LEFT).any(axis=(0, 1))):
            touched = case.label[..., k][ndimage.binary_dilation(right[..., k])]
            assert MYOCARDIUM in touched
            assert ndimage.label(right[..., k], np.ones((3, 3)))[1] == 1


def test_slices_without_structures_and_without_right_ventricle_occur(cases):
    def slices(case, number):
        return (case.label == number).any(axis=(0, 1))

    assert any(not slices(case, MYOCARDIUM)[0] for case in cases if case.phase == "es")
    apical = [(slices(case, MYOCARDIUM) & ~slices(case, RIGHT)).any() for case in cases]
    assert np.mean(apical) > 0.5
    assert len({case.label.shape[2] for case in cases}) > 1


def test_signal_is_that_of_a_cine(cases):
    """Blood is bright, the wall dark, the lung nearly black; blood and fat are alike."""
    for case in cases:
        inside = ndimage.binary_erosion(case.label == LEFT, IN_PLANE)
        wall = ndimage.binary_erosion(case.label == MYOCARDIUM, np.ones((2, 2, 1), bool))
        blood, muscle = np.median(case.image[inside]), np.median(case.image[wall])
        assert 1.5 < blood / muscle < 4.5
        assert np.median(case.image[case.label == RIGHT]) > 1.3 * muscle
        assert np.percentile(case.image, 10) < 0.35 * muscle
        assert (case.image[case.label == 0] > 0.8 * blood).sum() > (case.label == LEFT).sum()


def test_no_threshold_finds_a_structure(cases):
    for case in cases:
        for number in (RIGHT, MYOCARDIUM, LEFT):
            truth = case.label == number
            low, high = np.percentile(case.image[truth], [5, 95])
            found = (case.image >= low) & (case.image <= high)
            assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) < 0.5


def test_papillary_muscles_are_dark_parts_of_the_cavity(cases):
    for case in cases:
        inside = ndimage.binary_erosion(case.label == LEFT, IN_PLANE)
        blood = np.median(case.image[inside])
        assert 0.005 < (case.image[inside] < 0.65 * blood).mean() < 0.4


def test_the_heart_lies_in_the_world_as_in_a_body(cases):
    for case in cases:
        left, right = world_centroid_mm(case, LEFT), world_centroid_mm(case, RIGHT)
        assert left[0] < right[0]  # RAS+: the left ventricle is further left
        assert left[1] < right[1]  # the right ventricle lies in front
        base_to_apex = case.affine[:3, 2]
        assert base_to_apex[0] < 0 < base_to_apex[1]
        assert base_to_apex[2] < 0
        i = [np.argwhere(case.label == number)[:, 0].mean() for number in (RIGHT, LEFT)]
        assert i[0] < i[1]  # the right ventricle is on the left of the image


def test_both_phases_show_one_patient(patients):
    for patient in patients:
        assert set(patient) == {"ed", "es"}
        np.testing.assert_array_equal(patient["ed"].affine, patient["es"].affine)
        assert patient["ed"].heart is patient["es"].heart
        ed, es = (patient[phase].image[:20].astype(float).mean() for phase in ("ed", "es"))  # the chest wall
        assert ed == pytest.approx(es, rel=0.1)


def test_same_seed_gives_the_same_voxels():
    first, second = (render_heart(np.random.default_rng(5), 48, 4.0) for _ in range(2))
    for phase in ("ed", "es"):
        np.testing.assert_array_equal(first[phase].image, second[phase].image)
        np.testing.assert_array_equal(first[phase].label, second[phase].label)
        np.testing.assert_array_equal(first[phase].affine, second[phase].affine)


def read(path):
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    listing = write_heart_phantoms(
        tmp_path_factory.mktemp("heart") / "set", 4, seed=3, num_validation=1, num_test=1, image_size=64, spacing_mm=3
    )
    return listing, json.loads(listing.read_text())


def test_data_set_is_complete_and_split_by_patient(dataset):
    listing, content = dataset
    assert content["labels"] == {str(number): name for number, name in HEART_LABELS.items()}
    assert {name: len(content[name]) for name in ("training", "validation", "test")} == {
        "training": 4,
        "validation": 2,
        "test": 2,
    }
    listed = set()
    for section in ("training", "validation", "test"):
        for entry in content[section]:
            assert set(entry) == ({"image", "label"} if section == "test" else {"image", "label", "scribble"})
            assert f"/{section}_" in entry["image"]
            listed |= set(entry.values())
            images = [nib.load(listing.parent / path) for path in entry.values()]
            for other in images[1:]:
                np.testing.assert_array_equal(images[0].affine, other.affine)
                assert images[0].shape == other.shape
        names = [entry["image"].rsplit("_", 1) for entry in content[section]]
        assert all(sorted(end for start, end in names if start == s) == ["ed.nii.gz", "es.nii.gz"] for s, _ in names)
    written = {path.relative_to(listing.parent).as_posix() for path in listing.parent.rglob("*.*") if path.is_file()}
    assert written == listed | {"dataset.json"}


def test_scribbles_are_right_and_pass_the_checks(dataset):
    listing, content = dataset
    keys = ("image", "label", "scribble")
    datalist = load_datalist(listing.parent, ("training", "validation"), keys, val_fraction=0)
    assert len(check_datalist(datalist, keys, num_classes=4)) == 6
    for entry in content["training"]:
        label = read(listing.parent / entry["label"])
        scribble = convert_scribble(read(listing.parent / entry["scribble"]), "user", 4)
        drawn = scribble != UNLABELLED
        np.testing.assert_array_equal(scribble[drawn], label[drawn])
        assert set(np.unique(scribble)) == {0, 1, 2, 3, UNLABELLED}


def test_a_patient_does_not_depend_on_how_many_there_are(tmp_path, dataset):
    listing, _ = dataset
    options = {"num_validation": 0, "num_test": 1, "image_size": 64, "spacing_mm": 3}
    write_heart_phantoms(tmp_path / "few", 2, seed=3, **options)
    write_heart_phantoms(tmp_path / "other", 2, seed=4, **options)
    for name in (
        "imagesTr/training_000_es.nii.gz",
        "scribblesTr/training_000_ed.nii.gz",
        "imagesTs/test_000_ed.nii.gz",
    ):
        np.testing.assert_array_equal(read(tmp_path / "few" / name), read(listing.parent / name))
    first, other = (read(tmp_path / folder / "imagesTr/training_000_ed.nii.gz") for folder in ("few", "other"))
    assert first.shape != other.shape or (first != other).any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_cases": 0}, ValueError, r"num_cases must be at least 1; found 0"),
        ({"num_cases": 2.5}, TypeError, r"num_cases must be a whole number; found 2\.5"),
        ({"num_cases": 2, "num_test": 2}, ValueError, r"num_validation \+ num_test must be less.*found 0 \+ 2 of 2"),
        ({"num_cases": 1, "seed": -4}, ValueError, r"seed must be at least 0; found -4"),
        ({"num_cases": 1, "image_size": 8}, ValueError, r"image_size must lie in \[32, 512\] pixels; found 8"),
        ({"num_cases": 1, "image_size": 64.5}, TypeError, r"image_size must be a whole number of pixels; found 64\.5"),
        ({"num_cases": 1, "spacing_mm": 0}, ValueError, r"spacing_mm must lie in \[0\.7, 4\.0\] mm; found 0"),
        ({"num_cases": 1, "spacing_mm": "fine"}, TypeError, r"spacing_mm must be a number; found 'fine'"),
        ({"num_cases": 1, "scribble_width": 2}, ValueError, r"width must be odd and at least 1.*found 2"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        write_heart_phantoms(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_command_line_writes_a_data_set(tmp_path, monkeypatch):
    options = (f"--output_dir={tmp_path / 'set'}", "--num_cases=1", "--image_size=32", "--spacing_mm=4")
    monkeypatch.setattr(sys, "argv", ["common.data.phantoms", "heart", *options])
    main()
    assert len(json.loads((tmp_path / "set" / "dataset.json").read_text())["training"]) == 2
