"""Pairs of patches, their deformed copies and the coordinates of every voxel."""

import pytest
import torch

from common.transforms import PairedPatches
from common.transforms.paired_patches import crop_padded

SPACING = (3.0, 2.0, 4.0)


def ramp(*shape):
    """A scan whose value tells the place: linear, so interpolation keeps it."""
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij")
    return (1 + axes[0] + 100 * axes[1] + 10000 * axes[2])[None]


def value_at(positions):
    """Value of the ramp at voxel positions, shape (3, ...)."""
    return 1 + positions[0] + 100 * positions[1] + 10000 * positions[2]


@pytest.fixture
def pairs():
    options = {"patch_size": (16, 16, 32), "spacing_mm": SPACING, "jitter": 3, "num_points": 5, "seed": 3}
    return PairedPatches(**options, tone_ranges=[[0.5, 0.5]], noise_std=0.0, tone_slope=1.0)


class TestCrop:
    def test_inside_across_and_outside(self):
        volume = torch.arange(27.0).reshape(1, 3, 3, 3)
        assert torch.equal(crop_padded(volume, (1, 0, 2), (2, 2, 1)), volume[:, 1:3, 0:2, 2:3])
        box = crop_padded(volume, (-1, 1, 1), (2, 3, 2))
        assert torch.equal(box[:, 1, :2], volume[:, 0, 1:, 1:])
        assert box.sum() == volume[:, 0, 1:, 1:].sum()
        assert crop_padded(volume, (5, 0, -9), (2, 2, 2)).abs().sum() == 0


class TestPairs:
    def test_originals_and_points_are_where_they_say(self, pairs):
        scan = ramp(40, 36, 50)
        patches, target = pairs([scan, scan])
        assert patches.shape == (4, 2, 1, 16, 16, 32)
        spacing = torch.tensor(SPACING)
        for number in range(2):
            for item in range(2):
                for point, point_mm in zip(target["points"][number], target["points_mm"][number, item], strict=True):
                    value = patches[number, item, 0, point[0], point[1], point[2]]
                    place = point_mm / spacing
                    inside = all(0 <= p < n for p, n in zip(place, scan.shape[1:], strict=True))
                    assert value.item() == pytest.approx(value_at(place).item() if inside else 0.0, rel=1e-5)

    def test_centers_of_all_four_patches(self, pairs):
        patches, target = pairs([ramp(60, 60, 60)])
        spacing = torch.tensor(SPACING)
        for number, patch in enumerate(patches[:2, 0, 0]):
            place = target["center_mm"][number, 0] / spacing
            expected = value_at(place).item() if ((place >= 0) & (place < 60)).all() else 0.0
            assert patch[8, 8, 16].item() == pytest.approx(expected)
        middle = target["coordinates_mm"][:, 0, :, 8, 8, 16]
        torch.testing.assert_close(target["center_mm"][2:, 0], middle)

    def test_coordinates_follow_the_deformation_exactly(self):
        pairs = PairedPatches((16, 16, 16), SPACING, prob=1.0, noise_std=0.0, tone_slope=1e-6, tone_ranges=[[0, 0]])
        pairs._change_values = lambda patches: patches  # tone and noise have their own test
        scan = ramp(80, 80, 80)
        patches, target = pairs([scan])
        for number in range(2):
            positions = target["coordinates_mm"][number, 0] / torch.tensor(SPACING)[:, None, None, None]
            inside = ((positions >= 0) & (positions <= 79)).all(dim=0)
            assert inside.float().mean() > 0.3
            error = (patches[2 + number, 0, 0] - value_at(positions)).abs()[inside]
            assert error.max() < 2.0  # of values up to 800,000: float32 rounding

    def test_no_change_without_probability(self):
        pairs = PairedPatches((16, 16, 16), SPACING, jitter=0, prob=0.0)
        patches, target = pairs([torch.rand(1, 20, 30, 40)])
        torch.testing.assert_close(patches[2:], patches[:2], atol=1e-5, rtol=0)
        step = target["coordinates_mm"][:, 0].diff(dim=2)[:, 0]
        torch.testing.assert_close(step, torch.full_like(step, SPACING[0]))

    def test_rotation_is_one_in_mm(self):
        """Distances in mm stay under a rotation whatever the voxel's shape."""
        pairs = PairedPatches(
            (16, 16, 16), SPACING, prob=1.0, scale_range=(1, 1), max_displacement=0.0, rotation_range_deg=40.0
        )
        _, target = pairs([torch.rand(1, 20, 30, 40)])
        for axis in range(3):
            step = target["coordinates_mm"][0, 0].diff(dim=1 + axis)
            torch.testing.assert_close(step.norm(dim=0), torch.full_like(step[0], SPACING[axis]))

    def test_centers_and_points_avoid_air(self):
        scan = torch.zeros(1, 64, 64, 64)
        scan[:, 20:44, 20:44, 20:44] = 0.5
        pairs = PairedPatches((32, 32, 32), jitter=0, max_tries=400, num_points=20)
        for _ in range(5):
            patches, target = pairs([scan])
            assert (patches[:2, 0, 0, 16, 16, 16] > 0).all()
            for number in range(2):
                depth, height, width = target["points"][number].T
                assert (patches[number, 0, 0, depth, height, width] > 0).all()

    def test_air_everywhere_and_scans_below_a_patch_still_give_pairs(self):
        patches, target = PairedPatches((32, 32, 32))([torch.zeros(1, 10, 50, 20)])
        assert torch.isfinite(patches).all()
        assert target["points"].shape == (2, 20, 3)

    def test_more_patches_are_originals_around_their_centers(self):
        ramp = torch.stack(torch.meshgrid(*(torch.arange(1.0, n) for n in (41, 37, 51)), indexing="ij"))
        for axis in range(3):
            pairs = PairedPatches((16, 16, 16), SPACING, num_position_patches=3, seed=axis)
            patches, target = pairs([ramp[axis : axis + 1]] * 2)
            assert patches.shape == (7, 2, 1, 16, 16, 16)
            middle_mm = (patches[4:, :, 0, 8, 8, 8] - 1) * SPACING[axis]
            torch.testing.assert_close(target["center_mm"][4:, :, axis], middle_mm)

    def test_tone_and_noise(self):
        scan = torch.full((1, 40, 40, 40), 0.5)
        pairs = PairedPatches((16, 16, 16), prob=1.0, noise_std=0.0, scale_range=(1, 1), rotation_range_deg=0.0)
        pairs.max_displacement = 0.0
        copy = pairs([scan])[0][2, 0, 0]
        inside = copy[copy > copy.median() - 1e-6]
        assert inside.std() < 1e-6
        assert 0.2 < inside.mean() < 0.8  # a mean of sigmoids with thresholds on both sides
        noisy = PairedPatches((16, 16, 16), prob=1.0, noise_std=0.2)([scan])[0][2, 0, 0]
        assert noisy.std() > 1e-3

    def test_the_generator_is_the_only_state(self, pairs):
        scan = torch.rand(1, 40, 36, 50)
        pairs.set_epoch(1)
        first, _ = pairs([scan])
        other, _ = pairs([scan])
        assert not torch.equal(first, other)
        pairs.set_epoch(1)
        again, _ = pairs([scan])
        assert torch.equal(first, again)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"patch_size": (64, 64)}, "must have three positive values"),
            ({"prob": 1.5}, r"prob must lie in \[0, 1\], got 1.5"),
            ({"num_points": 0}, "num_points at least 1"),
            ({"num_position_patches": -1}, r"must not be negative.*num_position_patches=-1"),
            ({"num_control_points": 3}, "num_control_points must be above 3, got 3"),
        ],
    )
    def test_refusals(self, options, message):
        with pytest.raises(ValueError, match=message):
            PairedPatches(**options)

    def test_refused_scans(self, pairs):
        with pytest.raises(ValueError, match=r"shape \(1, D, H, W\), at least one, got \[\(2, 8, 8, 8\)\]"):
            pairs([torch.rand(2, 8, 8, 8)])
