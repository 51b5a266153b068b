"""Cases that break rules are set aside, and only those."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest

from common.data import FAILURE, DatasetError, Problem, check_datalist, check_photographs
from common.data.screening import mark_bad_cases


def problem(file):
    return Problem(file, "must open", "damage", "restore it")


def marked(cases, *problems):
    return [case["case"] for case in mark_bad_cases(cases, DatasetError(problems)) if FAILURE in case]


CASES = [
    {"case": "a", "image": "/data/a.nii.gz", "label": "/data/la.nii.gz"},
    {"case": "b", "image": ["/data/b_0000.nii.gz", "/data/b_0001.nii.gz"], "label": "/data/lb.nii.gz"},
    {"case": "c", "image": "/data/series", "domain": "site"},
]


@pytest.mark.parametrize(
    ("file", "owner"),
    [("/data/la.nii.gz", "a"), ("/data/b_0001.nii.gz", "b"), ("/data/series/7.dcm", "c"), ("b", "b")],
)
def test_whose_problem_it_is(file, owner):
    assert marked(CASES, problem(file)) == [owner]


def test_all_problems_of_a_case_are_told():
    (first, *_) = mark_bad_cases(CASES, DatasetError([problem("/data/a.nii.gz"), problem("/data/la.nii.gz")]))
    assert first[FAILURE].count("must open") == 2
    assert "\n" not in first[FAILURE]
    assert FAILURE not in CASES[0]


@pytest.mark.parametrize("file", ["datalist", "/data", "/data/series_2/7.dcm", "/data/dataset.json test[0]"])
def test_a_problem_of_no_case_is_raised(file):
    with pytest.raises(DatasetError, match="must open"):
        mark_bad_cases(CASES, DatasetError([problem("/data/a.nii.gz"), problem(file)]))


def test_checks_isolate_on_request(tmp_path):
    cases = []
    for name, value in (("good", 1.0), ("bad", np.nan)):
        nib.save(nib.Nifti1Image(np.full((3, 4, 5), value, np.float32), np.eye(4)), tmp_path / f"{name}.nii.gz")
        cases.append({"case": name, "image": str(tmp_path / f"{name}.nii.gz")})
    good, bad = check_datalist(cases, "image", isolate=True)
    assert FAILURE not in good
    assert "must be finite; found NaN" in bad[FAILURE]
    with pytest.raises(DatasetError, match="must be finite"):
        check_datalist(cases, "image")
    with pytest.raises(DatasetError, match="must have a case"):
        check_datalist([], "image", isolate=True)
    assert [FAILURE in case for case in check_photographs(cases, isolate=True)] == [True, True]
