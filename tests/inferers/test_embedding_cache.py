"""Embeddings on disk: found again, never mixed up, within the limit of size."""

import os

import numpy as np
import pytest
import torch

from common.data.boxes import OrganBoxes, ScanBoxes, VoxelBox
from common.inferers import BoxPromptInferer, EmbeddingCache
from common.networks import SamSegmenter


class Doubler(torch.nn.Module):
    """Embeds a slice as twice its values, and counts."""

    def __init__(self):
        super().__init__()
        self.num_encoded = 0

    def encode(self, slices):
        self.num_encoded += len(slices)
        return 2 * slices.repeat(1, 16, 1, 1)


@pytest.fixture
def network():
    return Doubler()


def draw_slices(count, seed=0):
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_each_slice_is_encoded_once_over_runs(tmp_path, network):
    slices = draw_slices(4)
    first = EmbeddingCache(tmp_path).encode(network, slices[:3], "a")
    again = EmbeddingCache(tmp_path).encode(network, slices[[3, 1, 0]], "a")
    assert network.num_encoded == 4
    assert torch.equal(first, 2 * slices[:3].repeat(1, 16, 1, 1))
    assert torch.equal(again, 2 * slices[[3, 1, 0]].repeat(1, 16, 1, 1))


def test_other_weights_and_other_sizes_never_meet(tmp_path, network):
    cache = EmbeddingCache(tmp_path)
    slices = draw_slices(1)
    cache.encode(network, slices, "a")
    cache.encode(network, slices, "b")
    cache.encode(network, slices.reshape(1, 1, 32, 8), "a")
    assert network.num_encoded == 3


def test_the_least_recently_used_goes_first(tmp_path, network):
    file_bytes = 18_000
    cache = EmbeddingCache(tmp_path, max_gb=3.5 * file_bytes / 1e9)
    slices = draw_slices(4)
    dated = set()
    for number in range(3):
        cache.encode(network, slices[number : number + 1], "a")
        (path,) = set(tmp_path.glob("*.pt")) - dated
        os.utime(path, (number, number))  # in this order, whatever the resolution of the file system's clock
        dated.add(path)
    cache.encode(network, slices[:1], "a")  # used again, so the second is now the oldest
    cache.encode(network, slices[3:], "a")
    assert network.num_encoded == 4
    assert len(list(tmp_path.glob("*.pt"))) == 3
    cache.encode(network, slices[[0, 2, 3]], "a")
    assert network.num_encoded == 4
    cache.encode(network, slices[1:2], "a")
    assert network.num_encoded == 5


def test_a_damaged_file_is_made_anew(tmp_path, network, caplog):
    cache = EmbeddingCache(tmp_path)
    slices = draw_slices(1)
    expected = cache.encode(network, slices, "a")
    (path,) = tmp_path.glob("*.pt")
    path.write_bytes(path.read_bytes()[:100])
    assert torch.equal(cache.encode(network, slices, "a"), expected)
    assert "cannot be read and is made anew" in caplog.text
    assert torch.equal(EmbeddingCache(tmp_path).encode(network, slices, "a"), expected)
    assert network.num_encoded == 2


def test_a_limit_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="max_gb must be above 0, got 0"):
        EmbeddingCache(tmp_path, max_gb=0)


def test_segmentation_with_a_cache_is_the_same(tmp_path):
    torch.manual_seed(0)
    network = SamSegmenter("tiny").eval()
    volume = torch.rand(1, 1, 4, 20, 20)
    organ = OrganBoxes("a", 1, (VoxelBox((1, 2, 2), (3, 18, 15)),))
    boxes = ScanBoxes("a", np.eye(4), (4, 20, 20), (organ,))
    plain = BoxPromptInferer()(volume, network, boxes)
    for _ in range(2):
        cached = BoxPromptInferer(cache=EmbeddingCache(tmp_path))(volume, network, boxes)
        assert torch.equal(cached, plain)
    assert len(list(tmp_path.glob("*.pt"))) == 2
