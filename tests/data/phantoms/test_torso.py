"""Torso CT phantoms: numbers that a radiologist would check, geometry, determinism, and what is refused."""

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.data.phantoms import TORSO_LABELS, render_torso, write_torso_phantoms
from common.data.phantoms.__main__ import main
from common.data.phantoms.shapes import rotation_matrix
from common.data.phantoms.torso_patient import PHASES, draw_patient
from common.data.phantoms.torso_scan import FIELDS_OF_VIEW, ORIENTATIONS, draw_scan, store_as

COARSE_MM = 7.0
NUMBER = {name: number for number, name in TORSO_LABELS.items()}
# Plausible volumes in ml of organs that lie wholly in the view abdomen_pelvis, on a coarse grid.
VOLUME_ML = {
    "liver": (700, 2800),
    "spleen": (40, 400),
    "right_kidney": (60, 330),
    "left_kidney": (60, 330),
    "stomach": (70, 800),
    "aorta": (25, 200),
    "inferior_vena_cava": (25, 180),
    "colon": (180, 1800),
    "bladder": (40, 900),
}
# Plausible mean HU over all contrast phases.
MEAN_HU = {
    "liver": (10, 150),
    "spleen": (15, 170),
    "right_kidney": (10, 240),
    "left_kidney": (10, 240),
    "gallbladder": (-30, 70),
    "aorta": (5, 380),
    "inferior_vena_cava": (5, 190),
    "bladder": (-30, 50),
    "lungs": (-900, -650),
}


@pytest.fixture(scope="module")
def cases():
    """Six patients from chest to pelvis."""
    return [render_torso(np.random.default_rng(seed), "abdomen_pelvis", COARSE_MM) for seed in range(6)]


@pytest.fixture(scope="module")
def chest():
    return render_torso(np.random.default_rng(0), "chest", COARSE_MM)


def world_centroid_mm(case, name):
    index = np.argwhere(case.label == NUMBER[name]).mean(axis=0)
    return case.affine[:3, :3] @ index + case.affine[:3, 3]


def voxel_ml(case):
    return abs(np.linalg.det(case.affine[:3, :3])) / 1000


def test_image_and_label_share_a_grid_of_plausible_values(cases):
    for case in cases:
        assert case.image_hu.shape == case.label.shape
        assert case.image_hu.dtype == np.int16
        assert case.label.dtype == np.uint8
        assert case.image_hu.min() >= -1024
        assert case.image_hu.max() <= 3071
        assert set(np.unique(case.label)) <= set(TORSO_LABELS)


def test_every_class_is_in_view_from_the_lung_bases_to_the_pelvis(cases):
    for case in cases:
        missing = {name for name, number in NUMBER.items() if not (case.label == number).any()}
        assert missing <= {"heart", "gallbladder"}  # above the view, or thinner than these voxels, in some patients
    assert set().union(*(np.unique(case.label).tolist() for case in cases)) == set(TORSO_LABELS)


@pytest.mark.parametrize("name", VOLUME_ML)
def test_organ_volumes_are_plausible(cases, name):
    low, high = VOLUME_ML[name]
    for case in cases:
        assert low < (case.label == NUMBER[name]).sum() * voxel_ml(case) < high


@pytest.mark.parametrize("name", MEAN_HU)
def test_organ_hu_are_plausible(cases, name):
    low, high = MEAN_HU[name]
    for case in cases:
        values = case.image_hu[(case.label == NUMBER[name]) & (case.image_hu > -1024)]
        if values.size:
            assert low < values.mean() < high


def test_contrast_follows_the_phase(cases):
    patients = [draw_patient(np.random.default_rng(seed)) for seed in range(60)]
    aorta = {phase: [p.tissue_hu["aorta"] for p in patients if p.phase == phase] for phase in PHASES}
    assert max(aorta["plain"]) < 60 < min(aorta["portal"])
    assert np.mean(aorta["portal"]) + 60 < np.mean(aorta["arterial"])
    for case in cases:
        # Half of such an aorta's voxels touch its border: the bright half shows the blood.
        bright = np.percentile(case.image_hu[case.label == NUMBER["aorta"]], 75)
        assert bright == pytest.approx(case.patient.tissue_hu["aorta"], abs=40)


def test_organs_lie_on_their_side_in_world_coordinates(cases, chest):
    for case in cases:
        # RAS+: world x grows toward the patient's right.
        assert world_centroid_mm(case, "liver")[0] > world_centroid_mm(case, "spleen")[0] + 60
        assert world_centroid_mm(case, "right_kidney")[0] > world_centroid_mm(case, "left_kidney")[0] + 60
        assert world_centroid_mm(case, "inferior_vena_cava")[0] > world_centroid_mm(case, "aorta")[0]
        assert world_centroid_mm(case, "stomach")[0] < world_centroid_mm(case, "liver")[0]
        # Up and front.
        assert world_centroid_mm(case, "liver")[2] > world_centroid_mm(case, "bladder")[2] + 150
        assert world_centroid_mm(case, "stomach")[1] > world_centroid_mm(case, "left_kidney")[1]
    assert world_centroid_mm(chest, "heart")[1] > world_centroid_mm(chest, "aorta")[1]


def test_patient_is_surrounded_by_air_and_lies_on_a_table(cases):
    for case in cases:
        image = nib.as_closest_canonical(nib.Nifti1Image(case.image_hu, case.affine)).get_fdata()
        middle = image.shape[0] // 2
        assert np.median(image[:, -1, :]) < -900  # in front
        column = image[middle - 2 : middle + 3].mean(axis=(0, 2))
        body = np.flatnonzero(column > -200)
        below = column[: body[0] - 1]
        assert below.max() > below.min() + 50  # the table's shell stands out from air and foam


def test_liver_overlaps_its_neighbors_in_hu(cases):
    """No threshold separates the organs: many voxels of spleen, muscle and bowel have the liver's values."""
    for case in cases:
        low, high = np.percentile(case.image_hu[case.label == NUMBER["liver"]], [5, 95])
        in_range = (case.image_hu >= low) & (case.image_hu <= high)
        liver = case.label == NUMBER["liver"]
        dice = 2 * (in_range & liver).sum() / (in_range.sum() + liver.sum())
        assert dice < 0.75


def test_same_seed_gives_the_same_voxels():
    first, second = (render_torso(np.random.default_rng(5), "mixed", COARSE_MM) for _ in range(2))
    np.testing.assert_array_equal(first.image_hu, second.image_hu)
    np.testing.assert_array_equal(first.label, second.label)
    np.testing.assert_array_equal(first.affine, second.affine)


def test_orientation_spacing_tilt_and_padding_vary():
    rng = np.random.default_rng(0)
    scans = [draw_scan(rng, draw_patient(rng), "abdomen", 4.5) for _ in range(60)]
    assert {scan.orientation for scan in scans} == set(ORIENTATIONS)
    ratios = [scan.spacing_mm[2] / scan.spacing_mm[0] for scan in scans]
    assert min(ratios) < 1.1 < 1.7 < max(ratios)
    assert {np.allclose(scan.tilt, np.eye(3)) for scan in scans} == {True, False}
    assert {scan.padded for scan in scans} == {True, False}
    assert all(50 <= size <= 130 for scan in scans for size in scan.shape[:2])


def test_stored_orientation_and_padding_are_the_drawn_ones(cases):
    assert len({case.scan.orientation for case in cases}) > 2
    for case in cases:
        assert "".join(nib.aff2axcodes(case.affine)) == case.scan.orientation
        assert bool((case.image_hu == -1024).mean() > 0.005) == case.scan.padded


def test_mixed_draws_every_field_of_view():
    views = {render_torso(np.random.default_rng(seed), "mixed", 12.0).scan.field_of_view for seed in range(8)}
    assert views == set(FIELDS_OF_VIEW)


def test_reorientation_keeps_every_voxel_at_its_place():
    rng = np.random.default_rng(0)
    volume = rng.random((4, 5, 6))
    affine = np.eye(4)
    affine[:3, :3] = rotation_matrix((4, -7, 9)) * [2.0, 3.0, 4.0]
    affine[:3, 3] = [10, -20, 30]
    place = affine @ [1, 3, 5, 1]
    for orientation in ORIENTATIONS:
        stored, stored_affine = store_as(volume, affine, orientation)
        index = np.rint(np.linalg.solve(stored_affine, place)[:3]).astype(int)
        assert stored[tuple(index)] == volume[1, 3, 5]


def test_affine_has_the_drawn_spacing(cases):
    for case in cases:
        found = sorted(np.linalg.norm(case.affine[:3, :3], axis=0))
        assert found == pytest.approx(sorted(case.scan.spacing_mm))


def test_finer_grid_shows_the_same_kind_of_patient():
    case = render_torso(np.random.default_rng(2), "abdomen", 5.0)
    assert 0.85 * 5 < case.scan.spacing_mm[0] < 1.1 * 5


def read(path):
    return np.asarray(nib.load(path).dataobj)


def test_data_set_is_complete_and_its_paths_relative(tmp_path):
    listing = write_torso_phantoms(
        tmp_path / "set", 4, seed=3, num_unlabeled=2, num_validation=1, num_test=1, spacing_mm=10
    )
    content = json.loads(listing.read_text())
    assert content["labels"] == {str(number): name for number, name in TORSO_LABELS.items()}
    assert {name: len(content[name]) for name in ("training", "validation", "test", "unlabeled")} == {
        "training": 2,
        "validation": 1,
        "test": 1,
        "unlabeled": 2,
    }
    assert content["numTraining"] == 2
    listed = set()
    for section in ("training", "validation", "test", "unlabeled"):
        for entry in content[section]:
            assert set(entry) == ({"image"} if section == "unlabeled" else {"image", "label"})
            listed |= set(entry.values())
            images = [nib.load(listing.parent / path) for path in entry.values()]
            assert all(not Path(path).is_absolute() for path in entry.values())
            np.testing.assert_array_equal(images[0].affine, images[-1].affine)
            assert images[0].shape == images[-1].shape
            assert images[0].header.get_xyzt_units()[0] == "mm"
    written = {path.relative_to(listing.parent).as_posix() for path in listing.parent.rglob("*.*") if path.is_file()}
    assert written == listed | {"dataset.json"}
    for entry in content["training"]:
        assert set(np.unique(read(listing.parent / entry["label"]))) >= {0, NUMBER["liver"], NUMBER["bladder"]}


def test_a_case_does_not_depend_on_how_many_there_are(tmp_path):
    write_torso_phantoms(tmp_path / "few", 2, seed=1, num_validation=0, num_test=1, spacing_mm=12)
    write_torso_phantoms(tmp_path / "many", 4, seed=1, num_unlabeled=1, num_validation=1, num_test=1, spacing_mm=12)
    write_torso_phantoms(tmp_path / "other", 2, seed=2, num_validation=0, num_test=1, spacing_mm=12)
    for name in ("imagesTr/training_000.nii.gz", "labelsTr/training_000.nii.gz", "imagesTs/test_000.nii.gz"):
        np.testing.assert_array_equal(read(tmp_path / "few" / name), read(tmp_path / "many" / name))
    first, other = (read(tmp_path / folder / "imagesTr/training_000.nii.gz") for folder in ("few", "other"))
    assert first.shape != other.shape or (first != other).any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_cases": 0}, ValueError, r"num_cases must be at least 1; found 0"),
        ({"num_cases": 2.5}, TypeError, r"num_cases must be a whole number; found 2\.5"),
        ({"num_cases": True}, TypeError, r"num_cases must be a whole number; found True"),
        ({"num_cases": 2, "num_test": 2}, ValueError, r"num_validation \+ num_test must be less.*found 0 \+ 2 of 2"),
        ({"num_cases": 2, "num_unlabeled": -1}, ValueError, r"num_unlabeled must be at least 0; found -1"),
        ({"num_cases": 1, "seed": -4}, ValueError, r"seed must be at least 0; found -4"),
        ({"num_cases": 1, "spacing_mm": 0}, ValueError, r"spacing_mm must lie between 1 and 12 mm; found 0"),
        ({"num_cases": 1, "spacing_mm": -3}, ValueError, r"spacing_mm must lie between 1 and 12 mm; found -3"),
        ({"num_cases": 1, "spacing_mm": "fine"}, TypeError, r"spacing_mm must be a number; found 'fine'"),
        ({"num_cases": 1, "field_of_view": "head"}, ValueError, r"field_of_view must be one of mixed.*found 'head'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        write_torso_phantoms(tmp_path / "set", **options)
    assert not (tmp_path / "set").exists()


def test_a_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "scan.nii.gz").touch()
    with pytest.raises(FileExistsError, match=r"output_dir must be new or empty.*found scan\.nii\.gz"):
        write_torso_phantoms(tmp_path, 1)
    with pytest.raises(FileExistsError, match=r"output_dir must be a folder; found a file"):
        write_torso_phantoms(tmp_path / "scan.nii.gz", 1)


def test_an_interrupted_run_leaves_no_dataset_json(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("common.data.phantoms.torso.json.dumps", stop)
    with pytest.raises(KeyboardInterrupt):
        write_torso_phantoms(tmp_path / "set", 1, spacing_mm=12)
    assert not (tmp_path / "set" / "dataset.json").exists()


def run_command(monkeypatch, *options):
    monkeypatch.setattr(sys, "argv", ["common.data.phantoms", "torso", *options])
    main()


def test_command_line_writes_a_data_set(tmp_path, monkeypatch):
    run_command(monkeypatch, f"--output_dir={tmp_path / 'set'}", "--num_cases=1", "--seed=1", "--spacing_mm=12")
    assert len(json.loads((tmp_path / "set" / "dataset.json").read_text())["training"]) == 1


def test_command_line_refuses_by_message(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=r"error: num_cases must be at least 1"):  # a text as code is status 1
        run_command(monkeypatch, f"--output_dir={tmp_path / 'set'}", "--num_cases=0")


def test_misspelled_option_is_refused_before_anything_is_written(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        run_command(monkeypatch, f"--output_dir={tmp_path / 'set'}", "--num_cases=1", "--num_tests=3")
    assert stop.value.code == 2
    assert "num_tests" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()
