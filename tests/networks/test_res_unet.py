"""ResUNet: its size, any image size, export, refusals. What it computes is checked in tests/parity."""

import pytest
import torch
from torch import nn

from common.networks import ResUNet


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return ResUNet().eval()


@pytest.mark.parametrize(
    ("encoder", "parameters", "norms"), [("resnet34", 22_041_570, 41), ("resnet50", 27_272_394 - 2_049_000, 58)]
)
def test_size_is_the_published_one_without_classifier(encoder, parameters, norms):
    with torch.device("meta"):
        network = ResUNet(encoder=encoder)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == norms


@pytest.mark.parametrize("size", [(64, 64), (70, 90), (1, 33)])
@torch.no_grad()
def test_any_size_equals_the_padded_and_cropped_one(network, size):
    image = torch.rand(2, 3, *size)
    padded = nn.functional.pad(image, [0, -size[1] % 32, 0, -size[0] % 32], mode="replicate")
    logits = network(image)
    assert logits.shape == (2, 2, *size)
    assert torch.equal(logits, network(padded)[:, :, : size[0], : size[1]])


@torch.no_grad()
def test_scripted_and_exported_networks_compute_the_same(network):
    image = torch.rand(1, 3, 40, 64)
    expected = network(image)
    assert torch.equal(torch.jit.script(network)(image), expected)
    exported = torch.export.export(network, (image,)).module()
    assert torch.allclose(exported(image), expected, atol=1e-6)


@torch.no_grad()
def test_decoder_activates_before_it_normalizes():
    block = ResUNet().decoder[3].eval()
    coarse, skip = torch.randn(1, 256, 2, 2), torch.randn(1, 64, 4, 4)
    joined = torch.cat([block.upsample(coarse), block.lateral(skip)], dim=1)
    expected = block.norm(joined.clamp(min=0))
    assert torch.allclose(block(coarse, skip), expected)
    block.norm.bias.fill_(-1.0)
    assert block(coarse, skip).min() < 0  # nothing clips what BatchNorm gives


def test_refusals(network):
    with pytest.raises(ValueError, match=r"image must have shape \(B, 3, H, W\).*\[1, 1, 64, 64\].*gray to RGB"):
        network(torch.rand(1, 1, 64, 64))
    with pytest.raises(ValueError, match=r"got torch.Size\(\[3, 64, 64\]\)"):
        network(torch.rand(3, 64, 64))
    with pytest.raises(ValueError, match="at least 1, got 0 and 2"):
        ResUNet(in_channels=0)
    with pytest.raises(ValueError, match="encoder must be one of resnet34, resnet50, got 'resnet18'"):
        ResUNet(encoder="resnet18")
