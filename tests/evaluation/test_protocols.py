"""What full, empty and missing masks are worth by each protocol."""

import math

import numpy as np
import pytest

from common.evaluation import PROTOCOLS
from common.evaluation.masks import CroppedMask, Grid
from common.evaluation.protocols import score_masks

GRID = Grid((30, 40, 10), np.diag([1.0, 1.0, 12.0, 1.0]), (1.0, 1.0, 12.0))
DIAGONAL_MM = 130.0  # 30, 40 and 120 mm
MASK = CroppedMask((slice(3, 8), slice(4, 6), slice(0, 10)), np.ones((5, 2, 10), dtype=bool))  # 100 voxels of 12 mm³


def score(prediction, reference, protocol, is_missing=False):
    return score_masks(prediction, reference, GRID, 1.0, PROTOCOLS[protocol], is_missing)


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
def test_equal_masks(protocol):
    result = score(MASK, MASK, protocol)
    assert result.outcome == "scored"
    assert list(result.values.values()) == [1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("protocol", list(PROTOCOLS))
@pytest.mark.parametrize("is_missing", [False, True])
def test_a_missed_structure_has_the_worst_values(protocol, is_missing):
    result = score(None, MASK, protocol, is_missing)
    assert result.outcome == ("missing prediction" if is_missing else "only in reference")
    assert list(result.values.values()) == pytest.approx([0, 0, DIAGONAL_MM, DIAGONAL_MM, -1.2, -1])


def test_only_in_the_prediction():
    for protocol in ("segrap2023", "plain"):
        values = score(MASK, None, protocol).values
        assert list(values.values())[:5] == pytest.approx([0, 0, DIAGONAL_MM, DIAGONAL_MM, 1.2])
        assert math.isnan(values["relative_volume_difference"])
    result = score(MASK, None, "touchstone")
    assert result.outcome == "only in prediction"
    assert all(map(math.isnan, result.values.values()))


def test_in_neither():
    assert list(score(None, None, "segrap2023").values.values())[:5] == [1, 1, 0, 0, 0]
    for protocol in ("touchstone", "plain"):
        result = score(None, None, protocol)
        assert result.outcome == "both empty"
        assert all(map(math.isnan, result.values.values()))


def test_a_missing_prediction_is_no_empty_one():
    assert score(None, None, "segrap2023", is_missing=True).values["dice"] == 0
    assert score(None, None, "plain", is_missing=True).values["hd95_mm"] == DIAGONAL_MM
    assert math.isnan(score(None, None, "touchstone", is_missing=True).values["dice"])


def test_masks_in_different_windows():
    other = CroppedMask((slice(5, 10), slice(4, 6), slice(0, 10)), np.ones((5, 2, 10), dtype=bool))
    result = score(other, MASK, "plain")
    assert result.values["dice"] == pytest.approx(2 * 60 / 200)
    assert result.values["hd95_mm"] == 2


def test_volumes():
    double = CroppedMask((slice(0, 10), slice(4, 6), slice(0, 10)), np.ones((10, 2, 10), dtype=bool))
    values = score(double, MASK, "plain").values
    assert values["volume_difference_ml"] == pytest.approx(1.2)
    assert values["relative_volume_difference"] == pytest.approx(1.0)
    flat = Grid((30, 40), None, (1.0, 1.0))
    mask = CroppedMask((slice(0, 4), slice(0, 5)), np.ones((4, 5), dtype=bool))
    values = score_masks(mask, mask, flat, 1.0, PROTOCOLS["plain"]).values
    assert values == {"dice": 1, "nsd": 1, "hd95_px": 0, "asd_px": 0, "relative_volume_difference": 0}
