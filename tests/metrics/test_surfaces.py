"""Mask scores: cases solved by hand, the slow definition, MONAI, and what must not change them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy.ndimage import gaussian_filter

from common.metrics import compare_masks
from tests.oracles import surface_metrics as oracle


def voxels(shape, *indices):
    mask = np.zeros(shape, dtype=bool)
    for index in indices:
        mask[index] = True
    return mask


def blob(seed, shape=(11, 13, 9)):
    return gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5) > 0.08


def cube(start, size=4, length=12):
    return voxels((length,) * 3, (slice(start, start + size), slice(4, 8), slice(4, 8)))


def test_two_voxels_two_millimeters_apart():
    first, second = voxels((5, 5, 5), (2, 2, 1)), voxels((5, 5, 5), (2, 2, 3))
    score = compare_masks(first, second, (1.0, 1.0, 1.0), 1.0)
    assert score.dice == 0
    assert score.hd95_mm == score.asd_mm == 2
    # of the eight corners of each voxel, four lie 1 mm from a corner of the other and four lie 2 mm away
    assert score.nsd == pytest.approx(0.5)
    assert compare_masks(first, second, (1.0, 1.0, 1.0), 2.0).nsd == 1
    assert compare_masks(first, second, (1.0, 1.0, 1.0), 0.5).nsd == 0


def test_shifted_cubes():
    score = compare_masks(cube(4), cube(5), (3.0, 1.0, 1.0), 1.0)
    assert score.dice == pytest.approx(3 / 4)
    # Borders: 56 voxels each. Of the first cube's, the face of 16 that sticks out is 3 mm away from the other's face;
    # of its inner face only the 4 inner voxels are not on the other's border: they are 1 mm from its sides.
    # The other cube mirrors this.
    assert score.hd95_mm == 3
    assert score.asd_mm == pytest.approx((16 * 3 + 4 * 1) / 56)


def test_anisotropic_spacing_moves_the_distances_and_not_the_dice():
    first, second = voxels((5, 5, 5), (1, 2, 2)), voxels((5, 5, 5), (3, 2, 2))
    assert compare_masks(first, second, (5.0, 1.0, 1.0), 1.0).hd95_mm == 10
    assert compare_masks(first, second, (0.5, 1.0, 1.0), 1.0).hd95_mm == 1


def test_equal_masks_are_perfect():
    assert compare_masks(blob(0), blob(0), (1.0, 2.0, 0.5), 0.0) == (1, 1, 0, 0)


def test_a_full_image_has_a_surface():
    full = np.ones((4, 4, 4), dtype=bool)
    assert compare_masks(full, full, (1.0, 1.0, 1.0), 1.0) == (1, 1, 0, 0)
    hollow = full & ~voxels((4, 4, 4), (slice(1, 3),) * 3)
    assert compare_masks(hollow, full, (1.0, 1.0, 1.0), 0.5).nsd < 1


def test_ten_steps_of_a_tenth_of_a_millimeter_are_within_one():
    first, second = voxels((14, 3, 3), (1, 1, 1)), voxels((14, 3, 3), (12, 1, 1))
    spacing_mm = tuple(np.full(3, 0.1, dtype=np.float32).tolist())  # as a NIfTI header stores it: a little above 0.1
    assert compare_masks(first, second, spacing_mm, 1.0).nsd == pytest.approx(0.5)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.7), (0.9, 2.5, 1.2)])
@pytest.mark.parametrize("tolerance_mm", [0.0, 1.0, 2.0])
def test_agrees_with_the_definition(spacing_mm, tolerance_mm):
    for seed in range(2):
        first, second = blob(seed), blob(seed + 10)
        score = compare_masks(first, second, spacing_mm, tolerance_mm)
        assert score.dice == pytest.approx(oracle.dice(first, second), abs=1e-12)
        assert score.nsd == pytest.approx(oracle.nsd(first, second, spacing_mm, tolerance_mm), abs=1e-4)
        expected = oracle.hd95_and_asd_mm(first, second, spacing_mm)
        assert (score.hd95_mm, score.asd_mm) == pytest.approx(expected, abs=1e-4)


def test_agrees_with_the_definition_in_two_dimensions():
    first, second = (blob(seed, (17, 14)) for seed in (0, 1))
    score = compare_masks(first, second, (0.5, 1.5), 1.0)
    assert score.nsd == pytest.approx(oracle.nsd(first, second, (0.5, 1.5), 1.0), abs=1e-4)
    expected = oracle.hd95_and_asd_mm(first, second, (0.5, 1.5))
    assert (score.hd95_mm, score.asd_mm) == pytest.approx(expected, abs=1e-4)


def test_agrees_with_monai():
    spacing_mm = (2.0, 0.9, 0.8)
    first, second = blob(3, (20, 22, 18)), blob(4, (20, 22, 18))
    score = compare_masks(first, second, spacing_mm, 1.0)
    pair = [torch.from_numpy(mask)[None, None] for mask in (first, second)]
    nsd = compute_surface_dice(*pair, [1.0], include_background=True, spacing=spacing_mm, use_subvoxels=True)
    hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=spacing_mm)
    asd = compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=spacing_mm)
    assert (score.nsd, score.hd95_mm, score.asd_mm) == pytest.approx((nsd.item(), hd95.item(), asd.item()), abs=1e-4)


def test_symmetry():
    first, second = blob(5), blob(6)
    assert compare_masks(first, second, (1.0, 2.0, 3.0), 1.0) == pytest.approx(
        compare_masks(second, first, (1.0, 2.0, 3.0), 1.0)
    )


@pytest.mark.parametrize("axes", [(0, 2, 1), (2, 0, 1)])
def test_axes_may_change_places_and_directions(axes):
    first, second, spacing_mm = blob(7), blob(8), (3.0, 0.8, 1.1)
    turned = [np.ascontiguousarray(mask.transpose(axes)[::-1]) for mask in (first, second)]
    expected = compare_masks(first, second, spacing_mm, 1.0)
    assert compare_masks(*turned, [spacing_mm[a] for a in axes], 1.0) == pytest.approx(expected, abs=1e-5)


def test_twice_the_spacing_is_twice_the_distance():
    small = compare_masks(blob(0), blob(1), (1.0, 2.0, 3.0), 1.0)
    large = compare_masks(blob(0), blob(1), (2.0, 4.0, 6.0), 2.0)
    assert large == pytest.approx((small.dice, small.nsd, 2 * small.hd95_mm, 2 * small.asd_mm))


def test_more_tolerance_never_lowers_the_nsd():
    values = [compare_masks(blob(0), blob(1), (1.0, 1.0, 2.0), t).nsd for t in (0.0, 0.5, 1.0, 2.0, 5.0, 50.0)]
    assert values == sorted(values)
    assert values[-1] == 1


def test_refusals():
    mask = cube(4)
    with pytest.raises(ValueError, match="one shape of 2 or 3 axes and a spacing per axis, got"):
        compare_masks(mask, mask[1:], (1, 1, 1), 1.0)
    with pytest.raises(ValueError, match="masks must not be empty, got 0 and 64 voxels"):
        compare_masks(np.zeros_like(mask), mask, (1, 1, 1), 1.0)
    with pytest.raises(ValueError, match="spacing_mm must be above zero"):
        compare_masks(mask, mask, (1, 1, 0), 1.0)
    with pytest.raises(ValueError, match="nsd_tolerance_mm not below"):
        compare_masks(mask, mask, (1, 1, 1), math.nan)
