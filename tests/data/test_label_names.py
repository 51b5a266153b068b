"""Names of structures from `dataset.json`."""

from __future__ import annotations

import json

import pytest

from common.data import DatasetError
from common.data.label_names import load_label_names


def write_labels(folder, labels):
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    return folder


def test_both_spellings_and_missing_names(tmp_path):
    msd = write_labels(tmp_path / "msd", {"0": "background", "1": "liver", "2": "Milz ä"})
    nnunet = write_labels(tmp_path / "nnunet", {"background": 0, "liver": 1, "both": [1, 2]})
    assert load_label_names(msd, 3) == {1: "liver", 2: "Milz ä"}
    assert load_label_names(nnunet, 3) == {1: "liver", 2: "label_2"}
    assert load_label_names(tmp_path, 2) == {1: "label_1"}
    assert load_label_names([msd, nnunet], 3) == {1: "liver", 2: "Milz ä"}


def test_names_that_clash_are_refused(tmp_path):
    first = write_labels(tmp_path / "a", {"1": "kidney", "2": "kidney"})
    with pytest.raises(DatasetError, match="must name each label differently; found kidney"):
        load_label_names(first, 3)
    second = write_labels(tmp_path / "b", {"1": "liver"})
    with pytest.raises(DatasetError, match="must call label 1 'kidney', as before; found 'liver'"):
        load_label_names([first, second], 2)
