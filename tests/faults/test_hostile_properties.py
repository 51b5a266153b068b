"""Properties of reading and scoring for any shape, spacing, orientation and type: what is written comes back."""

import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from common.data import DatasetError
from common.data.readers import displacement_mm, read_volume
from common.evaluation import LabelSet, Settings, Structure, score_pairs
from common.evaluation.pairs import Pair
from tests.faults.hostile_itk import NRRD_TYPES, mha_bytes
from tests.faults.hostile_nifti import CODES, SPACING_MM, nifti_bytes, oblique, voxels

FEW = settings(derandomize=True, max_examples=25, deadline=None, database=None)
shapes = st.tuples(*[st.integers(1, 12)] * 3)
spacings = st.tuples(*[st.floats(0.05, 20)] * 3)
angles = st.tuples(*[st.floats(-180, 180)] * 3)
origins = st.tuples(*[st.floats(-2000, 2000)] * 3)
signs = st.tuples(*[st.sampled_from([1.0, -1.0])] * 3)


def make_affine(spacing, angle, origin, sign):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angle, degrees=True).as_matrix() @ np.diag(np.multiply(spacing, sign))
    affine[:3, 3] = origin
    return affine


@FEW
@given(shapes, spacings, angles, origins, signs, st.sampled_from(sorted(CODES)), st.sampled_from([".nii", ".nii.gz"]))
def test_nifti_comes_back(shape, spacing, angle, origin, sign, dtype, suffix):
    array, affine = voxels(dtype, shape), make_affine(spacing, angle, origin, sign)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        nib.save(nib.Nifti1Image(array, affine, dtype=array.dtype), path)
        volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    assert displacement_mm(volume.affine, affine, shape) < 0.01
    assert volume.spacing_mm == pytest.approx(spacing, rel=1e-4)


@FEW
@given(shapes, st.sampled_from(sorted(set(NRRD_TYPES) - {"i1", "i8", "u8"})), st.booleans())
def test_metaimage_comes_back(shape, dtype, packed):
    array = voxels(dtype, shape)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.mha"
        path.write_bytes(mha_bytes(array, packed))
        volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    assert displacement_mm(volume.affine, oblique(), shape) < 0.01


@FEW
@given(st.integers(0, 351), st.integers(0, 255))
def test_any_byte_of_a_header_is_read_or_refused(position, value):
    content = bytearray(nifti_bytes(voxels()))
    content[position] = value
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.nii"
        path.write_bytes(bytes(content))
        try:
            volume = read_volume(path)
        except DatasetError:
            return
    assert np.isfinite(volume.affine).all()
    assert volume.array.size > 0


def scores(prediction, reference, labels):
    structures = LabelSet("two", tuple(Structure(name, (label,), 1.0) for name, label in labels.items()))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / "p.nii", Path(folder) / "r.nii"]
        for path, image in zip(paths, (prediction, reference), strict=True):
            nib.save(image, path)
        table = score_pairs(
            [Pair("a", *paths)], Settings(structures, "plain"), Path(folder) / "out", num_workers=1
        ).table
    return {metric: table.values[metric][0] for metric in table.values}


def label_images(seed):
    rng = np.random.default_rng(seed)
    affine = np.diag([*SPACING_MM, 1.0])
    first = rng.integers(0, 3, (7, 6, 5)).astype(np.uint8)
    second = np.where(rng.random(first.shape) < 0.3, rng.integers(0, 3, first.shape), first).astype(np.uint8)
    return nib.Nifti1Image(first, affine), nib.Nifti1Image(second, affine)


@settings(FEW, max_examples=8)
@given(st.integers(0, 1000), st.permutations("RAS"), st.tuples(*[st.booleans()] * 3))
def test_scores_do_not_depend_on_the_orientation_of_files(seed, order, flips):
    opposite = dict(zip("RAS", "LPI", strict=True))
    axes = tuple(opposite[axis] if flip else axis for axis, flip in zip(order, flips, strict=True))
    prediction, reference = label_images(seed)
    turn = nib.orientations.ornt_transform(nib.io_orientation(reference.affine), nib.orientations.axcodes2ornt(axes))
    before = scores(prediction, reference, {"liver": 1, "spleen": 2})
    after = scores(prediction.as_reoriented(turn), reference, {"liver": 1, "spleen": 2})
    for metric, values in before.items():
        np.testing.assert_allclose(after[metric], values, rtol=1e-9, err_msg=metric)


@settings(FEW, max_examples=8)
@given(st.integers(0, 1000), st.permutations([1, 2, 7, 255, 60000]))
def test_scores_do_not_depend_on_the_numbers_of_labels(seed, numbers):
    images = label_images(seed)
    table = np.array([0, *numbers[:2]], np.uint16)
    renamed = [nib.Nifti1Image(table[np.asarray(image.dataobj)], image.affine) for image in images]
    before = scores(*images, {"liver": 1, "spleen": 2})
    after = scores(*renamed, {"liver": numbers[0], "spleen": numbers[1]})
    for metric, values in before.items():
        np.testing.assert_allclose(after[metric], values, rtol=1e-12, err_msg=metric)
