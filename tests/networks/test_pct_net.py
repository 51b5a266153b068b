"""PCT-Net: windows, shifts, masks and their cache against slow loops; its size."""

import itertools

import numpy as np
import pytest
import torch

from common.networks import PCTNet, pct_net
from common.networks.pct_net import (
    WindowAttention,
    WindowTransformer,
    relative_position_index,
    shifted_window_mask,
    window_slots,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("mode", "parameters"),
    # Mode 1 is the published total of 45,289,554 less 1,091,348 that are never used: the stems and heads of the other
    # two modes and five normalizations. The four heads that this network has are among the rest.
    [(0, 44_265_454), (1, 45_289_554 - 1_091_348), (2, 43_904_062)],
)
def test_parameters_are_the_active_ones_of_the_published_network(mode, parameters):
    with torch.device("meta"):
        network = PCTNet(resolution_mode=mode)
    assert sum(p.numel() for p in network.parameters()) == parameters


def test_every_parameter_is_used():
    network = PCTNet(feature_channels=(4, 8, 16, 32, 64), deep_supervision=True)
    sum(logits.sum() for logits in network(torch.randn(1, 1, 16, 32, 32))).backward()
    assert [key for key, p in network.named_parameters() if p.grad is None] == []


def test_relative_position_index_entry_by_entry():
    legacy, standard = relative_position_index(legacy=True), relative_position_index(legacy=False)
    tokens = list(itertools.product(range(6), repeat=3))
    for query, key in [(0, 0), (0, 215), (215, 0), (17, 133), (200, 5)]:
        dz, dy, dx = (a - b + 5 for a, b in zip(tokens[query], tokens[key], strict=True))
        assert legacy[query, key] == 17 * dz + 11 * dy + dx
        assert standard[query, key] == 121 * dz + 11 * dy + dx
    assert (legacy.min(), legacy.max(), len(legacy.unique())) == (0, 290, 291)
    assert len(standard.unique()) == 11**3


@pytest.mark.parametrize("shift", [0, 3])
@pytest.mark.parametrize("size", [(7, 12, 13), (6, 2, 5), (1, 1, 1), (18, 6, 9)])
def test_window_slots_against_padding_rolling_and_cutting(size, shift):
    padded_size = [-(-extent // 6) * 6 for extent in size]
    numbers = np.full(padded_size, -1)
    numbers[: size[0], : size[1], : size[2]] = np.arange(np.prod(size)).reshape(size)
    rolled = np.roll(numbers, (-shift, -shift, -shift), axis=(0, 1, 2))
    in_windows = []
    for z, y, x in itertools.product(*(range(0, extent, 6) for extent in padded_size)):
        in_windows.extend(rolled[z : z + 6, y : y + 6, x : x + 6].ravel())
    expected = np.argsort(np.array(in_windows), kind="stable")[-np.prod(size) :]
    assert window_slots(*size, shift, CPU).tolist() == expected.tolist()


def test_mask_against_regions_painted_on_the_volume():
    size = (7, 13, 12)
    padded_size = [-(-extent // 6) * 6 for extent in size]
    regions = np.zeros(padded_size, dtype=int)
    parts = (slice(0, -6), slice(-6, -3), slice(-3, None))
    for number, (z, y, x) in enumerate(itertools.product(parts, repeat=3)):
        regions[z, y, x] = number
    masks = shifted_window_mask(*size, CPU)
    windows = list(itertools.product(*(range(0, extent, 6) for extent in padded_size)))
    assert masks.shape == (len(windows), 1, 216, 216)
    for mask, (z, y, x) in zip(masks, windows, strict=True):
        region = torch.from_numpy(regions[z : z + 6, y : y + 6, x : x + 6].ravel())
        assert torch.equal(mask[0] == 0, region[:, None] == region[None, :])
    assert masks.min().item() == torch.tensor(masks.min().item(), dtype=torch.float16).item()


def slow_attention(attention, tokens, size, shift):
    """Window attention voxel by voxel: every voxel looks for the voxels of its window and region."""
    channels, heads = tokens.shape[-1], attention.num_heads
    padded_size = [-(-extent // 6) * 6 for extent in size]
    volume = torch.zeros(*padded_size, 3 * channels) + attention.qkv.bias
    volume[: size[0], : size[1], : size[2]] = attention.qkv(tokens[0]).view(*size, -1)
    index = relative_position_index()
    result = torch.zeros(*size, channels)
    for voxel in itertools.product(*map(range, size)):
        starts, lows, highs = [], [], []
        for position, extent in zip(voxel, padded_size, strict=True):
            start = (position - shift) % extent // 6 * 6 + shift
            starts.append(start)
            # The last window of an axis wraps around; its two halves do not see each other.
            wraps = start + 6 > extent
            low, high = (start, start + 6) if not wraps else ((start, extent) if position >= start else (0, shift))
            lows.append(low)
            highs.append(high)
        own = [(p - s) % e for p, s, e in zip(voxel, starts, padded_size, strict=True)]
        query = volume[voxel][:channels].view(heads, -1) * (channels // heads) ** -0.5
        scores, values = [], []
        for other in itertools.product(*(range(low, high) for low, high in zip(lows, highs, strict=True))):
            theirs = [(p - s) % e for p, s, e in zip(other, starts, padded_size, strict=True)]
            row = index[own[0] * 36 + own[1] * 6 + own[2], theirs[0] * 36 + theirs[1] * 6 + theirs[2]]
            key, value = volume[other][channels : 2 * channels], volume[other][2 * channels :]
            scores.append((query * key.view(heads, -1)).sum(-1) + attention.bias_table[row])
            values.append(value.view(heads, -1))
        weights = torch.stack(scores).softmax(0)
        result[voxel] = (weights[..., None] * torch.stack(values)).sum(0).flatten()
    return attention.proj(result.view(1, -1, channels))


@pytest.mark.parametrize("shift", [0, 3])
def test_attention_against_a_loop_over_voxels(shift):
    torch.manual_seed(0)
    size = (7, 2, 8) if shift == 0 else (7, 7, 7)
    attention = WindowAttention(8, 2, dropout=0.0, legacy_rel_pos=True).eval()
    torch.nn.init.normal_(attention.bias_table)
    torch.nn.init.normal_(attention.qkv.bias)
    tokens = torch.randn(1, int(np.prod(size)), 8)
    windows = int(np.prod([-(-extent // 6) for extent in size]))
    mask = shifted_window_mask(*size, CPU) if shift else None
    with torch.no_grad():
        ours = attention(tokens, window_slots(*size, shift, CPU), windows, mask)
        expected = slow_attention(attention, tokens, size, shift)
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_both_ways_to_attend_agree():
    torch.manual_seed(0)
    attention = WindowAttention(8, 4, dropout=0.0, legacy_rel_pos=True)
    torch.nn.init.normal_(attention.bias_table)
    tokens = torch.randn(2, 8 * 9 * 10, 8)
    arguments = (window_slots(8, 9, 10, 3, CPU), 8, shifted_window_mask(8, 9, 10, CPU))
    with torch.no_grad():
        torch.testing.assert_close(
            attention.train()(tokens, *arguments), attention.eval()(tokens, *arguments), rtol=1e-5, atol=1e-6
        )


def test_no_shift_where_an_axis_has_one_window():
    transformer = WindowTransformer(4, 2, 0.0, 0.0, legacy_rel_pos=True)
    plain, second = transformer.plan(8, 6, 8, CPU)
    assert torch.equal(plain, second)
    plain, second, _ = transformer.plan(7, 7, 7, CPU)
    assert not torch.equal(plain, second)


def test_plans_are_made_once_a_size(monkeypatch):
    calls = []
    for name in ("window_slots", "shifted_window_mask"):
        original = getattr(pct_net, name)
        monkeypatch.setattr(
            pct_net, name, lambda *args, original=original, name=name: (calls.append(name), original(*args))[1]
        )
    network = PCTNet(feature_channels=(4, 8, 16, 32, 64)).eval()
    keys = list(network.state_dict())
    with torch.no_grad():
        network(torch.randn(1, 1, 16, 112, 112))
        assert calls.count("window_slots") == 10
        assert calls.count("shifted_window_mask") == 2  # 8x28x28 voxels twice; 4x14x14 and 2x7x7 are not shifted
        first = len(calls)
        network(torch.randn(2, 1, 16, 112, 112))
        network(torch.randn(1, 1, 15, 110, 100))
        assert len(calls) == first
        network(torch.randn(1, 1, 16, 128, 112))
    assert len(calls) > first
    assert list(network.state_dict()) == keys
    assert not any("plan" in key or "index" in key or "mask" in key for key in keys)


def test_the_cache_is_bounded_and_follows_the_device():
    transformer = WindowTransformer(4, 2, 0.0, 0.0, legacy_rel_pos=True)
    for width in range(1, 40):
        transformer.plan(1, 1, width, CPU)
    assert len(transformer._plans) <= transformer.max_plans
    assert transformer.plan(1, 1, 39, torch.device("meta"))[0].device.type == "meta"
    assert transformer.plan(1, 1, 39, CPU)[0].device.type == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop_path": 1.0}, "drop_path must be a probability.*got 1.0"),
        ({"feature_channels": (4, 8, 18, 32, 64)}, r"feature_channels\[2\] must be divisible by its 4.*got 18"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        PCTNet(**arguments)
