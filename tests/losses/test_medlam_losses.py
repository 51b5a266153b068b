"""The losses of MedLAM against hand-solved cases and a slow loop."""

import math

import pytest
import torch

from common.losses import MultiScaleSimilarityLoss, RelativeDistanceLoss
from common.losses.relative_distance import offset_mm
from tests.oracles import medlam as oracle


class TestRelativeDistance:
    def test_hand_solved(self):
        position = torch.tensor([[math.atanh(0.1), 0.0, math.atanh(-0.5)]])
        zero = torch.zeros(1, 3)
        torch.testing.assert_close(offset_mm(position, zero), torch.tensor([[150.0, 0.0, -300.0]]))
        true = torch.tensor([[147.0, 6.0, -300.0]])
        assert RelativeDistanceLoss()(position, zero, true).item() == pytest.approx((9 + 36) / 3, rel=1e-4)
        normalized = RelativeDistanceLoss(normalize=True)(position, zero, true).item()
        assert normalized == pytest.approx((0.002**2 + 0.01**2) / 3, rel=1e-3)

    def test_swapped_patches_turn_the_sign(self):
        a, b = torch.randn(2, 4, 3)
        torch.testing.assert_close(offset_mm(a, b), -offset_mm(b, a))

    def test_refused_range(self):
        with pytest.raises(ValueError, match="three positive numbers in mm, got"):
            RelativeDistanceLoss((1500, 600, 0))


@pytest.fixture
def maps():
    torch.manual_seed(0)
    original = [torch.randn(2, 4, n, n, n) for n in (2, 4, 8)]
    deformed = [m + 0.3 * torch.randn_like(m) for m in original]
    axes = torch.meshgrid(*[3.0 * torch.arange(8)] * 3, indexing="ij")
    grid = torch.stack(axes).expand(2, -1, -1, -1, -1)
    points = torch.tensor([[0, 3, 7], [4, 4, 4], [6, 1, 2]])
    points_mm = (3.0 * points).expand(2, -1, -1)
    return original, deformed, points, points_mm, grid + 0.4 * torch.randn_like(grid)


class TestSimilarity:
    @pytest.mark.parametrize("options", [{}, {"sharpness": 5.0, "positive_mm": 4.0, "negative_mm": 4.0}])
    def test_against_the_slow_loop(self, maps, options):
        loss = MultiScaleSimilarityLoss(**options)
        expected = oracle.similarity_loss(*maps, loss.sharpness, loss.positive_mm, loss.negative_mm)
        assert loss(*maps).item() == pytest.approx(expected, rel=1e-5)

    def test_equal_features_are_found(self, maps):
        original, _, points, points_mm, grid = maps
        loss = MultiScaleSimilarityLoss()
        found = loss(original, original, points, points_mm, grid)
        lost = loss(original, [m.flip(2) for m in original], points, points_mm, grid)
        assert found < 0.8 * lost

    def test_points_outside_the_copy_count_for_nothing(self, maps):
        original, deformed, points, points_mm, grid = maps
        loss = MultiScaleSimilarityLoss()(original, deformed, points, points_mm + 1000, grid)
        assert torch.isfinite(loss)

    def test_certain_and_wrong_stays_finite(self):
        """All of the softmax on a voxel far away: log(1 - S) must not be infinite, nor its gradient."""
        features = torch.zeros(1, 2, 8, 8, 8)
        features[:, 1] = 1.0
        features[0, :, 7, 7, 7] = torch.tensor([1.0, 0.0])
        query = features.flip(2, 3, 4).clone().requires_grad_()
        axes = torch.meshgrid(*[3.0 * torch.arange(8)] * 3, indexing="ij")
        loss = MultiScaleSimilarityLoss(sharpness=200.0)(
            [query], [features], torch.zeros(1, 3, dtype=torch.long), torch.zeros(1, 1, 3), torch.stack(axes)[None]
        )
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(query.grad).all()

    @pytest.mark.parametrize("options", [{"sharpness": 0.0}, {"positive_mm": 7.0}, {"positive_mm": 0.0}])
    def test_refusals(self, options):
        with pytest.raises(ValueError, match="0 < positive_mm <= negative_mm, got"):
            MultiScaleSimilarityLoss(**options)
