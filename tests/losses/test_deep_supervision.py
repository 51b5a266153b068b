"""Dice plus cross entropy over scales against a slow computation written from the paper."""

import numpy as np
import pytest
import torch

from common.losses import DeepSupervisionDiceCELoss


def slow_loss(scales, target, num_classes, lambda_dice=0.5, lambda_ce=0.5):
    """The loss of specs/volume_fusion 1.4, scale by scale and class by class, on float64 arrays."""
    total, weight_sum = 0.0, 0.0
    for level, logits in enumerate(scales):
        batch, _, *size = logits.shape
        factors = [full // small for full, small in zip(target.shape[2:], size, strict=True)]
        soft = np.zeros_like(logits)
        for index in np.ndindex(batch, num_classes, *size):
            block = tuple(slice(i * f, (i + 1) * f) for i, f in zip(index[2:], factors, strict=True))
            soft[index] = (target[index[0], 0][block] == index[1]).mean()
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        p = np.exp(log_p)
        cross_entropy = -(soft * log_p).sum(axis=1).mean()
        dice = [
            (2 * (soft[:, c] * p[:, c]).sum() + 1e-5) / (soft[:, c].sum() + p[:, c].sum() + 1e-5)
            for c in range(num_classes)
        ]
        weight = 0.5**level
        total += weight * (lambda_dice * (1 - np.mean(dice)) + lambda_ce * cross_entropy)
        weight_sum += weight
    return total / weight_sum


@pytest.mark.parametrize("num_scales", [1, 2, 4])
def test_against_the_slow_loss(num_scales):
    rng = np.random.default_rng(0)
    target = rng.integers(0, 3, (2, 1, 8, 16, 16))
    sizes = [(8, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)][:num_scales]
    scales = [3 * rng.standard_normal((2, 3, *size)) for size in sizes]
    loss = DeepSupervisionDiceCELoss()([torch.from_numpy(s).float() for s in scales], torch.from_numpy(target))
    assert loss.item() == pytest.approx(slow_loss(scales, target, 3), rel=1e-5)


def test_weights_of_dice_and_cross_entropy():
    rng = np.random.default_rng(1)
    target = rng.integers(0, 4, (1, 1, 4, 4, 6))
    logits = rng.standard_normal((1, 4, 4, 4, 6))
    loss = DeepSupervisionDiceCELoss(lambda_dice=0.2, lambda_ce=1.5)(
        torch.from_numpy(logits).float(), torch.from_numpy(target)
    )
    assert loss.item() == pytest.approx(slow_loss([logits], target, 4, 0.2, 1.5), rel=1e-5)


def test_one_tensor_is_a_list_of_one():
    logits, target = torch.randn(2, 3, 4, 4, 4), torch.randint(0, 3, (2, 1, 4, 4, 4))
    loss = DeepSupervisionDiceCELoss()
    assert loss(logits, target).item() == pytest.approx(loss([logits], target).item(), rel=1e-6)


@pytest.mark.parametrize("magnitude", [1e3, 1e30])
def test_saturated_logits_give_numbers(magnitude):
    target = torch.randint(0, 3, (1, 1, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = torch.full((1, 3, 4, 4, 4), -magnitude)
    logits[:, 1] = magnitude
    logits.requires_grad_()
    loss = DeepSupervisionDiceCELoss()(logits, target)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_a_perfect_answer_costs_nothing():
    target = torch.randint(0, 3, (1, 1, 4, 4, 4), generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.one_hot(target[:, 0], 3).movedim(-1, 1) * 100.0
    assert DeepSupervisionDiceCELoss()(logits, target.float()).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "high", "message"),
    [
        ((1, 3, 4, 4, 4), 2, r"label map of shape \(1, 1, 4, 4, 4\).*got \(1, 3, 4, 4, 4\)"),
        ((1, 1, 4, 4, 5), 2, r"label map of shape \(1, 1, 4, 4, 4\).*got \(1, 1, 4, 4, 5\)"),
        ((1, 1, 4, 4, 4), 3, r"labels in \[0, 3\).*got 0 to 3"),
        ((1, 1, 4, 4, 4), -1, r"labels in \[0, 3\).*got -1 to 0"),
    ],
)
def test_refusals(shape, high, message):
    target = torch.zeros(shape, dtype=torch.int64)
    target.view(-1)[0] = high
    with pytest.raises(ValueError, match=message):
        DeepSupervisionDiceCELoss()(torch.zeros(1, 3, 4, 4, 4), target)
