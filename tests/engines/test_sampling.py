"""The order of cases over epochs and interruptions, and what their random transforms draw."""

from __future__ import annotations

import pytest
import torch
from monai.data import CacheDataset, DataLoader, Dataset
from monai.transforms import Compose, Lambdad, RandGaussianNoised, RandShiftIntensityd

from common.engines import Draw, EpochSampler, SeededDraws


def make_dataset(kind=Dataset, **options):
    """Six images that get noise and a shift; `loaded` counts how often the deterministic transform runs."""
    loaded = []

    def load(image):
        loaded.append(1)
        return image * 2

    transform = Compose(
        [
            Lambdad("image", load),
            RandGaussianNoised("image", prob=0.7, std=1.0),
            Compose([RandShiftIntensityd("image", offsets=1.0, prob=0.7)]),
        ]
    )
    items = [{"image": torch.full((1, 2, 3), float(i)), "case": f"case_{i}"} for i in range(6)]
    return kind(items, transform, **options), loaded


def images_of(num_workers, epochs=(1, 2), kind=Dataset, **options):
    dataset, _ = make_dataset(kind, **options)
    sampler = EpochSampler(dataset, num_samples=8, seed=0)
    loader = DataLoader(SeededDraws(dataset), batch_size=2, sampler=sampler, num_workers=num_workers)
    images = []
    for epoch in epochs:
        sampler.set_epoch(epoch)
        images += [batch["image"] for batch in loader]
    return torch.stack([torch.as_tensor(image) for image in images])


def test_every_case_once_before_any_comes_again():
    drawn = [draw.index for draw in EpochSampler(range(5), num_samples=13, seed=0)]
    assert len(drawn) == 13
    assert sorted(drawn[:5]) == sorted(drawn[5:10]) == list(range(5))
    assert len(set(drawn[10:])) == 3


def test_an_epoch_is_drawn_alike_whatever_was_drawn_before():
    sampler = EpochSampler(range(50), num_samples=50, seed=0)
    first, second = list(sampler), list(sampler)
    assert first != second
    resumed = EpochSampler(range(50), num_samples=50, seed=0)
    next(iter(resumed))
    resumed.set_epoch(1)
    assert list(resumed) == second
    assert list(EpochSampler(range(50), num_samples=50, seed=1)) != first


def test_seeds_are_those_of_draws_and_not_of_cases():
    seeds = [draw.seed for draw in EpochSampler(range(3), num_samples=300, seed=0)]
    assert len(set(seeds)) == 300


def test_images_depend_neither_on_loader_processes_nor_on_the_cache_nor_on_earlier_epochs():
    expected = images_of(0)
    assert len(expected.unique()) > 50
    assert torch.equal(images_of(2), expected)
    assert torch.equal(images_of(0, kind=CacheDataset, progress=False), expected)
    assert torch.equal(images_of(0, epochs=(2,)), expected[4:])


def test_what_is_deterministic_stays_cached():
    dataset, loaded = make_dataset(CacheDataset, progress=False, num_workers=None)
    draws = SeededDraws(dataset)
    assert len(draws) == len(loaded) == 6
    for seed in range(4):
        draws[Draw(1, seed)]
    assert len(loaded) == 6


def test_without_the_wrapper_the_draws_are_refused():
    dataset, _ = make_dataset()
    with pytest.raises(TypeError, match="Draw"):
        next(iter(DataLoader(dataset, sampler=EpochSampler(dataset, num_samples=2, seed=0))))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_case_that_cannot_be_loaded_is_named(num_workers):
    def fail(image):
        raise FileNotFoundError("No such file: scan.nii.gz.")

    dataset = Dataset([{"image": 0, "case": "lung_7"}], Compose([Lambdad("image", fail)]))
    sampler = EpochSampler(dataset, num_samples=1, seed=0)
    loader = DataLoader(SeededDraws(dataset), sampler=sampler, num_workers=num_workers)
    with pytest.raises(RuntimeError, match=r"Training case lung_7 cannot be loaded: No such file: scan\.nii\.gz\. All"):
        next(iter(loader))


def test_an_empty_epoch_is_refused():
    with pytest.raises(ValueError, match="got 0 cases and num_samples=3"):
        EpochSampler([], num_samples=3, seed=0)
