"""Localization at the published size against the published way, in one run.

    python -m tests.benchmarks.bench_localization [--organs 10] [--base_channels 24] [--patch 64] [--threads 2]

The weights are random and the scan is noise, since neither changes the time. The organs' points are expected near where
they are, as a trained network would have it. The published way runs the decoder for the start patches, too, encodes
them for each organ anew, has torch's own convolutions, and compares features by one grouped convolution a scale for the
six points of an organ.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from functools import partial
from unittest import mock

import fire
import torch
import torch.nn.functional as F

from common.inferers.localization import LocalizationInferer, OrganTemplate
from common.inferers.localization.search import cut_template
from common.networks import MedLAM
from common.transforms.paired_patches import crop_padded


def seconds(function: Callable[[], object]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    start, start_cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        function()
    return time.perf_counter() - start, time.process_time() - start_cpu


def published_way(network: MedLAM, volume: torch.Tensor, centers: torch.Tensor, template: OrganTemplate) -> None:
    """One organ as the specification describes the authors' code."""
    half = torch.tensor(network.patch_size) // 2
    starts = torch.tensor(volume.shape[1:]) // 2 + torch.randint(-5, 6, (10, 3))
    for center in starts:
        network.decode(network.encode(crop_padded(volume, (center - half).tolist(), network.patch_size)[None]))
    patches = torch.stack([crop_padded(volume, (c - half).tolist(), network.patch_size) for c in centers])
    kinds = zip(*[network.decode(network.encode(patch[None])) for patch in patches], strict=True)
    for maps, kernels in zip(kinds, template.maps, strict=True):
        unit = F.normalize(torch.cat(maps), dim=1).flatten(0, 1)[None]
        scores = F.conv3d(unit, kernels[0], padding=kernels.shape[-1] // 2, groups=6)
        F.interpolate(scores, size=network.patch_size, mode="trilinear")


def bench_localization(
    organs: int = 10, base_channels: int = 24, patch: int = 64, threads: int = 2, published: bool = True
) -> None:
    """Print seconds and ratios."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    network = MedLAM(base_channels=base_channels, patch_size=(patch,) * 3).eval()
    size = [n * patch // 64 for n in (122, 101, 112)]
    volume = F.avg_pool3d(torch.rand(1, *size), 5, 1, 2)
    # boxes of 12 to 40 voxels within the middle 80 % of the scan
    extent = torch.randint(12 * patch // 64, 40 * patch // 64, (organs, 3))
    room = torch.tensor(size) * 0.8 - extent
    lower = (0.1 * torch.tensor(size) + torch.rand(organs, 3) * room).long()
    points = (lower + extent // 2)[:, None].repeat(1, 6, 1)
    for axis in range(3):
        points[:, axis, axis], points[:, 3 + axis, axis] = lower[:, axis], (lower + extent)[:, axis]
    half = torch.tensor(network.patch_size) // 2
    with torch.inference_mode():
        encoded = network.encode(crop_padded(volume, (points[0, 0] - half).tolist(), network.patch_size)[None])
        maps = [t[:, None].repeat(1, 6, 1, 1, 1, 1) for t in cut_template(network.decode(encoded))]
    templates = [OrganTemplate(str(i), i + 1, 1, *[torch.zeros(1, 6, 3)] * 3, tuple(maps)) for i in range(organs)]
    expected = points.flatten(0, 1) + 3.0 * torch.randn(6 * organs, 3)
    reference_s = 0.0

    def report(name: str, count: int, function: Callable[[], object]) -> float:
        wall_s, cpu_s = seconds(function)
        ratio = f"{count * reference_s / cpu_s:6.1f} times less CPU than published" if reference_s else ""
        print(f"{name:30s} {wall_s:8.1f} s wall {cpu_s:8.1f} s CPU {ratio}", flush=True)
        return cpu_s

    if published:
        way = partial(published_way, network, volume, points[0], templates[0])
        with mock.patch("common.networks.medlam.is_faster", return_value=False):
            reference_s = report("published way, 1 organ", 1, way)
    fast_network = network.to(memory_format=torch.channels_last_3d)
    for count, search in ((1, "exact"), (organs, "exact"), (organs, "fast")):
        inferer = LocalizationInferer(templates[:count], search=search)
        regress = inferer._expect

        def expect(volume, network, position, regress=regress, count=count):
            regress(volume, network, position)  # its time counts, its result is that of random weights
            return expected[: 6 * count]

        inferer._expect = expect
        report(f"ours, {search}, {count} organs", count, partial(inferer.locate, volume, fast_network))
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    fire.Fire(bench_localization)
