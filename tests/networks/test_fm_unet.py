"""FMUNet: its size in each mode and its initial weights."""

import pytest
import torch

from common.networks import FMUNet


@pytest.mark.parametrize(("mode", "parameters"), [(0, 47_371_572), (1, 47_220_660), (2, 46_625_076)])
def test_parameters_are_those_of_the_published_network(mode, parameters):
    with torch.device("meta"):
        network = FMUNet(resolution_mode=mode)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_initial_weights():
    torch.manual_seed(0)
    network = FMUNet(feature_channels=(4, 8, 16, 32, 64))
    conv = network.encoder[4][0].conv
    fan_in = conv.weight[0].numel()
    assert conv.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / fan_in) ** 0.5, rel=0.05)
    assert not conv.bias.any()
