"""From loader to trainer: volumes of any size, a frozen validation set."""

from __future__ import annotations

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor

from common.engines import FusionPrepareBatch, collate_volumes, freeze_fused_samples
from common.transforms import VolumeFusion

ITEMS = [{"image": MetaTensor(torch.rand(1, 10 + n, 20, 18 - n))} for n in range(3)]


def make_fusion(seed=0, **options):
    return VolumeFusion((8, 12, 12), block_size_min=(2, 2, 2), block_size_max=(4, 4, 4), seed=seed, **options)


def test_a_batch_of_different_sizes_is_fused():
    loader = DataLoader(Dataset(ITEMS), batch_size=3, collate_fn=collate_volumes)
    (batch,) = loader
    assert [tuple(v.shape) for v in batch["image"]] == [(1, 10, 20, 18), (1, 11, 20, 17), (1, 12, 20, 16)]
    assert not any(isinstance(v, MetaTensor) for v in batch["image"])
    image, label = FusionPrepareBatch(make_fusion())(batch, "cpu", non_blocking=True)
    assert image.shape == label.shape == (3, 1, 8, 12, 12)


def test_frozen_samples_stay_the_same_and_leave_training_alone():
    fusion = make_fusion(seed=5)
    before = fusion.R.get_state()[1].copy()
    first = freeze_fused_samples(Dataset(ITEMS), fusion, num_samples=5, seed=1)
    assert (fusion.R.get_state()[1] == before).all()
    again = freeze_fused_samples(Dataset(ITEMS), make_fusion(seed=6), num_samples=5, seed=1)
    other = freeze_fused_samples(Dataset(ITEMS), fusion, num_samples=5, seed=2)
    assert len(first) == 5
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0]["image"], other[0]["image"])
    assert first[0]["label"].shape == (1, 8, 12, 12)


def test_one_volume_is_enough_for_both_variants():
    for variant in ("blocks", "patches"):
        fusion = make_fusion(variant=variant, box_size_min=(2, 2, 2))
        assert len(freeze_fused_samples(Dataset(ITEMS[:1]), fusion, num_samples=3)) == 3


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="at least one volume and one sample, got 0 and 4"):
        freeze_fused_samples(Dataset([]), make_fusion(), num_samples=4)
