"""What test-time adaptation costs, against plain inference of the same network, and whether its memory stays flat.

Run as `python -m tests.benchmarks.bench_adaptation`. Speed: ResUNet-34, one image, on
the CPU; all variants take turns in one process, in a rotating order, and a ratio is the median of the ratios of CPU
time within a turn to plain inference in the default memory format. `slow` is the plain form of the published method in
tests/oracles. The float32 logits of fast and slow are compared on the first image. Memory: a stream of small images;
the size of the saved state and the resident set are printed as the stream goes on.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import fire
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from common.inferers import (
    AdaptationInferer,
    BatchNormStatisticsInferer,
    GraTaInferer,
    NoAdaptationInferer,
    TENTInferer,
    VPTTAInferer,
)
from common.networks import ResUNet
from tests.oracles.adaptation import GraTaOracle, VPTTAOracle

PLAIN = "plain"
INFERERS: dict[str, Callable[[], AdaptationInferer]] = {
    "none": NoAdaptationInferer,
    "batch_norm": BatchNormStatisticsInferer,
    "tent": TENTInferer,
    "vptta": lambda: VPTTAInferer(published=True),
    "grata": GraTaInferer,
}


def make_image(size: int, seed: int) -> torch.Tensor:
    """A smooth random image with noise, scaled to [0, 1]. Shape (1, 3, size, size)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 8, 8, generator=generator)
    image = nn.functional.interpolate(coarse, (size, size), mode="bicubic") + 0.05 * torch.rand(
        1, 3, size, size, generator=generator
    )
    return (image - image.min()) / (image.max() - image.min())


def make_variants(
    names: Sequence[str], network: nn.Module, image: torch.Tensor
) -> dict[str, Callable[[], torch.Tensor]]:
    """The asked-for variants as functions without arguments."""

    def plain() -> torch.Tensor:
        with torch.no_grad():
            return network(image)

    slow_vptta = VPTTAOracle(network, 0.05, 5.0, 0.01, 16, 40, published=True)
    slow_grata = GraTaOracle(network)
    variants: dict[str, Callable[[], torch.Tensor]] = {
        PLAIN: plain,
        "vptta slow": lambda: slow_vptta(image),
        "grata slow": lambda: slow_grata(image, image**1.2),
    }
    for name, make in INFERERS.items():
        inferer = GraTaInferer(strong_view=lambda pixels, _: pixels**1.2) if name == "grata" else make()
        variants[name] = lambda inferer=inferer: inferer(image, network)
    return {name: variants[name] for name in (PLAIN, *names)}


def run(
    size: int = 512,
    turns: int = 5,
    threads: int = 1,
    methods: Sequence[str] = ("none", "batch_norm", "tent", "vptta", "vptta slow", "grata", "grata slow"),
    stream_images: int = 2000,
) -> None:
    """Measure speed, then memory.

    Args:
        size: Side of the image of the speed test in pixels.
        turns: Turns after a first one, which does not count; 0 leaves the speed test out.
        threads: Threads of PyTorch.
        methods: Names of methods; "vptta slow" and "grata slow" are the oracles.
        stream_images: Length of the stream of the memory test; 0 leaves it out.
    """
    torch.set_num_threads(threads)
    if turns:
        measure_speed(size, turns, [methods] if isinstance(methods, str) else list(methods))
    if stream_images:
        measure_memory(stream_images)


def measure_speed(size: int, turns: int, methods: Sequence[str]) -> None:
    """Print CPU time per image of each method and its ratio to plain inference.

    Args:
        size: Side of the image in pixels.
        turns: Turns after a first one, which does not count.
        methods: Names of methods.
    """
    torch.manual_seed(0)
    network = ResUNet().eval()
    variants = make_variants(methods, network, make_image(size, 0))
    order = list(variants)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    first: dict[str, torch.Tensor] = {}
    for turn in range(turns + 1):
        for name in order:
            start = time.process_time()
            logits = variants[name]()
            if turn:
                seconds[name].append(time.process_time() - start)
            else:
                first[name] = torch.sigmoid(logits)
        order.append(order.pop(0))  # each follows another one, so that none always finds warm memory
    for name, values in seconds.items():
        ratio = statistics.median(value / plain for value, plain in zip(values, seconds[PLAIN], strict=True))
        print(f"{name:12s} {statistics.median(values):6.2f} s CPU per image, {ratio:5.2f} times plain")
    for name in ("vptta", "grata"):
        if {name, f"{name} slow"} <= first.keys():
            difference = (first[name] - first[f"{name} slow"]).abs().max().item()
            print(f"{name}: largest difference of a probability from the slow form {difference:.1e}")


def resident_megabytes() -> float:
    """The resident set of this process (`VmRSS` of Linux) in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) / 1024


def measure_memory(num_images: int, size: int = 64, methods: Sequence[str] = ("tent", "vptta", "grata")) -> None:
    """Print state size and resident set along a stream of images.

    Args:
        num_images: Length of the stream.
        size: Side of the images in pixels.
        methods: Names of methods.
    """
    torch.manual_seed(0)
    network = BasicUNet(2, 3, 2, features=(8, 8, 16, 16, 16, 8), norm="batch").eval()
    for method in methods:
        inferer = INFERERS[method]()
        checkpoints = sorted({min(100, num_images), num_images // 2, num_images})
        for index in range(1, num_images + 1):
            logits = inferer(make_image(size, index), network)
            if index in checkpoints:
                file = io.BytesIO()
                torch.save(inferer.state_dict(), file)
                state = file.tell() / 1024
                finite = bool(torch.isfinite(logits).all())
                print(f"{method:6s} image {index:5d}: state {state:6.1f} KiB, resident {resident_megabytes():6.1f} MiB")
                if not finite:
                    raise SystemExit(f"{method}: logits of image {index} are not finite")


if __name__ == "__main__":
    fire.Fire(run)
