"""From folders of files to a data set, and what is said about what went wrong before."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from common.data import DatasetError, load_datalist
from common.data.__main__ import main
from common.data.preparation import prepare
from common.data.preparation.facts import find_border_values
from common.data.preparation.patients import find_patients, merge_patients, split_patients
from common.data.preparation.sources import Source, find_sources

AFFINE = np.diag([-2.0, -2.0, 3.0, 1.0])


def save_nifti(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def write_scan(folder, name, seed=0, shape=(12, 10, 8)):
    image = np.random.default_rng(seed).uniform(-1000, 400, shape).astype(np.float32)
    save_nifti(folder / "images" / f"{name}.nii.gz", image)
    label = np.zeros(shape, np.uint8)
    label[3:8, 3:8, 2:6] = 1
    save_nifti(folder / "labels" / f"{name}.nii.gz", label)
    return folder


@pytest.fixture
def scans(tmp_path):
    """Ten scans of five patients."""
    for patient in range(5):
        for frame in range(2):
            write_scan(tmp_path, f"patient{patient:03d}_frame{frame:02d}", seed=10 * patient + frame)
    return tmp_path


def run(folder, **options):
    base = {"images": str(folder / "images"), "labels": str(folder / "labels"), "output_dir": str(folder / "out")}
    prepare(**{**base, **options})
    return json.loads((folder / "out" / "dataset.json").read_text())


class TestSections:
    def test_patients_are_not_divided(self, scans):
        content = run(scans)
        counts = {section: len(content[section]) for section in ("training", "validation", "test")}
        assert counts == {"training": 6, "validation": 2, "test": 2}
        owners = [{entry["image"].split("/")[-1][:10] for entry in content[section]} for section in counts]
        assert not owners[0] & owners[1]
        assert not owners[0] & owners[2]

    def test_the_seed_decides(self, scans):
        first = run(scans, seed=1)
        assert run(scans, seed=1, overwrite=True) == first
        assert any(run(scans, seed=seed, overwrite=True) != first for seed in range(2, 6))

    def test_paths_are_relative_and_nothing_is_copied(self, scans):
        before = sorted(path for path in scans.rglob("*") if path.is_file())
        content = run(scans)
        assert content["training"][0]["image"].startswith("../images/")
        assert len(load_datalist(scans / "out", "training", ["image", "label"], 0)) == 6
        after = sorted(path for path in scans.rglob("*") if path.is_file() and "out" not in path.parts)
        assert after == before

    def test_every_case_has_a_picture(self, scans):
        run(scans)
        pictures = list((scans / "out" / "overview").glob("*.png"))
        assert len(pictures) == 10
        with Image.open(pictures[0]) as picture:
            colors = np.asarray(picture).astype(int)
        assert colors.shape == (144, 432, 3)
        assert (np.ptp(colors, axis=2) > 30).any()  # the label is painted
        page = (scans / "out" / "overview" / "index.html").read_text()
        assert page.count("<figure>") == 10
        assert "http" not in page

    def test_images_without_label(self, scans, caplog):
        for name in ("patient000_frame00", "patient004_frame01"):
            (scans / "labels" / f"{name}.nii.gz").unlink()
        save_nifti(scans / "images" / "patient009.nii.gz", np.full((4, 4, 4), -500, np.float32))
        content = run(scans)
        assert "3 of 11 images have no label" in caplog.text
        names = {entry["image"].split("/")[-1] for entry in content["unlabeled"]}
        assert "patient009.nii.gz" in names
        held_out = {entry["image"].split("/")[-1][:10] for s in ("validation", "test") for entry in content[s]}
        assert not {name[:10] for name in names} & held_out

    def test_an_existing_file_stays(self, scans):
        run(scans)
        with pytest.raises(FileExistsError, match="--overwrite True"):
            run(scans)

    def test_too_few_patients(self, tmp_path):
        write_scan(tmp_path, "a1")
        with pytest.raises(ValueError, match="1 patients are too few"):
            run(tmp_path)
        assert run(tmp_path, val_fraction=0, test_fraction=0)["training"]


class TestPatients:
    def patients_of(self, *names, **options):
        sources = [Source(name, Path(name)) for name in names]
        return list(find_patients(sources, **options).values())

    def test_default_rule(self):
        names = ("patient001_frame01", "patient001_frame12", "site/case7", "012/ct", "liver_3")
        assert self.patients_of(*names) == ["patient001", "patient001", "case7", "012", "liver_3"]

    def test_pattern(self):
        assert self.patients_of("a_p1_x", "a_p2_x", patient_pattern="p[0-9]") == ["p1", "p2"]
        assert self.patients_of("a_p1_x", patient_pattern="p([0-9])") == ["1"]
        with pytest.raises(DatasetError, match="no match in a"):
            self.patients_of("a", patient_pattern="p[0-9]")
        with pytest.raises(ValueError, match="must be a regular expression"):
            self.patients_of("a", patient_pattern="(")

    def test_table(self, tmp_path):
        table = tmp_path / "patients.csv"
        table.write_text("case,patient\na,one\nb,one\n")
        assert self.patients_of("a", "sub/b", patients=table) == ["one", "one"]
        with pytest.raises(DatasetError, match="must name the patient of c"):
            self.patients_of("c", patients=table)
        table.write_text("name,patient\n")
        with pytest.raises(DatasetError, match="must have the columns case, patient"):
            self.patients_of("a", patients=table)

    def test_split(self):
        split = split_patients([f"p{i}" for i in range(20)] * 2, 0.1, 0.2, 0)
        assert [len(names) for names in split.values()] == [14, 2, 4]
        assert len({name for names in split.values() for name in names}) == 20
        with pytest.raises(ValueError, match="leave patients for training"):
            split_patients(["a", "b"], 0.5, 0.5, 0)

    def test_doubles_are_one_patient(self):
        assert merge_patients({"a": "1", "b": "2", "c": "2", "d": "3"}, [["a", "b"]]) == {
            "a": "1",
            "b": "1",
            "c": "1",
            "d": "3",
        }


class TestSources:
    def test_labels_beside_their_images(self, tmp_path):
        for name in ("p1", "p1_gt", "p2", "p2_gt", "mask"):
            save_nifti(tmp_path / f"{name}.nii.gz", np.zeros((2, 2, 2), np.uint8))
        sources = find_sources(tmp_path, tmp_path)
        assert [(s.name, s.label and s.label.name) for s in sources] == [
            ("mask", None),
            ("p1", "p1_gt.nii.gz"),
            ("p2", "p2_gt.nii.gz"),
        ]

    def test_names_of_nnunet_and_nested_folders(self, tmp_path):
        save_nifti(tmp_path / "i" / "x" / "a_0000.nii.gz", np.zeros((2, 2, 2)))
        save_nifti(tmp_path / "l" / "a_seg.nii.gz", np.zeros((2, 2, 2)))
        (source,) = find_sources(tmp_path / "i", tmp_path / "l")
        assert (source.name, source.label.name) == ("x/a", "a_seg.nii.gz")

    def test_refusals(self, tmp_path):
        with pytest.raises(DatasetError, match="must exist"):
            find_sources(tmp_path / "no")
        with pytest.raises(DatasetError, match="must hold NIfTI"):
            find_sources(tmp_path)
        save_nifti(tmp_path / "i" / "a.nii.gz", np.zeros((2, 2, 2)))
        save_nifti(tmp_path / "l" / "b.nii.gz", np.zeros((2, 2, 2)))
        with pytest.raises(DatasetError, match=r"must hold labels named as the images \(a.nii.gz"):
            find_sources(tmp_path / "i", tmp_path / "l")
        for number in range(2):
            save_nifti(tmp_path / "c" / f"a_000{number}.nii.gz", np.zeros((2, 2, 2)))
        with pytest.raises(DatasetError, match="must be one file an image"):
            find_sources(tmp_path / "c")


class TestDoubts:
    def test_a_sound_data_set_has_none(self, scans, caplog):
        run(scans)
        assert not [record for record in caplog.records if record.levelname == "WARNING"]

    def test_doubles_stay_together(self, scans, caplog):
        shutil.copy(scans / "images" / "patient000_frame00.nii.gz", scans / "images" / "patient003_frame00.nii.gz")
        content = run(scans)
        assert "patient000_frame00, patient003_frame00; they count as one patient" in caplog.text
        section = {e["image"].split("/")[-1][:10]: s for s in ("training", "validation", "test") for e in content[s]}
        assert section["patient000"] == section["patient003"]

    def test_mixed_modality(self, scans, caplog):
        image = np.random.default_rng(0).uniform(0, 800, (12, 10, 8)).astype(np.float32)
        save_nifti(scans / "images" / "patient001_frame00.nii.gz", image)
        run(scans)
        assert "different kinds of images: CT in 9 cases, but not CT in patient001_frame00" in caplog.text

    def test_slices_in_another_direction(self, tmp_path, caplog):
        for number in range(3):
            write_scan(tmp_path, f"p{number}", seed=number)
        turned = np.diag([-6.0, -2.0, 2.0, 1.0])
        for kind in ("images", "labels"):
            for number in range(3):
                path = tmp_path / kind / f"p{number}.nii.gz"
                data = np.asarray(nib.load(path).dataobj)
                save_nifti(path, data, turned if number == 2 else np.diag([-2.0, -2.0, 6.0, 1.0]))
        run(tmp_path)
        assert "slices along different axes: the third axis in 2 cases, but the first axis in p2" in caplog.text

    def test_swapped_axes_of_a_label(self, scans):
        path = scans / "labels" / "patient000_frame00.nii.gz"
        save_nifti(path, np.swapaxes(np.asarray(nib.load(path).dataobj), 0, 2))
        with pytest.raises(DatasetError, match="its axes are swapped"):
            run(scans)
        assert not (scans / "out").exists()

    def test_label_in_another_place(self, scans):
        path = scans / "labels" / "patient000_frame00.nii.gz"
        save_nifti(path, np.asarray(nib.load(path).dataobj), np.diag([2.0, 2.0, 3.0, 1.0]))
        with pytest.raises(DatasetError, match="must lie where patient000_frame00"):
            run(scans)
        content = run(scans, skip_broken=True)
        assert sum(len(content[s]) for s in ("training", "validation", "test")) == 9

    def test_fractions_in_a_label(self, scans):
        path = scans / "labels" / "patient000_frame00.nii.gz"
        label = ndimage.zoom(np.asarray(nib.load(path).dataobj).astype(np.float32), 1.0)
        save_nifti(path, ndimage.uniform_filter(label, 3))
        with pytest.raises(DatasetError, match="resample labels by nearest neighbor"):
            run(scans)

    def test_interpolation_that_was_rounded(self, scans, caplog):
        path = scans / "labels" / "patient000_frame00.nii.gz"
        label = 4.0 * np.asarray(nib.load(path).dataobj)
        save_nifti(path, np.rint(ndimage.uniform_filter(label.astype(float), 3)).astype(np.uint8))
        run(scans)
        assert "lie on nothing but borders between others in patient000_frame00" in caplog.text

    def test_border_values(self):
        label = np.zeros((20, 20, 20))
        label[5:15, 5:15, 5:15] = 4
        assert find_border_values(label) == []
        blurred = np.rint(ndimage.zoom(label[::2, ::2, ::2], 2, order=1))
        assert set(find_border_values(blurred)) >= {1, 3}
        label[9:11, 9:11, :] = 2  # a vessel through an organ, and out of it
        assert find_border_values(label) == []

    def test_gray_values_of_masks(self, scans, caplog):
        path = scans / "labels" / "patient000_frame00.nii.gz"
        save_nifti(path, 255 * np.asarray(nib.load(path).dataobj))
        run(scans)
        assert "labels are 0, 1, 255" in caplog.text

    def test_a_broken_file(self, scans):
        path = scans / "images" / "patient002_frame00.nii.gz"
        path.write_bytes(path.read_bytes()[:200])
        with pytest.raises(DatasetError, match="must open"):
            run(scans)


class TestFormats:
    def test_photographs(self, tmp_path):
        rng = np.random.default_rng(0)
        for number in range(4):
            for kind, shape in (("images", (70, 90, 3)), ("labels", (70, 90))):
                (tmp_path / kind).mkdir(exist_ok=True)
                values = rng.integers(0, 2 if kind == "labels" else 255, shape).astype(np.uint8)
                Image.fromarray(values).save(tmp_path / kind / f"eye{number}.png")
        content = run(tmp_path)
        assert len(content["training"]) == 2
        assert len(list((tmp_path / "out" / "overview").glob("*.png"))) == 4

    def test_dicom_series(self, tmp_path, write_dicom, voxels, affine, caplog):
        for number in range(3):
            write_dicom(tmp_path / "images" / f"{number:03d}" / "series", np.roll(voxels, number), affine)
        prepare(str(tmp_path / "images"), str(tmp_path / "out"))
        content = json.loads((tmp_path / "out" / "dataset.json").read_text())
        assert content["training"][0]["image"].startswith("../images/00")
        assert not [record for record in caplog.records if record.levelname == "WARNING"]

    def test_as_a_command(self, scans, monkeypatch, caplog):
        arguments = ["--images", scans / "images", "--labels", scans / "labels", "--output_dir", scans / "out"]
        monkeypatch.setattr("sys.argv", ["data", "prepare", *map(str, arguments)])
        with caplog.at_level("INFO"):
            main()
        assert "10 images of 5 patients (the name up to its first number" in caplog.text
        assert "of one patient, patient000: patient000_frame00, patient000_frame01" in caplog.text
