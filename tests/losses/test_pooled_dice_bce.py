"""Binary cross-entropy and pooled Dice."""

from __future__ import annotations

import math

import pytest
import torch

from common.losses import PooledDiceBCELoss


def test_hand_solved():
    """Probability 1/2 everywhere, three of eight pixels set: BCE = ln 2, Dice = (2 * 1.5 + 1) / (4 + 3 + 1)."""
    target = torch.tensor([1, 1, 1, 0, 0, 0, 0, 0]).reshape(2, 2, 1, 2)
    loss = PooledDiceBCELoss()(torch.zeros(2, 2, 1, 2), target)
    assert loss.item() == pytest.approx(math.log(2) + 1 - 4 / 8)


def test_pooling_weighs_pixels_not_channels():
    logits, target = torch.full((1, 2, 4, 4), -20.0), torch.zeros(1, 2, 4, 4)
    target[0, 0], logits[0, 0] = 1, 20.0  # a large channel, right
    target[0, 1, 0, 0] = 1  # a small one, missed
    loss = PooledDiceBCELoss(smooth=0)(logits, target)
    assert loss.item() == pytest.approx(20 / 32 + 1 - 2 * 16 / 33, rel=1e-4)  # averaged channels would give 1/2


def test_empty_target_and_extreme_logits_are_finite():
    logits = torch.full((1, 2, 4, 4), 1000.0, requires_grad=True)
    loss = PooledDiceBCELoss()(logits, torch.zeros(1, 2, 4, 4, dtype=torch.uint8))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 2, 4, 4\) and \(1, 1, 4, 4\); check that mask_ranges"):
        PooledDiceBCELoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))
