"""Which patches are hidden, how many, and with what."""

from __future__ import annotations

import pytest
import torch

from common.engines import ContextMasking


def count_patches(mask, patch):
    return mask[:, :, ::patch, ::patch].flatten(1).sum(dim=1)


@pytest.mark.parametrize("attention", ["scribble", "uniform", "uncertainty"])
@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_exactly_k_patches_in_each_sample(attention, ratio):
    importance = torch.rand(5, 1, 32, 48)
    mask = ContextMasking(8, ratio, attention).draw(importance)
    assert mask.shape == importance.shape
    assert (count_patches(mask, 8) == round(ratio * 24)).all()
    blocks = mask.unfold(2, 8, 8).unfold(3, 8, 8).flatten(-2)
    assert (blocks.all(-1) == blocks.any(-1)).all()  # a patch is hidden as a whole
    assert not torch.equal(mask[0], mask[1])


@pytest.mark.parametrize("shape", [(2, 1, 19, 30), (1, 1, 9, 17, 18)])
def test_sizes_that_do_not_fit_the_patches_and_volumes(shape):
    mask = ContextMasking(8, 0.5).draw(torch.zeros(shape))
    assert mask.shape == shape
    grid = mask[(slice(None), slice(None), *[slice(None, None, 8)] * (len(shape) - 2))]
    assert grid[0].sum() == round(0.5 * grid[0].numel())


def test_acceptance_iii_exactly_k_patches_and_annotated_ones_more_often():
    """One annotated patch of 16, weights 4 to 1: its rate, against the rate of the others, over 500 draws."""
    masking = ContextMasking(8, 0.25, "scribble", kappa=3.0)
    importance = torch.zeros(1, 1, 32, 32)
    importance[0, 0, 10, 10] = 1.0
    hits = torch.zeros(16)
    for _ in range(500):
        drawn = masking.draw(importance)[0, 0, ::8, ::8].flatten()
        assert drawn.sum() == 4
        hits += drawn
    annotated = hits[5].item()
    # chi-square of one degree of freedom against the uniform rate of 125 hits; 10.8 is p = 0.001
    assert (annotated - 125) ** 2 / (125 * 0.75) > 10.8
    assert annotated > 1.8 * (hits.sum() - annotated).item() / 15


def test_uniform_masking_has_no_favorites():
    masking = ContextMasking(8, 0.25, "uniform")
    hits = sum(masking.draw(torch.zeros(1, 1, 32, 32))[0, 0, ::8, ::8].flatten().float() for _ in range(500))
    chi_square = ((hits - 125) ** 2 / (125 * 0.75)).sum() * 15 / 16
    assert chi_square < 37.7  # 15 degrees of freedom, p = 0.001


def test_kappa_below_zero_spares_annotated_patches():
    masking = ContextMasking(8, 0.5, "scribble", kappa=-0.9)
    importance = torch.zeros(1, 1, 32, 32)
    importance[..., :16] = 1.0
    share = torch.stack([masking.draw(importance) for _ in range(50)]).float().mean(dim=(0, 1, 2, 3))
    assert share[:16].mean() < 0.5 * share[16:].mean()


def test_stroke_map_and_label_scope():
    scribble = torch.tensor([[[[0, 1, 2, 255]]]])
    assert ContextMasking().stroke_map(scribble).flatten().tolist() == [0, 1, 1, 0]
    assert ContextMasking(label_scope="any").stroke_map(scribble).flatten().tolist() == [1, 1, 1, 0]


def test_fill():
    image = torch.arange(8.0).view(1, 2, 2, 2)
    mask = torch.tensor([[True, False], [False, False]]).view(1, 1, 2, 2)
    assert ContextMasking(fill="mean").hide(image, mask).flatten().tolist() == [1.5, 1, 2, 3, 5.5, 5, 6, 7]
    assert ContextMasking(fill="zero").hide(image, mask).flatten().tolist() == [0, 1, 2, 3, 0, 5, 6, 7]


def test_the_generator_can_be_resumed():
    masking = ContextMasking(8, seed=3)
    importance = torch.zeros(1, 1, 64, 64)
    masking.set_epoch(2)
    expected = masking.draw(importance)
    resumed = ContextMasking(8, seed=3)
    resumed.draw(importance)
    resumed.set_epoch(2)
    assert torch.equal(resumed.draw(importance), expected)
    resumed.set_epoch(1)
    assert not torch.equal(resumed.draw(importance), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attention": "transformer"}, "attention must be one of scribble, uniform, uncertainty, cpl"),
        ({"fill": "noise"}, "fill must be one of mean, zero, got 'noise'"),
        ({"ratio": 1.0}, r"ratio must be in \(0, 1\) and kappa above -1, got 1.0"),
        ({"kappa": -1}, r"kappa above -1, got 0.5 and -1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        ContextMasking(**options)
