"""Losses on strokes and beyond them, against hand-solved cases and slow loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from common.losses import (
    ConsistencyLoss,
    ContinuousPseudoLabelLoss,
    GatedCRFLoss,
    PartialCrossEntropy,
    continuous_pseudo_labels,
)
from common.transforms import ScribbleDistancesd
from tests.oracles import maco as oracle

INF = math.inf


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


class TestPartialCrossEntropy:
    def test_hand_solved(self):
        logits = torch.log(torch.tensor([[[[0.9, 0.2]], [[0.1, 0.8]]]]))
        target = torch.tensor([[[[0, 255]]]])
        assert PartialCrossEntropy()(logits, target).item() == pytest.approx(-math.log(0.9), rel=1e-5)
        target = torch.tensor([[[[0, 1]]]])
        mean = -(math.log(0.9) + math.log(0.8)) / 2
        assert PartialCrossEntropy()(logits, target).item() == pytest.approx(mean, rel=1e-5)

    def test_class_balance_is_the_mean_of_class_means(self, rng):
        logits = torch.randn(2, 3, 4, 5, generator=rng)
        target = torch.full((2, 1, 4, 5), 255)
        target[0, 0, 0] = 0
        target[1, 0, 2, 3] = 2
        loss = F.cross_entropy(logits, target[:, 0].clamp(max=2), reduction="none")
        expected = (loss[0, 0].mean() + loss[1, 2, 3]) / 2
        torch.testing.assert_close(PartialCrossEntropy(class_balance=True)(logits, target), expected)

    @pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 3, 3, 4, 5)])
    def test_equals_torch_with_labels_and_is_zero_without(self, rng, shape):
        logits = torch.randn(shape, generator=rng, requires_grad=True)
        target = torch.randint(0, 3, (shape[0], 1, *shape[2:]), generator=rng)
        target[target == 1] = 255
        expected = F.cross_entropy(logits, target[:, 0], ignore_index=255)
        torch.testing.assert_close(PartialCrossEntropy()(logits, target.to(torch.uint8)), expected)
        for balance in (False, True):
            loss = PartialCrossEntropy(balance)(logits, torch.full_like(target, 255))
            loss.backward()
            assert loss.item() == 0.0
            assert logits.grad.abs().max() == 0.0

    def test_refusals(self):
        with pytest.raises(ValueError, match=r"classes in \[0, 2\) or 255 where nothing is labelled, got \[4\]"):
            PartialCrossEntropy()(torch.zeros(1, 2, 2, 2), torch.full((1, 1, 2, 2), 4))
        with pytest.raises(ValueError, match=r"shape \(1, 1, 2, 2\).*got \(1, 2, 2\)"):
            PartialCrossEntropy()(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2))


class TestContinuousPseudoLabels:
    def test_decay_hand_solved(self):
        distances = torch.tensor([[[0.0, 2.0, 4.0], [INF, INF, INF]]])
        labels = continuous_pseudo_labels(distances, 2.0)
        torch.testing.assert_close(labels[0, 0], torch.tensor([1.0, math.exp(-1), math.exp(-2)]))
        assert (labels[0, 1] == 0).all()

    def test_acceptance_i_one_on_strokes_falling_with_distance_zero_for_absent_classes(self):
        """From strokes to labels: classes 0 and 2 are drawn, class 1 is absent."""
        strokes = np.full((9, 7), 255)
        strokes[2, 1:6], strokes[7, 3] = 0, 2
        scribble = MetaTensor(torch.as_tensor(strokes)[None], affine=torch.diag(torch.tensor([1.5, 1.0, 1.0])))
        distances = ScribbleDistancesd("scribble", 3)({"scribble": scribble})["distance"][None]
        labels = continuous_pseudo_labels(distances, 2.0)
        assert (labels[0, 1] == 0).all()
        for c in (0, 2):
            drawn = torch.as_tensor(strokes == c)
            assert (labels[0, c][drawn] == 1).all()
            assert (labels[0, c][~drawn] < 1).all()
            order = distances[0, c].flatten().argsort()
            falling = labels[0, c].flatten()[order].diff()
            nearer = distances[0, c].flatten()[order].diff() > 1e-6
            assert (falling[nearer] < 0).all()
            assert (falling <= 1e-7).all()

    def test_one_tau_a_class_and_normalized(self):
        distances = torch.tensor([[[3.0], [1.0], [INF]]])
        labels = continuous_pseudo_labels(distances, [3.0, 1.0, 5.0], normalized=True)
        torch.testing.assert_close(labels, torch.tensor([[[0.5], [0.5], [0.0]]]))

    def test_far_from_every_stroke_the_nearest_class_wins(self):
        distances = torch.tensor([[[10_000.0], [10_090.0]]])
        labels = continuous_pseudo_labels(distances, 4.5, normalized=True)
        assert labels[0, 0, 0] > 0.999

    def test_acceptance_ii_weighted_form_on_a_toy(self):
        """3 x 3: class 0 in one corner, class 1 in the opposite one, tau 1, logits of one even prediction."""
        labels = np.full((3, 3), 255)
        labels[0, 0], labels[2, 2] = 0, 1
        distances = torch.from_numpy(oracle.distance_maps(labels, 2, (1, 1))).float()[None]
        p = 0.25
        logits = torch.log(torch.tensor([p, 1 - p])).view(1, 2, 1, 1).expand(1, 2, 3, 3)
        # both maps are mirror images of each other, so their sums are equal
        expected = -(math.log(p) + math.log(1 - p)) / 2
        assert ContinuousPseudoLabelLoss(1.0, "weighted")(logits, distances).item() == pytest.approx(expected, rel=1e-5)
        one_sided = distances.clone()
        one_sided[:, 1] = INF
        loss = ContinuousPseudoLabelLoss(1.0, "weighted")(logits, one_sided)
        assert loss.item() == pytest.approx(-math.log(p), rel=1e-5)

    @pytest.mark.parametrize("form", ["weighted", "normalized"])
    def test_against_the_loop(self, rng, form):
        labels = np.full((5, 7), 255)
        labels[0, :3], labels[2, 2], labels[4, 6] = 0, 1, 2
        distances = oracle.distance_maps(labels, 4, (1.5, 1.0))
        logits = torch.randn(1, 4, 5, 7, generator=rng)
        loop = {
            "weighted": oracle.weighted_pseudo_label_loss,
            "normalized": oracle.normalized_pseudo_label_loss,
        }[form]
        expected = loop(logits[0].numpy().astype(float), distances, 2.5)
        loss = ContinuousPseudoLabelLoss(2.5, form)(logits, torch.from_numpy(distances).float()[None])
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_confidence_form_hand_solved(self):
        logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).view(1, 3, 1)
        distances = torch.tensor([[[0.0], [math.log(2)], [INF]]])
        expected = (-0.5 * math.log(0.3) - 0.5 * math.log(0.7) - math.log(0.8)) / 2
        loss = ContinuousPseudoLabelLoss(1.0, "confidence")(logits, distances)
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_dice_hand_solved(self):
        # q is (2/3, 1/3) at one pixel and (1/3, 2/3) at the other
        distances = torch.tensor([[0.0, math.log(2)], [math.log(2), 0.0]]).view(1, 2, 2)
        logits = torch.log(torch.tensor([[0.8, 0.6], [0.2, 0.4]])).view(1, 2, 2)
        plain = ContinuousPseudoLabelLoss(1.0)(logits, distances)
        both = ContinuousPseudoLabelLoss(1.0, dice_weight=3.0)(logits, distances)
        first = 2 * (0.8 * 2 / 3 + 0.6 / 3) / (0.64 + 0.36 + 5 / 9)
        second = 2 * (0.2 / 3 + 0.4 * 2 / 3) / (0.04 + 0.16 + 5 / 9)
        assert (both - plain).item() == pytest.approx(3 * (1 - (first + second) / 2), rel=1e-4)

    @pytest.mark.parametrize("form", ["weighted", "normalized", "confidence"])
    def test_dice_is_zero_where_the_prediction_is_the_pseudo_label(self, rng, form):
        distances = torch.rand(2, 3, 4, 5, generator=rng) * 5
        logits = -distances / 2.5
        plain = ContinuousPseudoLabelLoss(2.5, form)(logits, distances)
        both = ContinuousPseudoLabelLoss(2.5, form, dice_weight=1.0)(logits, distances)
        torch.testing.assert_close(both, plain)

    @pytest.mark.parametrize("dice_weight", [0.0, 1.0])
    @pytest.mark.parametrize("form", ["weighted", "normalized", "confidence"])
    def test_samples_without_strokes_change_nothing(self, rng, form, dice_weight):
        logits = torch.randn(2, 3, 4, 5, generator=rng, requires_grad=True)
        distances = torch.full((2, 3, 4, 5), INF)
        loss = ContinuousPseudoLabelLoss(2.0, form, dice_weight)(logits, distances)
        loss.backward()
        assert loss.item() == 0.0
        assert logits.grad.abs().max() == 0.0
        distances[0] = torch.rand(3, 4, 5, generator=rng) * 9
        both = ContinuousPseudoLabelLoss(2.0, form, dice_weight)(logits, distances)
        alone = ContinuousPseudoLabelLoss(2.0, form, dice_weight)(logits[:1], distances[:1])
        torch.testing.assert_close(both, alone)

    def test_refusals(self):
        with pytest.raises(ValueError, match="form must be one of normalized, weighted, confidence, got 'normalised'"):
            ContinuousPseudoLabelLoss(form="normalised")
        with pytest.raises(ValueError, match="dice_weight must be at least 0, got -1"):
            ContinuousPseudoLabelLoss(dice_weight=-1)
        with pytest.raises(ValueError, match=r"tau_mm must be positive, got \[0\]"):
            ContinuousPseudoLabelLoss(0)
        with pytest.raises(ValueError, match=r"one for each of the 3 classes, background first, got \[1, 2\]"):
            ContinuousPseudoLabelLoss([1, 2])(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))
        with pytest.raises(ValueError, match=r"the shape of the logits, \(1, 3, 4\), got \(1, 2, 4\)"):
            ContinuousPseudoLabelLoss()(torch.zeros(1, 3, 4), torch.zeros(1, 2, 4))


class TestConsistency:
    def test_hand_solved_and_gradient_on_one_side_alone(self):
        clean = torch.log(torch.tensor([0.6, 0.4])).view(1, 2, 1, 1).repeat(1, 1, 1, 2).requires_grad_()
        masked = torch.log(torch.tensor([[0.5, 0.9], [0.5, 0.1]])).view(1, 2, 1, 2).clone().requires_grad_()
        mask = torch.tensor([True, False]).view(1, 1, 1, 2)
        left = -math.log(0.5)
        right = -0.6 * math.log(0.9) - 0.4 * math.log(0.1)
        loss = ConsistencyLoss()(masked, clean, mask)
        assert loss.item() == pytest.approx((left + right) / 2, rel=1e-5)
        loss.backward()
        assert clean.grad is None
        assert masked.grad.abs().sum() > 0
        assert ConsistencyLoss(region="masked")(masked, clean, mask).item() == pytest.approx(left, rel=1e-5)
        mse = ConsistencyLoss("mse")(masked, clean, mask).item()
        assert mse == pytest.approx((0.01 + 0.09) / 2, rel=1e-4)
        assert ConsistencyLoss(region="masked")(masked, clean, ~mask & False).item() == 0.0

    def test_refusal(self):
        with pytest.raises(ValueError, match="kind must be one of cross_entropy, mse"):
            ConsistencyLoss("kl")


class TestGatedCRF:
    @pytest.mark.parametrize("radius", [1, 3, 9])
    def test_against_the_loop(self, rng, radius):
        logits = torch.randn(1, 3, 5, 6, generator=rng)
        image = torch.rand(1, 1, 5, 6, generator=rng)
        expected = oracle.gated_crf(torch.softmax(logits, 1)[0].double().numpy(), image[0, 0].numpy(), 2.0, 0.3, radius)
        loss = GatedCRFLoss(2.0, 0.3, radius)(logits, image)
        assert loss.item() == pytest.approx(expected, rel=1e-5)

    def test_one_certain_class_costs_nothing_and_volumes_work(self):
        logits = torch.zeros(1, 2, 3, 4, 5)
        image = torch.zeros(1, 1, 3, 4, 5)
        assert GatedCRFLoss(radius=(1, 2, 2))(logits, image) > 0
        logits[:, 0] = 50
        assert GatedCRFLoss(radius=1)(logits, image).item() == pytest.approx(0, abs=1e-5)
