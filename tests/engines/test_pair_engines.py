"""Pairs of patches between the loader, the trainer and the validation."""

import pytest
import torch
from torch import nn

from common.engines import OffsetInferer, PairPrepareBatch, collate_volumes, freeze_pairs
from common.losses import MultiScaleSimilarityLoss, PairedPatchLoss, RelativeDistanceLoss
from common.losses.relative_distance import offset_mm
from common.networks import MedLAM, PairedMedLAM
from common.transforms import PairedPatches

PATCH = (16, 16, 32)


@pytest.fixture
def pairs():
    return PairedPatches(PATCH, num_points=4, seed=1)


@pytest.fixture
def scans():
    generator = torch.Generator().manual_seed(0)
    return [{"image": torch.rand(1, *size, generator=generator)} for size in ((30, 40, 50), (20, 30, 40))]


def test_batches_of_scans_of_different_sizes(pairs, scans):
    patches, target = PairPrepareBatch(pairs)(collate_volumes(scans), "cpu")
    assert patches.shape == (4, 2, 1, *PATCH)
    assert target["center_mm"].shape == (4, 2, 3)


def test_frozen_pairs_are_the_same_and_leave_training_alone(pairs, scans):
    state = pairs.generator.get_state()
    first, again = (freeze_pairs(scans, pairs, 3, seed=5) for _ in range(2))
    assert len(first) == 3
    for a, b in zip(first, again, strict=True):
        assert a["image"].shape == (2, 1, *PATCH)
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["label"], b["label"])
    assert torch.equal(pairs.generator.get_state(), state)
    with pytest.raises(ValueError, match="at least one scan and one pair, got 0 and 3"):
        freeze_pairs([], pairs, 3)


def test_offset_of_a_known_network():
    class Mean(nn.Module):
        def forward(self, x):
            return x.mean(dim=(1, 2, 3, 4))[:, None].expand(-1, 3)

    inputs = torch.stack([torch.full((2, 1, 4, 4, 4), 0.3), torch.full((2, 1, 4, 4, 4), 0.1)], dim=1)
    expected = torch.tensor([1500.0, 600.0, 600.0]) * torch.tanh(torch.tensor(0.2))
    torch.testing.assert_close(OffsetInferer()(inputs, Mean()), expected.expand(2, 3))


def test_loss_of_all_pairs_is_the_mean_over_them(pairs, scans):
    torch.manual_seed(0)
    patches, target = pairs([scan["image"] for scan in scans])
    with torch.no_grad():
        prediction = PairedMedLAM(MedLAM(base_channels=2, patch_size=PATCH))(patches)
    parts = RelativeDistanceLoss(), MultiScaleSimilarityLoss()
    position, center_mm = prediction["position"], target["center_mm"]
    errors = [
        (offset_mm(position[a], position[b]) - center_mm[a] + center_mm[b]).square().mean()
        for a in range(4)
        for b in range(a + 1, 4)
    ]
    one = PairedPatchLoss(*parts, similarity_weight=0.0)(prediction, target)
    torch.testing.assert_close(one, errors[0])
    every = PairedPatchLoss(*parts, similarity_weight=0.0, all_pairs=True)(prediction, target)
    torch.testing.assert_close(every, torch.stack(errors).mean())


def test_more_patches_count_for_the_regression_alone(scans):
    torch.manual_seed(0)
    pairs = PairedPatches(PATCH, num_points=4, num_position_patches=2, seed=1)
    patches, target = pairs([scan["image"] for scan in scans])
    with torch.no_grad():
        prediction = PairedMedLAM(MedLAM(base_channels=2, patch_size=PATCH).eval())(patches)
    position = prediction["position"]
    assert position.shape == (6, 2, 3)
    assert prediction["original_maps"][0].shape[:2] == prediction["deformed_maps"][0].shape[:2] == (2, 2)
    distance = RelativeDistanceLoss()
    loss = PairedPatchLoss(distance, MultiScaleSimilarityLoss(), similarity_weight=0.0, all_pairs=True)
    center_mm = target["center_mm"]
    expected = torch.stack(
        [distance(position[i], position[j], center_mm[i] - center_mm[j]) for i in range(6) for j in range(i + 1, 6)]
    ).mean()
    torch.testing.assert_close(loss(prediction, target), expected)
