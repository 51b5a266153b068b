"""Scores of 2D masks against hand-solved cases and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from common.metrics import e_measure, s_measure, score_channels
from tests.oracles.mask_measures import directed_distances, e_measure_loop, s_measure_loop

EMPTY, FULL = np.zeros((16, 16), dtype=bool), np.ones((16, 16), dtype=bool)


def make_square(first=4, last=12):
    mask = EMPTY.copy()
    mask[first:last, first:last] = True
    return mask


def random_blobs(seed):
    generator = np.random.default_rng(seed)
    masks = []
    for _ in range(2):
        coarse = generator.random((5, 4)) < 0.4
        masks.append(np.kron(coarse, np.ones((3, 4), dtype=bool))[:13, :15])
    return masks


class TestHandSolved:
    def test_equal_masks(self):
        (score,) = score_channels(make_square()[None], make_square()[None])
        assert score.dice == 1
        assert (score.hd95_px, score.asd_px) == (0, 0)
        assert score.e_measure == pytest.approx(256 / 255, abs=1e-7)  # 100.392 in percent, as published
        assert score.s_measure == pytest.approx(1.00794, abs=1e-5)  # 100.794

    def test_a_shifted_square(self):
        """Two 4x4 squares two columns apart: 12 border pixels each, of which the distances can be listed."""
        prediction, reference = EMPTY.copy(), EMPTY.copy()
        prediction[4:8, 4:8] = True
        reference[4:8, 6:10] = True
        (score,) = score_channels(prediction[None], reference[None])
        assert score.dice == pytest.approx(2 * 8 / 32)
        # column 4: 2 each; column 5: 1 each; column 6: 0 each; column 7: 0 in the corners, 1 in the two between
        assert score.asd_px == pytest.approx((4 * 2 + 2 * 1 + 2 * 0 + (0 + 1 + 1 + 0)) / 12)
        assert score.hd95_px == 2

    def test_distance_runs_from_the_prediction_only(self):
        small, large = make_square(6, 10), make_square(2, 14)
        (inward,) = score_channels(small[None], large[None])
        (outward,) = score_channels(large[None], small[None])
        assert inward.asd_px == pytest.approx(4)
        assert outward.asd_px > 4
        assert inward.hd95_px == outward.hd95_px

    def test_opposite_masks(self):
        square = make_square()
        assert e_measure(~square, square) == pytest.approx(0, abs=1e-6)
        assert s_measure(~square, square) < 0.1


class TestEmptyMasks:
    def test_nothing_predicted_where_nothing_is(self):
        (score,) = score_channels(EMPTY[None], EMPTY[None])
        assert score == pytest.approx((1, 0, 0, 256 / 255, 1))

    @pytest.mark.parametrize("empty_first", [True, False])
    def test_one_of_two_empty(self, empty_first):
        pair = (EMPTY[None], make_square()[None]) if empty_first else (make_square()[None], EMPTY[None])
        (score,) = score_channels(*pair)
        assert score.dice == pytest.approx(0, abs=1e-6)
        assert score.hd95_px == score.asd_px == pytest.approx(math.hypot(16, 16))
        if empty_first:  # as the published code: 25.1 percent
            assert score.e_measure == pytest.approx(0.25 * 256 / 255)
        else:  # a quarter of the image is wrong
            assert score.e_measure == pytest.approx(0.75 * 256 / 255)
            assert score.s_measure == pytest.approx(0.75)

    def test_full_reference(self):
        assert e_measure(make_square(), FULL) == pytest.approx(0.25 * 256 / 255)
        assert s_measure(make_square(), FULL) == pytest.approx(0.25)
        (score,) = score_channels(FULL[None], FULL[None])
        assert score.dice == 1
        assert score.asd_px == 0


@pytest.mark.parametrize("seed", range(8))
def test_loops_agree(seed):
    prediction, reference = random_blobs(seed)
    (score,) = score_channels(prediction[None], reference[None])
    assert score.e_measure == pytest.approx(e_measure_loop(prediction, reference), abs=1e-9)
    assert score.s_measure == pytest.approx(s_measure_loop(prediction, reference), abs=1e-9)
    forward, backward = directed_distances(prediction, reference), directed_distances(reference, prediction)
    assert score.asd_px == pytest.approx(sum(forward) / len(forward), abs=1e-5)
    assert score.hd95_px == pytest.approx(max(np.percentile(forward, 95), np.percentile(backward, 95)), abs=1e-5)


def test_an_object_in_the_corner_leaves_quadrants_empty_or_of_one_pixel():
    for corner in ((15, 15), (14, 14), (0, 0)):
        reference = EMPTY.copy()
        reference[corner] = True
        value = s_measure(reference, reference)
        assert value == pytest.approx(s_measure_loop(reference, reference))
        assert np.isfinite(value)


def test_channels_are_scored_apart():
    disc, cup = make_square(2, 14), make_square(6, 10)
    scores = score_channels(np.stack([disc, EMPTY]), np.stack([disc, cup]))
    assert [round(score.dice, 3) for score in scores] == [1, 0]


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"one shape \(K, H, W\), got \(16, 16\)"):
        score_channels(EMPTY, EMPTY)
    with pytest.raises(ValueError, match=r"one shape \(H, W\), got \(16, 15\)"):
        e_measure(EMPTY[:, :15], EMPTY)
