"""Hostile files against `read_volume` and `inspect_datalist`, and against the stock transform that reads afterwards."""

import importlib
import os
import socket
import time

import numpy as np
import pytest

from common.data import DatasetError
from common.data.readers import load_itk, read_volume
from tests.faults import hostile_dicom, hostile_itk, hostile_nifti, hostile_pictures
from tests.faults.hostile import OverBudgetError, budget
from tests.faults.hostile_reading import judge

# Named cases are all run in the slow tests, with so many random ones each.
SLOW = {"hostile_nifti": 1500, "hostile_itk": 1200, "hostile_dicom": 250, "hostile_pictures": 1000}
FAST = {hostile_nifti: 22, hostile_itk: 22, hostile_dicom: 8, hostile_pictures: 16}


@pytest.fixture(autouse=True, scope="module")
def _itk_is_loaded():
    """What ITK loads on first use is no cost of the first case."""
    itk = load_itk()
    for component in (itk.UC, itk.SS, itk.F):
        itk.Image[component, 3]


def spread(cases, count):
    """Return so many cases, evenly spread."""
    return [cases[i] for i in np.linspace(0, len(cases) - 1, count).astype(int)]


def judge_all(cases, folder):
    """Judge every case, and assert that none ended in a way that it may not."""
    outcomes, wrong = [], []
    for index, case in enumerate(cases):
        place = folder / str(index)
        place.mkdir()
        try:
            outcomes.append(judge(case, place))
        except (Exception, OverBudgetError) as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)
    return outcomes


@pytest.mark.parametrize("module", FAST, ids=lambda module: module.__name__.rpartition("_")[2])
def test_some_hostile_files(tmp_path, module):
    cases = module.cases(seed=7, count=12)
    judge_all(spread(cases, FAST[module]), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_hostile_files(tmp_path, name, record_property):
    cases = importlib.import_module(f"tests.faults.{name}").cases(seed=0, count=SLOW[name])
    assert len({case.name for case in cases}) == len(cases)
    outcomes = judge_all(cases, tmp_path)
    assert {outcome["outcome"] for outcome in outcomes} == {"read", "refused"}
    record_property("inputs", len(cases))
    record_property("slowest_s", max(outcome["seconds"] for outcome in outcomes))
    record_property("peak_mib", max(outcome["peak_bytes"] for outcome in outcomes) / 2**20)


class TestPlaces:
    """What stands where a file is expected."""

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".png", ".jpg", ".tif"])
    @pytest.mark.parametrize("kind", ["pipe", "socket", "device", "loop", "dangling", "folder", "empty"])
    def test_no_file(self, tmp_path, monkeypatch, kind, suffix):
        monkeypatch.chdir(tmp_path)  # the name of a socket is short
        path = tmp_path / f"a{suffix}"
        {
            "pipe": lambda: os.mkfifo(path),
            "socket": lambda: socket.socket(socket.AF_UNIX).bind(path.name),
            "device": lambda: path.symlink_to("/dev/zero"),
            "loop": lambda: path.symlink_to(path),
            "dangling": lambda: path.symlink_to("nowhere"),
            "folder": path.mkdir,
            "empty": path.touch,
        }[kind]()
        found = {
            "pipe": "a pipe, socket or device",
            "socket": "a pipe, socket or device",
            "device": "a pipe, socket or device",
            "loop": "Too many levels of symbolic links",
            "dangling": "a link to nothing",
            "folder": "no DICOM file",
            "empty": "0 bytes",
        }[kind]
        with budget(), pytest.raises(DatasetError, match=found):
            read_volume(path)

    def test_names_that_no_file_has(self, tmp_path):
        for name in ("x" * 300 + ".nii", "a\0b.nii", "file.nii/inside.nii", "\udcff.nii"):
            (tmp_path / "file.nii").touch()
            with pytest.raises(DatasetError):
                read_volume(tmp_path / name)

    def test_both_forms_of_a_letter(self, tmp_path):
        """Composed and decomposed names are two files here; none is taken for the other."""
        (tmp_path / "\u00fc.nii").write_bytes(hostile_nifti.nifti_bytes(hostile_nifti.voxels()))
        assert read_volume(tmp_path / "\u00fc.nii").spatial_shape == (13, 9, 7)
        with pytest.raises(DatasetError, match="must exist"):
            read_volume(tmp_path / "u\u0308.nii")

    @pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".dcm"])
    def test_a_file_that_may_not_be_read(self, tmp_path, monkeypatch, suffix):
        """Root may read everything, so the refusal is injected."""
        path = tmp_path / f"a{suffix}"
        path.write_bytes(b"content")

        def refuse(file, *_, **__):
            raise PermissionError(13, "Permission denied", str(file))

        monkeypatch.setattr("pathlib.Path.open", refuse)
        monkeypatch.setattr("gzip.open", refuse)
        with pytest.raises(DatasetError, match="Permission denied"):
            read_volume(tmp_path if suffix == ".dcm" else path)

    def test_too_little_memory(self, tmp_path, monkeypatch):
        path = tmp_path / "a.nii"
        path.write_bytes(hostile_nifti.nifti_bytes(hostile_nifti.voxels()))
        monkeypatch.setattr("os.sysconf", lambda name: 1000 if name == "SC_PHYS_PAGES" else 1)
        with pytest.raises(DatasetError, match=r"must fit into memory; found 13 x 9 x 7 voxels \(1,990"):
            read_volume(path)

        def exhaust(*_):
            raise MemoryError

        monkeypatch.setitem(read_volume.__globals__["READERS"], ".nii", exhaust)
        with pytest.raises(DatasetError, match="must fit into memory; found not enough of it"):
            read_volume(path)


def test_a_case_over_budget_is_not_taken_for_a_refusal():
    with pytest.raises(OverBudgetError), budget(limit_s=0.01):
        time.sleep(5)
    with pytest.raises(OverBudgetError), budget(limit_bytes=2**20):
        np.ones(2**23)
