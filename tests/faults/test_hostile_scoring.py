"""Hostile predictions and references against the scorer: a right Dice, or a refusal that names the file."""

import shutil

import nibabel as nib
import numpy as np
import pytest

from common.data import DatasetError
from common.data.readers import load_itk
from common.evaluation import LabelSet, Settings, Structure, score_pairs
from common.evaluation.pairs import Pair
from tests.faults import hostile_dicom, hostile_itk, hostile_nifti
from tests.faults.hostile import (
    Case,
    OverBudgetError,
    Refused,
    Right,
    SecondReader,
    budget,
    damaged_files,
    written,
)
from tests.faults.hostile_reading import assert_designed
from tests.faults.hostile_second_readers import second_reading

LABELS = LabelSet("two", (Structure("liver", (1,), 2.0), Structure("spleen", (2,), 1.0)))
TOLERANCE_MM = 0.1


def label_map(dtype="u1", shape=(13, 9, 7)):
    labels = np.zeros(shape, dtype)
    labels[2:7, 2:6, 1:5] = 1
    labels[8:11, 3:7, 2:6] = 2
    return labels


def no_labels(dtype):
    """Values of a type that are no label of `LABELS`."""
    if dtype[0] == "f":
        return [np.nan, np.inf, -np.inf, 0.5, 1e30, -1, 65536]
    limits = np.iinfo(dtype)
    candidates = {limits.min, limits.max, 3, 255, 65535, 65536, 2**31 - 1}
    return sorted(value for value in candidates if limits.min <= value <= limits.max and value != 0)


def label_cases(seed, count):
    """Label maps of many kinds, some with values that are no labels, and damaged ones."""
    good = label_map()
    for dtype in hostile_nifti.CODES:
        yield f"labels as {dtype}", Right(label_map(dtype), None), hostile_nifti.nifti_bytes(label_map(dtype))
        for value in no_labels(dtype):
            wrong = label_map(dtype)
            wrong[0, 0, 0] = value
            yield f"{value} in {dtype}", Refused(), hostile_nifti.nifti_bytes(wrong)
    for name, labels in (("empty", good * 0), ("full", good * 0 + 1), ("one voxel", good * 0)):
        if name == "one voxel":
            labels[5, 5, 5] = 2
        yield name, Right(labels, None), hostile_nifti.nifti_bytes(labels)
    base = {"a.nii": hostile_nifti.nifti_bytes(good)}
    for case in damaged_files("labels", base, hostile_nifti.HEADER_BYTES, seed, count):
        yield case.name, case.answer, case.write


def cases(seed, count):
    """Cases of all readers, where the answer is known from a second reader, and label maps."""
    for name, answer, content in label_cases(seed, count):
        write = content if callable(content) else written(content)
        yield Case(name, write, answer)
    for module in (hostile_nifti, hostile_itk, hostile_dicom):
        named = module.cases(seed, 0)
        for case in named if module is not hostile_dicom else named[::12]:
            yield Case(case.name, case.write, Refused() if isinstance(case.answer, Refused) else SecondReader())


def dice(first, second):
    total = np.count_nonzero(first) + np.count_nonzero(second)
    return 2 * np.count_nonzero(first & second) / total if total else None


def as_ras(array, affine):
    return nib.as_closest_canonical(nib.Nifti1Image(array.astype("f8"), affine))


def score_or_refuse(pair, out):
    """Return what scoring a pair gave, or the refusal."""
    try:
        with budget():
            return score_pairs([pair], Settings(LABELS, "plain"), out, num_workers=1)
    except DatasetError as error:
        return error


def judge(case, folder, is_reference):
    """Score a hostile file against a sound one; either may be the reference."""
    sound = folder / "sound.nii"
    sound.write_bytes(hostile_nifti.nifti_bytes(label_map()))
    place = folder / "hostile"
    place.mkdir()
    path = case.write(place)
    pair = Pair("case", sound, path) if is_reference else Pair("case", path, sound)
    scored = score_or_refuse(pair, folder / "out")
    if isinstance(scored, DatasetError):
        assert_designed(scored)
        assert not isinstance(case.answer, Right), str(scored)
        assert not (folder / "out" / "scores.csv").exists()
        return "refused"
    assert not isinstance(case.answer, Refused)
    array = case.answer.array if isinstance(case.answer, Right) else second_reading(path)[0]
    affine = hostile_nifti.oblique() if isinstance(case.answer, Right) else second_reading(path)[1]
    found, other = as_ras(array, affine), as_ras(label_map(), hostile_nifti.oblique())
    np.testing.assert_allclose(found.affine, other.affine, atol=TOLERANCE_MM)
    for index, structure in enumerate(LABELS.structures):
        (label,) = structure.labels
        wanted = dice(np.asarray(found.dataobj) == label, np.asarray(other.dataobj) == label)
        value = scored.table.values["dice"][0, index]
        assert np.isnan(value) if wanted is None or np.isnan(value) else value == pytest.approx(wanted), structure.name
    return "scored"


def judge_all(every, folder):
    load_itk()
    outcomes, wrong = [], []
    for index, case in enumerate(every):
        place = folder / str(index)
        place.mkdir()
        try:
            outcomes.append(judge(case, place, is_reference=index % 2 == 1))
        except (Exception, OverBudgetError) as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {str(error)[:300]}")
        shutil.rmtree(place)
    assert not wrong, "\n".join(wrong)
    assert set(outcomes) == {"scored", "refused"}


def test_some_hostile_label_maps(tmp_path):
    every = list(cases(3, 20))
    judge_all([every[i] for i in np.linspace(0, len(every) - 1, 60).astype(int)], tmp_path)


@pytest.mark.slow
def test_hostile_label_maps(tmp_path):
    every = list(cases(0, 600))
    assert len(every) > 1000
    judge_all(every, tmp_path)


@pytest.mark.parametrize("dtype", ["u4", "u8", "i4", "i8"])
def test_a_huge_label_takes_no_memory(tmp_path, dtype):
    """A list with a place for each label up to the largest would take 34 GB."""
    labels = label_map(dtype)
    labels[0, 0, 0] = 2**31 if dtype == "u4" else 2**30
    case = Case("huge", written(hostile_nifti.nifti_bytes(labels)), Refused())
    assert judge(case, tmp_path, is_reference=False) == "refused"
