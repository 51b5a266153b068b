"""Volume Fusion against the slow oracle, against hand-solved cases, and against bad arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.transforms.volume_fusion import (
    BlockRegions,
    BoxRegions,
    VolumeFusion,
    adjust_contrast_,
    paint_regions,
    resize_trilinear,
)
from tests.oracles import volume_fusion as oracle

ROI = (12, 20, 17)
BLOCKS = {"block_size_min": (2, 3, 3), "block_size_max": (5, 8, 8)}


def make_volume(seed: int, size: tuple[int, int, int] = (21, 33, 28)) -> torch.Tensor:
    """A volume in [0, 1] with noise and a share of clipped air, as a CT has. Shape (1, D, H, W)."""
    values = np.random.default_rng(seed).normal(0.4, 0.2, size)
    return torch.from_numpy(np.clip(values, 0.0, 1.0).astype(np.float32))[None]


def make_fusion(**options) -> VolumeFusion:
    return VolumeFusion(**{"roi_size": ROI, "seed": 3, "percentile_voxels": None, **BLOCKS, **options})


class TestOracle:
    @pytest.mark.parametrize("augmentation", ["none", "intensity", "spatial", "both"])
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_blocks_agree_with_the_slow_pipeline(self, augmentation, seed):
        fusion = make_fusion(augmentation=augmentation, seed=seed)
        volume = make_volume(seed)
        (plan,) = fusion.randomize([volume.shape[1:]])
        fused, label = fusion.apply([volume], [plan])
        expected, expected_label = oracle.fuse_blocks_sample(
            volume[0].numpy(), plan, ROI, 5, intensity=augmentation in ("intensity", "both")
        )
        np.testing.assert_array_equal(label[0, 0].numpy(), expected_label)
        np.testing.assert_allclose(fused[0, 0].numpy(), expected, atol=1e-5)

    def test_patches_take_the_foreground_from_the_next_sample(self):
        fusion = make_fusion(variant="patches", box_size_min=(2, 2, 2), box_size_max=(7, 12, 10))
        volumes = [make_volume(seed) for seed in range(3)]
        plans = fusion.randomize([v.shape[1:] for v in volumes])
        fused, label = fusion.apply(volumes, plans)
        # every crop is augmented once and serves twice, so inversion belongs to the fused sample
        crops = [
            oracle.augment(v[0].numpy(), plan.crops[0], ROI, True, False)
            for v, plan in zip(volumes, plans, strict=True)
        ]
        for index, plan in enumerate(plans):
            regions = oracle.paint_regions(plan.regions, ROI)
            expected = oracle.fuse(crops[index], crops[(index + 1) % 3], regions, 5)
            expected = 1.0 - expected if plan.invert else expected
            np.testing.assert_array_equal(label[index, 0].numpy(), regions)
            np.testing.assert_allclose(fused[index, 0].numpy(), expected, atol=1e-5)

    @pytest.mark.parametrize(
        ("size", "roi"),
        [((5, 7, 9), (4, 9, 3)), ((1, 7, 1), (4, 3, 2)), ((3, 4, 5), (1, 1, 1)), ((8, 40, 70), (9, 33, 65))],
    )
    def test_resize_is_trilinear_with_aligned_ends(self, size, roi):
        volume = torch.rand(size, generator=torch.Generator().manual_seed(0))
        expected = F.interpolate(volume[None, None], size=roi, mode="trilinear", align_corners=True)[0, 0]
        torch.testing.assert_close(resize_trilinear(volume, roi), expected, atol=1e-5, rtol=0)

    def test_sampled_percentiles_stay_near_those_of_all_voxels(self):
        volume = make_volume(0, (40, 60, 60))[0]
        for percentile in (0.5, 1.5, 98.5, 99.5):
            pair = (percentile, 99.9) if percentile < 50 else (0.1, percentile)
            exact, sampled = volume.clone(), volume.clone()
            adjust_contrast_([exact], [pair], [1.0])
            adjust_contrast_([sampled], [pair], [1.0], percentile_voxels=32768)
            assert (exact - sampled).abs().max() < 0.02


class TestHandSolved:
    def test_contrast_maps_percentiles_to_their_heights(self):
        volume = torch.arange(101.0)
        adjust_contrast_([volume], [(2.0, 98.0)], [1.0])
        # values 0..101: lowest 0 -> 0, percentile 2 -> 0.1, median -> 0.5, percentile 98 -> 0.9, highest 100 -> 1
        torch.testing.assert_close(
            volume[[0, 1, 2, 50, 98, 99, 100]], torch.tensor([0.0, 0.05, 0.1, 0.5, 0.9, 0.95, 1.0])
        )

    def test_gamma_is_a_power(self):
        volume = torch.arange(101.0)
        adjust_contrast_([volume], [(2.0, 98.0)], [1.5])
        torch.testing.assert_close(volume[[2, 50]], torch.tensor([0.1**1.5, 0.5**1.5]))

    def test_air_below_the_low_percentile_is_zero(self):
        volume = torch.cat([torch.zeros(50), torch.linspace(0.2, 1.0, 50)])
        adjust_contrast_([volume], [(1.0, 98.0)], [1.0])
        assert volume[:50].max() < 1e-6  # the empty first piece adds nothing: 0, not 0.1
        assert volume[-1] == 1.0

    @pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
    def test_constant_crop_gives_zeros_and_no_nan(self, value):
        fused, _ = make_fusion()([torch.full((1, 20, 30, 25), value)] * 2)
        assert torch.isfinite(fused).all()
        assert set(fused.flatten(1).amax(1).tolist()) <= {0.0, 1.0}  # 1 where the pair is inverted
        assert torch.equal(fused.flatten(1).amin(1), fused.flatten(1).amax(1))

    def test_blocks_lie_on_their_grid(self):
        regions = BlockRegions((2, 2, 2), (1, 0, 0), np.array([[[1, 0], [0, 2]]], dtype=np.uint8))
        drawn = paint_regions(regions, torch.arange(3.0), (4, 5, 4))
        expected = torch.zeros(4, 5, 4)
        expected[1:3, 0:2, 0:2] = 1
        expected[1:3, 2:4, 2:4] = 2
        assert torch.equal(drawn, expected)

    def test_later_boxes_lie_over_earlier_ones(self):
        regions = BoxRegions(np.array([[0, 0, 0], [1, 1, 1]]), np.array([[2, 2, 2], [3, 3, 3]]), np.array([1, 2]))
        drawn = paint_regions(regions, torch.arange(3, dtype=torch.uint8), (3, 3, 3))
        assert drawn[0, 0, 0] == 1
        assert drawn[1, 1, 1] == 2
        assert torch.bincount(drawn.flatten().long()).tolist() == [27 - 7 - 8, 7, 8]

    def test_mixing_without_augmentation(self):
        fusion = make_fusion(augmentation="none")
        volume = make_volume(1, ROI)  # crops of full size: background and foreground are the volume itself
        fused, label = fusion([volume])
        torch.testing.assert_close(fused[0], volume)
        assert label.unique().tolist() == [0, 1, 2, 3, 4]


class TestProperties:
    def test_exact_share_of_blocks_has_a_class(self):
        fusion = VolumeFusion(seed=0)
        for plan in fusion.randomize([(96, 192, 192)] * 20):
            classes = plan.regions.classes
            assert np.count_nonzero(classes) == int(0.7 * classes.size)
            assert classes.max() <= 4
            block, offset = np.array(plan.regions.block_size), np.array(plan.regions.offset)
            assert (block >= (5, 8, 8)).all()
            assert (block <= (20, 32, 32)).all()
            assert (offset + block * classes.shape <= (64, 128, 128)).all()

    def test_boxes_follow_the_paper(self):
        fusion = VolumeFusion(variant="patches", seed=0)
        plans = fusion.randomize([(96, 192, 192)] * 50)
        counts = [len(plan.regions.classes) for plan in plans]
        sizes = np.concatenate([plan.regions.stops - plan.regions.starts for plan in plans])
        assert min(counts) >= 10
        assert max(counts) <= 40
        assert sizes.min() > 0
        assert (sizes.max(0) <= (40, 80, 80)).all()
        assert (sizes.max(0) >= (36, 70, 70)).all()

    def test_crops_stay_inside_and_scale_as_asked(self):
        fusion = VolumeFusion(seed=0)
        for size in ((96, 192, 192), (40, 300, 60)):
            for plan in fusion.randomize([size] * 20):
                assert len(plan.crops) == 2
                for crop in plan.crops:
                    assert all(a >= 0 and a + n <= m for a, n, m in zip(crop.start, crop.size, size, strict=True))
                    assert all(
                        min(int(0.7 * n), m) <= c <= min(1.5 * n, m)
                        for c, n, m in zip(crop.size, fusion.roi_size, size, strict=True)
                    )

    def test_a_batch_equals_its_samples(self):
        fusion = make_fusion()
        volumes = [make_volume(0), make_volume(1, (13, 50, 19))]
        plans = fusion.randomize([v.shape[1:] for v in volumes])
        fused, label = fusion.apply(volumes, plans)
        for index in range(2):
            alone, alone_label = fusion.apply([volumes[index]], [plans[index]])
            assert torch.equal(fused[index], alone[0])
            assert torch.equal(label[index], alone_label[0])

    @pytest.mark.parametrize("variant", ["blocks", "patches"])
    def test_seed_and_epoch_decide_what_is_drawn(self, variant):
        options = {"variant": variant, "box_size_min": (2, 2, 2)}
        volumes = [make_volume(0), make_volume(1)]
        first, second = make_fusion(**options), make_fusion(**options)
        assert torch.equal(first(volumes)[0], second(volumes)[0])
        first.set_epoch(2)
        expected = first(volumes)[0]
        assert not torch.equal(first(volumes)[0], expected)
        second.set_epoch(2)
        assert torch.equal(second(volumes)[0], expected)
        other = make_fusion(**options, seed=99)
        other.set_epoch(2)
        assert not torch.equal(other(volumes)[0], expected)

    def test_inputs_are_left_alone_and_outputs_have_their_types(self):
        volume = make_volume(0)
        before = volume.clone()
        fused, label = make_fusion()([volume])
        assert torch.equal(volume, before)
        assert (fused.dtype, label.dtype) == (torch.float32, torch.uint8)
        assert fused.shape == label.shape == (1, 1, *ROI)
        assert fused.min() >= 0
        assert fused.max() <= 1

    @pytest.mark.gpu
    def test_gpu_agrees_with_cpu(self):
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        fusion = make_fusion()
        volume = make_volume(0)
        plans = fusion.randomize([volume.shape[1:]])
        torch.testing.assert_close(
            fusion.apply([volume.cuda()], plans)[0].cpu(), fusion.apply([volume], plans)[0], atol=1e-4, rtol=0
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"variant": "voxels"}, "variant must be one of blocks, patches, got 'voxels'"),
            ({"augmentation": 3}, "augmentation must be one of none, intensity, spatial, both, got 3"),
            ({"num_classes": 1}, "num_classes must be from 2 .* to 256, got 1"),
            ({"foreground_ratio": 1.5}, r"foreground_ratio must lie in \[0, 1\], got 1.5"),
            ({"roi_size": (8, 8)}, r"roi_size must be three positive whole numbers.*got \[8, 8\]"),
            ({"scale_range": (1.5, 0.7)}, r"scale_range must be two ascending numbers.*got \[1.5, 0.7\]"),
            ({"block_size_max": (50, 8, 8)}, r"block_size_max must fit into roi_size \(12, 20, 17\).*\(50, 8, 8\)"),
            ({"block_size_min": (9, 9, 9)}, "block_size_min must not exceed block_size_max"),
            ({"percentile_voxels": 5}, "percentile_voxels must be None or at least 100, got 5"),
        ],
    )
    def test_arguments(self, options, message):
        with pytest.raises(ValueError, match=message):
            make_fusion(**options)

    def test_shape(self):
        with pytest.raises(ValueError, match=r"volumes\[1\] must have one channel.*got \(2, 8, 8, 8\)"):
            make_fusion()([make_volume(0), torch.zeros(2, 8, 8, 8)])

    def test_patches_need_two(self):
        with pytest.raises(ValueError, match="needs at least 2, got 1; raise batch_size"):
            make_fusion(variant="patches", box_size_min=(2, 2, 2))([make_volume(0)])
