"""Hostile `dataset.json` files and folders against everything that lists cases."""

import os
from pathlib import Path

import numpy as np
import pytest

from common.data import DatasetError, load_datalist, load_domain_stream
from common.data.label_names import load_label_names
from common.evaluation import load_label_set
from tests.faults.hostile import OverBudgetError, budget
from tests.faults.hostile_lists import damaged_texts, texts
from tests.faults.hostile_reading import assert_designed


def listings(folder):
    yield lambda: load_datalist(folder)
    yield lambda: load_datalist(folder, ("training", "test"), "image", hold_out_from=("training", "test"))
    yield lambda: load_domain_stream(folder)
    yield lambda: load_label_names(folder, 3)
    yield lambda: load_label_set(folder / "dataset.json")


def is_refused(listing):
    """List; what is found is sound, and a refusal says what it has to."""
    try:
        found = listing()
    except DatasetError as error:
        assert_designed(error)
        return True
    if isinstance(found, list):
        assert_sound(found)
    return False


def judge(folder, content):
    """List in every way; return how often it was refused."""
    (folder / "dataset.json").write_bytes(content)
    with budget():
        return sum(is_refused(listing) for listing in listings(folder))


def assert_sound(cases):
    """Names are unique; every path is absolute and one that a file may have."""
    assert len({case["case"] for case in cases}) == len(cases)
    for case in cases[:100]:
        for key in ("image", "label"):
            paths = case.get(key, [])
            for path in [paths] if isinstance(paths, str) else paths:
                assert Path(path).is_absolute()
                assert "\0" not in path


def outcome_of(folder, name, content):
    """Return how often a list was refused, or what went wrong."""
    try:
        return judge(folder, content)
    except (Exception, OverBudgetError) as error:
        return f"{name}: {type(error).__name__}: {str(error)[:300]}"


def judge_all(contents, folder):
    outcomes = [outcome_of(folder, name, content) for name, content in contents]
    wrong = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert not wrong, "\n".join(wrong)
    assert any(outcomes)


def test_some_hostile_lists(tmp_path):
    every = list(texts())
    judge_all([every[i] for i in np.linspace(0, len(every) - 1, 60).astype(int)], tmp_path)
    judge_all(damaged_texts(1, 20), tmp_path)


@pytest.mark.slow
def test_hostile_lists(tmp_path):
    contents = [*texts(), *damaged_texts(0, 800)]
    assert len(contents) > 1200
    judge_all(contents, tmp_path)


class TestFound:
    """Inputs that did something else before."""

    @pytest.mark.parametrize("name", ["lists in lists", "objects in objects"])
    def test_nesting(self, tmp_path, name):
        (tmp_path / "dataset.json").write_bytes(dict(texts())[name])
        for listing in listings(tmp_path):
            with pytest.raises(DatasetError):
                listing()

    def test_the_home_of_nobody(self, tmp_path):
        (tmp_path / "dataset.json").write_text('{"test": ["~nobody-at-all/x.nii"]}')
        (case,) = load_datalist(tmp_path, "test", "image")
        assert case["image"] == str(tmp_path / "~nobody-at-all" / "x.nii")

    def test_a_name_that_no_file_system_takes(self, tmp_path):
        (tmp_path / "dataset.json").write_text(f'{{"test": ["{"a" * 300}.nii.gz"]}}')
        with pytest.raises(DatasetError, match=r"must be readable; found .*File name too long"):
            load_datalist(tmp_path, "test", "image")

    def test_labels_that_are_no_object(self, tmp_path):
        (tmp_path / "dataset.json").write_text("[3]")
        assert load_label_names(tmp_path, 2) == {1: "label_1"}
        (tmp_path / "dataset.json").write_bytes(b"\xff")
        with pytest.raises(DatasetError, match="must be JSON in UTF-8"):
            load_label_names(tmp_path, 2)


class TestFolders:
    def test_a_loop_of_folders_ends(self, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "again").symlink_to(tmp_path)
        (tmp_path / "a" / "x.nii").write_bytes(b"x")
        assert [case["case"] for case in load_datalist(tmp_path, "test", "image")] == ["x"]

    def test_links_and_pipes_in_image_folders(self, tmp_path):
        images = tmp_path / "imagesTs"
        images.mkdir()
        (images / "loop.nii").symlink_to("loop.nii")
        (images / "gone.nii").symlink_to("nowhere")
        os.mkfifo(images / "pipe.nii")
        (images / "sound.nii").write_bytes(b"x")
        with budget():
            assert [case["case"] for case in load_datalist(tmp_path, "test", "image")] == ["sound"]

    def test_a_folder_that_may_not_be_read(self, tmp_path, monkeypatch):
        (tmp_path / "imagesTs").mkdir()

        def refuse(path):
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("pathlib.Path.iterdir", refuse)
        with pytest.raises(DatasetError, match=r"must be readable; found .*Permission denied"):
            load_datalist(tmp_path, "test", "image")
