"""Metrics of boxes and extreme points, hand-solved."""

import math

import numpy as np
import pytest

from common.data.boxes import VoxelBox
from common.metrics.boxes import box_iou, extreme_point_errors_mm, score_box, wall_distance_mm

BOX = VoxelBox((0, 0, 0), (4, 4, 4))


def test_iou_of_half_open_boxes():
    assert box_iou(BOX, BOX) == 1.0
    assert box_iou(BOX, VoxelBox((2, 0, 0), (6, 4, 4))) == pytest.approx(32 / 96)
    assert box_iou(BOX, VoxelBox((4, 0, 0), (6, 4, 4))) == 0.0
    assert box_iou(BOX, VoxelBox((9, 9, 9), (10, 10, 10))) == 0.0
    one = VoxelBox((3, 3, 3), (4, 4, 4))
    assert box_iou(one, one) == 1.0


def test_wall_distance():
    assert wall_distance_mm(BOX, VoxelBox((1, 0, 0), (4, 6, 4)), (3.0, 1.5, 1.0)) == pytest.approx((3 + 3) / 6)


def test_point_errors_by_axis():
    true = np.zeros((6, 3))
    points = true.copy()
    points[0] = [3, 0, 4]  # right, anterior, superior
    mean_mm, along_mm = extreme_point_errors_mm(points, true)
    assert mean_mm == pytest.approx(5 / 6)
    np.testing.assert_allclose(along_mm, [4 / 6, 0, 3 / 6])


def test_missed_false_and_absent_organs():
    points = np.zeros((6, 3))
    absent = score_box(None, None, None, None, (1, 1, 1), (3, 4, 12))
    assert all(math.isnan(value) for value in absent)
    for missed in (
        score_box(None, None, BOX, points, (1, 1, 1), (3, 4, 12)),
        score_box(BOX, points, None, None, (1, 1, 1), (3, 4, 12)),
    ):
        assert missed.iou == 0.0
        assert set(missed[1:]) == {13.0}
    assert score_box(BOX, points, BOX, points, (1, 1, 1), (3, 4, 12)) == (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
