"""Dropout with shared draws: rate, scale, seed, gradient."""

import pytest
import torch

from common.networks.dropout import Dropout


@pytest.mark.parametrize("p", [0.2, 0.5, 0.999])
def test_rate_and_scale(p):
    torch.manual_seed(0)
    dropped = Dropout(p)(torch.ones(1_000_003))
    kept = dropped[dropped > 0]
    assert len(kept) / len(dropped) == pytest.approx(1 - p, abs=4 * (p * (1 - p) / len(dropped)) ** 0.5)
    assert kept.unique().item() == pytest.approx(1 / (1 - p), rel=1e-2)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.1)


def test_neighbors_are_independent():
    torch.manual_seed(0)
    kept = (Dropout(0.3)(torch.ones(400_000)) > 0).float()
    for step in (1, 2, 3, 4):
        assert abs(torch.corrcoef(torch.stack([kept[:-step], kept[step:]]))[0, 1].item()) < 0.01


def test_seed_and_gradient():
    layer, x = Dropout(0.4), torch.randn(3, 5, 7, requires_grad=True)
    torch.manual_seed(3)
    first = layer(x)
    torch.manual_seed(3)
    assert torch.equal(first, layer(x))
    first.sum().backward()
    torch.testing.assert_close(x.grad * x, first)


@pytest.mark.parametrize("layer", [Dropout(0.4).eval(), Dropout(0.0)])
def test_nothing_to_do(layer):
    x = torch.randn(4)
    assert layer(x) is x


def test_refusal():
    with pytest.raises(ValueError, match=r"p must be a probability in \[0, 1\), got 1.0"):
        Dropout(1.0)
