"""Scores of hand-solved label maps."""

from __future__ import annotations

import math

import pytest
import torch

from common.metrics import score_structures

SPACING_MM = (3.0, 1.0, 1.0)


def cube(start: int, size: int = 4) -> torch.Tensor:
    label = torch.zeros(16, 16, 16, dtype=torch.uint8)
    label[start : start + size, 6:10, 6:10] = 1
    return label


def test_perfect_match():
    (score,) = score_structures(cube(4), cube(4), [1], SPACING_MM, 1.0).values()
    assert score == (1.0, 0.0, 1.0)


def test_shift_by_one_thick_slice():
    score = score_structures(cube(5), cube(4), [1], SPACING_MM, 1.0)[1]
    assert score.dice == pytest.approx(2 * 3 / 8)
    assert score.hd95_mm == pytest.approx(3.0)
    # the end faces are 3 mm apart, the sides partly lie on each other
    assert 0.3 < score.nsd < 0.9
    assert score_structures(cube(5), cube(4), [1], SPACING_MM, 3.1)[1].nsd == pytest.approx(1.0)


def test_spacing_is_per_axis():
    moved = torch.zeros(16, 16, 16)
    moved[4:8, 8:12, 6:10] = 1
    assert score_structures(moved, cube(4), [1], SPACING_MM, 1.0)[1].hd95_mm == pytest.approx(2.0)


def test_two_dimensions():
    first, second = torch.zeros(9, 12), torch.zeros(9, 12)
    first[2:5, 2:5] = 1
    second[2:5, 3:6] = 1
    score = score_structures(first, second, [1], (1.0, 0.5), 0.6)[1]
    assert score.dice == pytest.approx(2 / 3)
    assert score.hd95_mm == pytest.approx(0.5)
    assert score.nsd == pytest.approx(1.0)


def test_structure_on_the_border():
    label = torch.zeros(8, 8, 8)
    label[:3] = 1
    assert score_structures(label, label, [1], (1, 1, 1), 1.0)[1] == (1.0, 0.0, 1.0)


def test_empty_masks():
    empty = torch.zeros(16, 16, 16)
    diagonal_mm = math.hypot(48, 16, 16)
    assert score_structures(empty, cube(4), [1], SPACING_MM, 1.0)[1] == (0.0, pytest.approx(diagonal_mm), 0.0)
    assert score_structures(cube(4), empty, [1], SPACING_MM, 1.0)[1] == (0.0, pytest.approx(diagonal_mm), 0.0)
    assert all(math.isnan(value) for value in score_structures(empty, empty, [1], SPACING_MM, 1.0)[1])


def test_refuses_different_shapes():
    with pytest.raises(ValueError, match=r"one shape and a spacing per axis, got \(16, 16, 16\), \(8, 8\) and 3"):
        score_structures(cube(4), torch.zeros(8, 8), [1], SPACING_MM, 1.0)
