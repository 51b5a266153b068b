"""Distances to strokes, by hand, by brute force and against SciPy."""

from __future__ import annotations

import math
import multiprocessing

import cv2
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Affined, Compose
from scipy import ndimage

from common.transforms import RestoreInfiniteDistancesd, ScribbleDistancesd, UnshiftScribbled
from common.transforms.distance_maps import euclidean_distance_mm, geodesic_distance_mm, pixel_graph
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


def test_geodesic_hand_solved():
    """A wall of intensity 1 in the middle: around it by its gap, or over it, up and down."""
    image = np.zeros((3, 3), dtype=np.float32)
    image[:2, 1] = 1.0
    strokes = np.zeros((3, 3), dtype=bool)
    strokes[0, 0] = True
    around = [[0, 11, 2 + 2 * ROOT2], [1, 10 + ROOT2, 1 + 2 * ROOT2], [2, 1 + ROOT2, 2 + ROOT2]]
    np.testing.assert_allclose(geodesic_distance_mm(strokes, pixel_graph(image, (1, 1), 10.0)), around, rtol=1e-6)
    over = [[0, 1.1, 2.2], [1, 0.1 + ROOT2, 1.2 + ROOT2], [2, 1 + ROOT2, 2 * ROOT2 + 0.2]]
    np.testing.assert_allclose(geodesic_distance_mm(strokes, pixel_graph(image, (1, 1), 0.1)), over, rtol=1e-6)
    # 3 mm rows, 4 mm columns, nothing but steps
    steps = [[0, 4, 8], [3, 5, 9], [6, 8, 10]]
    np.testing.assert_allclose(geodesic_distance_mm(strokes, pixel_graph(image, (3, 4), 0.0)), steps, rtol=1e-6)
    assert np.isinf(geodesic_distance_mm(np.zeros_like(strokes), pixel_graph(image, (1, 1), 1.0))).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (7, 9), (3, 4, 5)])
def test_geodesic_against_relaxation(shape):
    """All links, one after the other, until nothing is shorter."""
    rng = np.random.default_rng(0)
    image = rng.random(shape)
    strokes = rng.random(shape) < 0.1
    strokes.flat[-1] = True
    spacing_mm = (0.7, 1.3, 2.5)[: len(shape)]
    expected = oracle.geodesic_distance(image, strokes, spacing_mm, 4.0)
    graph = pixel_graph(image, spacing_mm, 4.0)
    np.testing.assert_allclose(geodesic_distance_mm(strokes, graph), expected, rtol=1e-6)
    assert graph.nnz == sum(1 for _ in oracle.neighbor_pairs(shape))


def test_an_edge_is_as_far_across_however_steep():
    """And noise, which makes an even region wide, is taken away before."""
    strokes = np.zeros((5, 40), dtype=bool)
    strokes[:, 0] = True
    sharp = np.tile(np.arange(40) > 20, (5, 1)).astype(np.float32)
    blurred = ndimage.gaussian_filter1d(sharp, 2.0)
    for image in (sharp, blurred):
        far = geodesic_distance_mm(strokes, pixel_graph(image, (1, 1), 1000.0))[2, -1]
        assert far == pytest.approx(1039, abs=1)
    noisy = sharp + np.random.default_rng(0).normal(0, 0.03, sharp.shape)
    plain, smooth = (
        geodesic_distance_mm(strokes, pixel_graph(noisy, (1, 1), 1000.0, weight))[2, -1] - 1039 for weight in (0, 0.03)
    )
    assert abs(smooth) < 0.3 * plain


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

    def test_slices_apart(self):
        """Where no link leads from slice to slice, each is measured by itself."""
        rng = np.random.default_rng(0)
        labels = torch.from_numpy(rng.choice([0, 1, 255], (1, 4, 7, 6), p=[0.05, 0.05, 0.9]))
        labels[:, 2] = 255  # a slice without strokes
        affine = torch.diag(torch.tensor([9.0, 2.0, 3.0, 1.0]))
        data = {"scribble": MetaTensor(labels, affine=affine), "image": MetaTensor(torch.rand(1, 4, 7, 6))}
        measure = ScribbleDistancesd("scribble", 2, method="geodesic", slice_axis=0, slice_step_mm=math.inf)
        distance = measure(data)["distance"]
        assert distance.shape == (2, 4, 7, 6)
        flat = torch.diag(torch.tensor([2.0, 3.0, 1.0]))
        for k in range(4):
            plane = {key: MetaTensor(value[:, k].as_tensor(), affine=flat) for key, value in data.items()}
            expected = ScribbleDistancesd("scribble", 2, method="geodesic")(plane)["distance"]
            torch.testing.assert_close(distance[:, k], expected)
        assert torch.isinf(distance[:, 2]).all()

    def test_slices_know_the_strokes_of_their_neighbors(self):
        """By hand: straight up by 9 + 100 + 10 times the difference of intensity, then along the slice."""
        labels = torch.full((1, 3, 1, 4), 255)
        labels[0, 0, 0, 0] = 1
        image = torch.zeros(1, 3, 1, 4)
        image[0, 1] = 0.5
        affine = torch.diag(torch.tensor([9.0, 2.0, 3.0, 1.0]))
        data = {"scribble": MetaTensor(labels, affine=affine), "image": MetaTensor(image)}
        measure = ScribbleDistancesd("scribble", 2, "distance", "geodesic", "image", 10.0, 0.0, 0, 100.0)
        distance = measure(data)["distance"]
        first = torch.tensor([0.0, 3.0, 6.0, 9.0])
        expected = torch.stack([first, first + 114, first + 228])
        torch.testing.assert_close(distance[1, :, 0], expected)

    def test_maps_warped_like_images(self):
        """Measured before a rotation they are what they would be behind it, and infinite where they were."""
        smooth = ndimage.gaussian_filter(np.random.default_rng(0).random((1, 48, 48)), (0, 4, 4))
        labels = torch.zeros(1, 48, 48)  # 0 is unlabelled in the chain, 1 the background
        labels[0, 10:20, 12], labels[0, 36, 20:40] = 1, 3
        data = {"image": torch.from_numpy(smooth / smooth.max()), "scribble": labels}
        data = {key: MetaTensor(value, affine=torch.eye(3)) for key, value in data.items()}
        measure = Compose(
            [UnshiftScribbled(), ScribbleDistancesd("scribble", 3, method="geodesic", denoise_weight=0.0)]
        )
        with_maps = {**data, "distance": measure(data)["distance"]}
        warped = Affined(
            ("image", "scribble", "distance"),
            rotate_params=0.3,
            mode=("bilinear", "nearest", "bilinear"),
            padding_mode=("border", "zeros", "border"),
        )(with_maps)
        before = RestoreInfiniteDistancesd("distance")(warped)["distance"]
        behind = measure(warped)["distance"]
        assert torch.isinf(before[1]).all()
        for c in (0, 2):
            ratio = before[c, 12:36, 12:36] / behind[c, 12:36, 12:36].clamp(min=5)
            assert ratio.quantile(0.1) > 0.8
            assert ratio.quantile(0.9) < 1.2
            assert ratio.median().item() == pytest.approx(1, abs=0.1)

    def test_refusals(self):
        with pytest.raises(ValueError, match="method must be one of euclidean, geodesic, got 'taxicab'"):
            ScribbleDistancesd("scribble", 2, method="taxicab")
        with pytest.raises(ValueError, match=r"slice_step_mm must be at least 0, got -1, 0\.03 and 100\.0"):
            ScribbleDistancesd("scribble", 2, intensity_mm=-1)
        with pytest.raises(TypeError, match="must be a MetaTensor, whose affine tells the pixel size"):
            ScribbleDistancesd("scribble", 2)({"scribble": torch.zeros(1, 3, 3)})
