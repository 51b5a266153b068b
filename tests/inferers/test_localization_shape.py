"""The six points of an organ taken together: hand-solved cases, and least squares by NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from common.inferers.localization.shape import fit_shape

# ends of a box of 4 x 6 x 10 voxels, each point at the middle of its face
BOX = torch.tensor([[[-2, 0, 0], [0, -3, 0], [0, 0, -5], [2, 0, 0], [0, 3, 0], [0, 0, 5]]]).float()
PLACE = torch.tensor([10.0, 20.0, 30.0])


def test_moved_and_scaled_points_are_their_own_fit():
    found = PLACE + BOX * torch.tensor([0.5, 1.0, 2.0])
    torch.testing.assert_close(fit_shape(found, BOX, 0.0), found)


@pytest.mark.parametrize(("weight", "scale"), [(0.0, 3.0), (1.0, 2.0), (3.0, 1.5), (1e9, 1.0)])
def test_the_weight_draws_the_scale_to_that_of_the_supports(weight, scale):
    found = PLACE + BOX * 3
    torch.testing.assert_close(fit_shape(found, BOX, weight), PLACE + BOX * scale)


def test_one_point_found_far_away_does_not_move_the_others():
    found = PLACE + BOX
    found[0, 4, 0] += 50
    fitted = fit_shape(found, BOX, 1.0)
    # the point has no extent along this axis, so it does not change the scale either
    torch.testing.assert_close(fitted, PLACE + BOX)


def test_the_scale_is_that_of_ridge_regression():
    rng = np.random.default_rng(0)
    shape = rng.normal(size=(6, 3)) * [4, 7, 10]
    shape -= shape.mean(axis=0)
    found = 1.3 * shape + rng.normal(size=(6, 3)) + 40
    weight = 0.7
    fitted = fit_shape(torch.tensor(found)[None], torch.tensor(shape)[None], weight)[0].numpy()
    for axis in range(3):
        x, y = shape[:, axis], found[:, axis]
        # shift and scale, with one more equation: a scale of 1, weighed by the extent of the shape
        extent = np.sqrt(weight * (x**2).sum())
        system = np.r_[np.c_[np.ones(6), x], [[0, extent]]]
        (_, scale), *_ = np.linalg.lstsq(system, np.r_[y, extent], rcond=None)
        expected = scale * x + np.median(y - scale * x)
        np.testing.assert_allclose(fitted[:, axis], expected, rtol=1e-10)


def test_each_part_by_itself():
    shapes = torch.cat([BOX, 2 * BOX])
    found = torch.cat([PLACE + BOX, -PLACE + BOX])
    torch.testing.assert_close(fit_shape(found, shapes, 0.0), found)


def test_points_in_one_plane_stay_in_it():
    flat = BOX * torch.tensor([1.0, 1.0, 0.0])
    torch.testing.assert_close(fit_shape(PLACE + flat, flat, 1.0), PLACE + flat)
