"""Distances to strokes, by hand, by brute force and against SciPy."""

from __future__ import annotations

import multiprocessing

import cv2
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy import ndimage

from common.transforms import ScribbleDistancesd
from common.transforms.distance_maps import edge_costs, euclidean_distance_mm, geodesic_distance_mm
from tests.oracles import maco as oracle

ROOT2 = 2**0.5


def test_hand_solved():
    strokes = np.zeros((3, 4), dtype=bool)
    strokes[1, 1] = True
    expected = [[ROOT2, 1, ROOT2, 5**0.5], [1, 0, 1, 2], [ROOT2, 1, ROOT2, 5**0.5]]
    np.testing.assert_allclose(euclidean_distance_mm(strokes, (1, 1)), expected, rtol=1e-6)
    # 3 mm rows, 2 mm columns
    expected = [[13**0.5, 3, 13**0.5, 5], [2, 0, 2, 4], [13**0.5, 3, 13**0.5, 5]]
    np.testing.assert_allclose(euclidean_distance_mm(strokes, (3, 2)), expected, rtol=1e-6)


def test_nothing_drawn_is_infinitely_far():
    for shape in ((4, 5), (3, 4, 5)):
        assert np.isinf(euclidean_distance_mm(np.zeros(shape, dtype=bool), (1,) * len(shape))).all()


@pytest.mark.parametrize("shape", [(1, 7), (9, 1), (17, 23), (60, 50), (4, 9, 11), (1, 6, 6)])
@pytest.mark.parametrize("density", [0.004, 0.3])
def test_against_brute_force(shape, density):
    rng = np.random.default_rng(0)
    spacing_mm = (0.7, 1.3, 2.5)[: len(shape)]
    labels = np.where(rng.random(shape) < density, rng.integers(0, 2, shape), 255)
    labels.flat[0] = 0
    expected = oracle.distance_maps(labels, 2, spacing_mm)
    for label in (0, 1):
        np.testing.assert_allclose(euclidean_distance_mm(labels == label, spacing_mm), expected[label], rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7), (9, 1), (2, 2), (17, 23), (61, 50)])
@pytest.mark.parametrize("side_mm", [1.0, 0.3125])
def test_square_pixels_against_brute_force(shape, side_mm):
    rng = np.random.default_rng(0)
    strokes = rng.random(shape) < 0.02
    strokes.flat[-1] = True
    expected = oracle.distance_maps(np.where(strokes, 0, 255), 1, (side_mm, side_mm))[0]
    np.testing.assert_allclose(euclidean_distance_mm(strokes, (side_mm, side_mm)), expected, rtol=1e-5)
    # any memory layout
    np.testing.assert_allclose(euclidean_distance_mm(strokes.T, (side_mm, side_mm)), expected.T, rtol=1e-5)


@pytest.mark.parametrize("shape", [(64, 64), (512, 640), (3, 1023), (2048, 1500)])
def test_square_pixels_to_the_last_bit(shape):
    """Single precision of the exact distance, wherever the result lies in memory."""
    for seed in range(4):
        strokes = np.random.default_rng(seed).random(shape) < 20 / np.prod(shape)
        strokes[0, 0] = True
        expected = ndimage.distance_transform_edt(~strokes).astype(np.float32)
        np.testing.assert_array_equal(euclidean_distance_mm(strokes, (1, 1)), expected)


def test_forked_processes_behind_threads_of_opencv():
    """A loader's process hangs where it waits for threads that its parent had."""
    strokes = np.eye(64, dtype=bool)
    expected = euclidean_distance_mm(strokes, (1, 1))
    before = cv2.getNumThreads()
    cv2.setNumThreads(4)
    try:
        cv2.GaussianBlur(np.zeros((512, 512), np.float32), (31, 31), 5)
        with multiprocessing.get_context("fork").Pool(2) as pool:
            found = pool.starmap_async(euclidean_distance_mm, [(strokes, (1, 1))] * 4).get(timeout=60)
        assert cv2.getNumThreads() == 4
    finally:
        cv2.setNumThreads(before)
    for distance in found:
        np.testing.assert_array_equal(distance, expected)


@pytest.mark.parametrize("shape", [(90, 80), (12, 30, 40)])
def test_wide_and_tall_strokes(shape):
    rng = np.random.default_rng(1)
    strokes = np.zeros(shape, dtype=bool)
    strokes[..., 5:9, :] = rng.random(strokes[..., 5:9, :].shape) < 0.05
    spacing_mm = (3.0, 1.0, 2.0)[-len(shape) :]
    for turned, steps in ((strokes, spacing_mm), (strokes.T, spacing_mm[::-1])):
        expected = oracle.distance_maps_scipy(np.where(turned, 0, 255), 1, steps)[0]
        np.testing.assert_allclose(euclidean_distance_mm(turned, steps), expected, rtol=1e-5)


def test_geodesic_paths_go_around_edges():
    image = np.zeros((9, 9), dtype=np.float32)
    image[4, :8] = 1.0  # a wall with a gap on the right
    strokes = np.zeros((9, 9), dtype=bool)
    strokes[2, 1] = True
    even = geodesic_distance_mm(strokes, edge_costs(image, (1, 1), 0.0), (1, 1))
    assert even[2, 4] == pytest.approx(3)
    assert even[6, 1] == pytest.approx(4)
    walled = geodesic_distance_mm(strokes, edge_costs(image, (1, 1), 50.0), (1, 1))
    assert walled[2, 1] == 0
    assert walled[6, 1] > 3 * even[6, 1]
    assert np.isinf(geodesic_distance_mm(np.zeros_like(strokes), edge_costs(image, (1, 1), 1.0), (1, 1))).all()
    stretched = geodesic_distance_mm(strokes, edge_costs(np.zeros_like(image), (3, 1), 50.0), (3, 1))
    assert stretched[4, 1] == pytest.approx(6)


def test_smoothing_takes_noise_from_the_edges():
    """A ramp keeps its gradient under a Gaussian, and noise of one pixel loses most of its own."""
    ramp = np.tile(np.arange(20, dtype=np.float32), (20, 1))
    inside = (slice(5, 15), slice(5, 15))
    np.testing.assert_allclose(edge_costs(ramp, (1, 1), 3.0, edge_sigma=0.7)[inside], 4.0, rtol=1e-3)
    noise = np.random.default_rng(0).normal(size=(20, 20)).astype(np.float32)
    step = 20.0 * (ramp > 9)
    plain, smooth = (edge_costs(step + noise, (1, 1), 1.0, edge_sigma=s)[:, 2:7].mean() - 1 for s in (0.0, 0.7))
    assert smooth < 0.7 * plain


class TestScribbleDistancesd:
    def make(self, spacing=(2.0, 0.5)):
        labels = torch.full((1, 6, 8), 255)
        labels[0, 1, 1], labels[0, 4, 5:7] = 0, 2
        affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
        return {"scribble": MetaTensor(labels, affine=affine), "image": MetaTensor(torch.rand(1, 6, 8), affine=affine)}

    def test_classes_units_and_absent_classes(self):
        data = ScribbleDistancesd("scribble", num_classes=4)(self.make())
        distance = data["distance"]
        assert distance.shape == (4, 6, 8)
        assert distance.dtype == torch.float32
        assert distance[0, 1, 1] == 0
        assert distance[0, 2, 1] == 2.0
        assert distance[0, 1, 2] == 0.5
        assert distance[2, 4, 5] == distance[2, 4, 6] == 0
        assert torch.isinf(distance[[1, 3]]).all()

    def test_decreases_towards_the_stroke(self):
        distance = ScribbleDistancesd("scribble", num_classes=3)(self.make())["distance"]
        row = distance[0, 1, 1:]
        assert (row[1:] > row[:-1]).all()

    def test_volume_and_geodesic(self):
        labels = torch.full((1, 4, 5, 6), 255)
        labels[0, 2, 2, 2] = 1
        affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0]))
        data = {"scribble": MetaTensor(labels, affine=affine), "image": MetaTensor(torch.zeros(1, 4, 5, 6))}
        for method in ("euclidean", "geodesic"):
            distance = ScribbleDistancesd("scribble", 2, method=method)(data)["distance"]
            assert distance[1, 2, 2, 5] == pytest.approx(9)
            assert distance[1, 0, 2, 2] == pytest.approx(2)
            assert torch.isinf(distance[0]).all()

    def test_refusals(self):
        with pytest.raises(ValueError, match="method must be one of euclidean, geodesic, got 'taxicab'"):
            ScribbleDistancesd("scribble", 2, method="taxicab")
        with pytest.raises(ValueError, match=r"gradient_weight and edge_sigma must be at least 0, got -1 and 0\.7"):
            ScribbleDistancesd("scribble", 2, gradient_weight=-1)
        with pytest.raises(TypeError, match="must be a MetaTensor, whose affine tells the pixel size"):
            ScribbleDistancesd("scribble", 2)({"scribble": torch.zeros(1, 3, 3)})
