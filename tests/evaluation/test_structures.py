"""Label sets: those that come along, those of users, and refusals."""

import json

import pytest

from common.data import DatasetError
from common.evaluation import load_label_set, shipped_label_sets


def test_segrap_has_45_organs_and_two_volumes_with_their_tolerances():
    organs = load_label_set("segrap2023_oars")
    assert len(set(organs.names)) == 45
    tolerances_mm = {structure.name: structure.nsd_tolerance_mm for structure in organs.structures}
    assert {name: t for name, t in tolerances_mm.items() if t != 1} == {"Larynx": 2.0, "OralCavity": 3.0}
    assert all(structure.labels == () for structure in organs.structures)
    assert load_label_set("segrap2023_gtvs").names == ["GTVp", "GTVnd"]


@pytest.mark.parametrize(("name", "num_structures"), [("touchstone", 9), ("word", 16), ("msd01_brain_tumour", 3)])
def test_label_maps_are_numbered_from_one(name, num_structures):
    structures = load_label_set(name).structures
    assert [structure.labels for structure in structures] == [(i,) for i in range(1, num_structures + 1)]


def test_every_shipped_set_loads():
    assert len(shipped_label_sets()) == 16
    assert sum(name.startswith("msd") for name in shipped_label_sets()) == 10
    for name in shipped_label_sets():
        assert load_label_set(name).structures


def test_a_set_says_what_is_not_verified():
    assert any("Not verified" in note for note in load_label_set("touchstone").notes)


def test_a_region_of_several_labels_and_ignored_values(tmp_path):
    path = tmp_path / "set.json"
    whole = {"name": "whole tumor", "label": [1, 2, 3], "nsd_tolerance_mm": 0.5}
    path.write_text(json.dumps({"structures": [whole], "ignore_labels": [255]}))
    label_set = load_label_set(path)
    assert label_set.structures[0].labels == (1, 2, 3)
    assert label_set.ignore_labels == (255,)


@pytest.mark.parametrize(
    "labels", [{"0": "background", "1": "liver", "2": "tumor"}, {"background": 0, "liver": 1, "tumor": 2, "ignore": 3}]
)
def test_the_labels_of_a_dataset_json(tmp_path, labels):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"name": "Task03_Liver", "labels": labels}))
    label_set = load_label_set(path)
    assert label_set.title == "Task03_Liver"
    assert [(s.name, s.labels, s.nsd_tolerance_mm) for s in label_set.structures] == [
        ("liver", (1,), 1.0),
        ("tumor", (2,), 1.0),
    ]
    assert label_set.ignore_labels == ((3,) if "ignore" in labels else ())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "must be JSON; found "),
        ("[1]", "must have `structures` or `labels`; found list"),
        ('{"organs": []}', "must have `structures` or `labels`; found organs"),
        (
            '{"structures": [{"label": 1}]}',
            "must give each structure gray_range, label, name, nsd_tolerance_mm; found {'label': 1}",
        ),
        ('{"structures": [{"name": "a", "lable": 1}]}', "'lable': 1"),
        ('{"structures": [{"name": "a", "label": 0}]}', "must give a labels above 0; found 0"),
        ('{"structures": [{"name": "a", "nsd_tolerance_mm": -1}]}', "must give a a tolerance from 0 mm; found -1"),
        (
            '{"structures": [{"name": "a", "gray_range": [9, 3]}]}',
            "must give a a gray_range [lowest, highest] within 0 to 255, and no label then; found [9, 3]",
        ),
        ('{"structures": [{"name": "a", "label": 1, "gray_range": [1, 3]}]}', "and no label then; found [1, 3]"),
        (
            '{"structures": [{"name": "a", "gray_range": [1, 3]}, {"name": "b", "label": 2}]}',
            "must give all structures a gray_range or none; found none for b",
        ),
        ('{"structures": [{"name": "a"}, {"name": "a"}]}', "must name each structure once; found a twice"),
    ],
)
def test_refusals(tmp_path, content, message):
    path = tmp_path / "set.json"
    path.write_text(content)
    with pytest.raises(DatasetError) as caught:
        load_label_set(path)
    assert message in str(caught.value)


def test_an_unknown_set_names_the_known_ones():
    with pytest.raises(DatasetError, match=r"must be a label set; found none; shipped are .*touchstone, word"):
        load_label_set("words")
