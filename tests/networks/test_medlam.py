"""Shapes, cheap paths and refusals of MedLAM."""

import pytest
import torch
import torch.nn.functional as F

from common.networks import MedLAM


@pytest.fixture
def network():
    torch.manual_seed(0)
    return MedLAM(base_channels=2, patch_size=(16, 32, 48)).eval()


def test_shapes(network):
    encoded = network.encode(torch.rand(2, 1, 16, 32, 48))
    assert [tuple(f.shape) for f in encoded] == [
        (2, 4, 16, 32, 48),
        (2, 4, 8, 16, 24),
        (2, 8, 4, 8, 12),
        (2, 16, 2, 4, 6),
        (2, 32, 1, 2, 3),
    ]
    assert [tuple(f.shape[1:]) for f in network.decode(encoded)] == [(8, 4, 8, 12), (8, 8, 16, 24), (8, 16, 32, 48)]
    assert network.locate(encoded).shape == (2, 3)


def test_forward_runs_no_decoder(network):
    patch = torch.rand(1, 1, 16, 32, 48)
    expected = network(patch)
    network.decoder = None
    torch.testing.assert_close(network(patch), expected)


def test_coarse_scales_alone_are_the_same(network):
    encoded = network.encode(torch.rand(1, 1, 16, 32, 48))
    full = network.decode(encoded)
    for num_scales in (1, 2):
        coarse = network.decode(encoded, num_scales)
        assert len(coarse) == num_scales
        for ours, expected in zip(coarse, full, strict=False):
            torch.testing.assert_close(ours, expected)


@torch.inference_mode()
def test_block_of_the_finest_scale(network):
    """In a corner, where the padding shows, within, and at the far end."""
    patch = F.avg_pool3d(torch.rand(1, 1, 16, 32, 48), 3, 1, 1)
    encoded = network.encode(patch)
    maps = network.decode(encoded)
    statistics = network.finest_statistics(encoded, maps[1])
    for start in ([0, 0, 0], [3, 9, 20], [8, 24, 40]):
        block = network.finest_block(encoded, maps[1], torch.tensor(start), 8, statistics)
        z, y, x = start
        cosine = F.cosine_similarity(block, maps[2][:, :, z : z + 8, y : y + 8, x : x + 8])
        assert cosine.shape == (1, 8, 8, 8)
        assert cosine.mean() > 0.95  # random weights on noise: of a body, features of neighbors differ less
    # with the statistics of the whole patch it is the same: they are all that is estimated
    whole = network.decoder[-1](torch.cat([F.interpolate(maps[1], scale_factor=2.0, mode="trilinear"), encoded[0]], 1))
    torch.testing.assert_close(whole, maps[2])


def block_of_everything(network, encoded, coarser, start, size):
    """`finest_block` as it is defined: upsampled, padded and normalized at all places, of which few are used."""
    upsampled = F.interpolate(coarser, scale_factor=2.0, mode="trilinear", align_corners=False)
    x = torch.cat([upsampled, encoded[0]], dim=1)
    samples = x
    for axis, count in enumerate(network.patch_size):
        samples = samples.unfold(axis + 2, 5, max(1, count // 8))
    samples = samples[0].flatten(1, 3).transpose(0, 1)
    for conv in (module for module in network.decoder[-1].modules() if isinstance(module, torch.nn.Conv3d)):
        x = F.conv3d(x, conv.weight, conv.bias, padding=1)
        samples = F.conv3d(samples, conv.weight, conv.bias)
        mean, variance = samples.mean(dim=(0, 2, 3, 4)), samples.var(dim=(0, 2, 3, 4), correction=0)
        x, samples = (F.relu(F.batch_norm(y, mean, variance)) for y in (x, samples))
    z, y, x0 = start
    return x[:, :, z : z + size, y : y + size, x0 : x0 + size]


@pytest.mark.parametrize("start", [[0, 0, 0], [3, 9, 20], [8, 24, 40], [1, 23, 39]])
def test_finest_block_by_its_definition(network, start):
    with torch.no_grad():
        encoded = network.encode(torch.rand(1, 1, 16, 32, 48))
        coarser = network.decode(encoded, 2)[-1]
        statistics = network.finest_statistics(encoded, coarser)
        found = network.finest_block(encoded, coarser, torch.tensor(start), 8, statistics)
        expected = block_of_everything(network, encoded, coarser, start, 8)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_position_head_is_one_affine_map(network):
    """The spec: no activations between the three layers."""
    a, b = torch.rand(2, 1, 32, 1, 2, 3)
    middle = network.locate([(a + b) / 2])
    torch.testing.assert_close(middle, (network.locate([a]) + network.locate([b])) / 2)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    network = MedLAM(base_channels=2, patch_size=(32, 32, 32), dropout=0.5)
    patch = torch.rand(1, 1, 32, 32, 32)
    assert not torch.equal(network(patch), network(patch))
    network.eval()
    torch.testing.assert_close(network(patch), network(patch))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": (64, 64, 60)}, r"three multiples of 16, not all 16, got \(64, 64, 60\)"),
        ({"patch_size": (16, 16, 16)}, "not all 16"),
        ({"patch_size": (64, 64)}, "three multiples of 16"),
        ({"base_channels": 0}, "base_channels 0"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=message):
        MedLAM(**options)


def test_refused_patch(network):
    with pytest.raises(ValueError, match=r"Patches must have shape \(B, C, \(16, 32, 48\)\), got.*Crop and pad"):
        network(torch.rand(1, 1, 16, 32, 32))
