"""Convolution by minimal filtering against the direct one."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from common.networks.winograd import is_faster, winograd_conv3d


@pytest.mark.parametrize("size", [(4, 4, 4), (8, 20, 12), (12, 36, 8)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_equals_the_direct_convolution(size, memory_format):
    torch.manual_seed(0)
    x = torch.randn(1, 5, *size).to(memory_format=memory_format)
    weight, bias = torch.randn(7, 5, 3, 3, 3), torch.randn(7)
    expected = F.conv3d(x.double(), weight.double(), bias.double(), padding=1)
    torch.testing.assert_close(winograd_conv3d(x, weight, bias).double(), expected, atol=2e-3, rtol=0)
    assert (winograd_conv3d(x, weight, bias) - expected).square().mean().sqrt() < 1e-5 * expected.std()


@pytest.mark.parametrize("size", [(4, 4, 4), (8, 20, 12), (12, 36, 8)])
def test_upsamples_and_joins_coarser_features(size):
    """The upsampled edges repeat the outermost features, the padding around them is zero."""
    torch.manual_seed(0)
    coarser, x = torch.randn(1, 3, *(n // 2 for n in size)), torch.randn(1, 5, *size)
    weight, bias = torch.randn(7, 8, 3, 3, 3), torch.randn(7)
    upsampled = F.interpolate(coarser.double(), scale_factor=2.0, mode="trilinear", align_corners=False)
    joined = torch.cat([upsampled, x.double()], dim=1)
    expected = F.conv3d(joined, weight.double(), bias.double(), padding=1)
    found = winograd_conv3d(x, weight, bias, coarser)
    torch.testing.assert_close(found.double(), expected, atol=2e-3, rtol=0)
    assert (found - expected).square().mean().sqrt() < 1e-5 * expected.std()


def test_only_where_it_is_allowed_and_gains():
    conv, x = nn.Conv3d(64, 96, 3, padding=1), torch.zeros(1, 64, 16, 16, 16)
    assert not is_faster(x, conv)  # gradients
    with torch.inference_mode():
        assert is_faster(x, conv)
        assert not is_faster(x.expand(2, -1, -1, -1, -1), conv)
        assert not is_faster(x.half(), conv)
        assert not is_faster(x[..., :15], conv)
        assert not is_faster(x[..., :12], conv)
        assert not is_faster(x[:, :1], nn.Conv3d(1, 96, 3, padding=1))
        with torch.autocast("cpu"):
            assert not is_faster(x, conv)


def test_refusals():
    with pytest.raises(ValueError, match=r"multiples of 4, got shape \(1, 1, 6, 4, 4\)"):
        winograd_conv3d(torch.zeros(1, 1, 6, 4, 4), torch.zeros(1, 1, 3, 3, 3))
    with pytest.raises(ValueError, match=r"half the size of x, got \(1, 1, 2, 2, 4\) for \(1, 1, 4, 4, 4\)"):
        winograd_conv3d(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 2, 3, 3, 3), None, torch.zeros(1, 1, 2, 2, 4))
