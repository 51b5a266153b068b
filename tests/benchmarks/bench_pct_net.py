"""How long a training step of PCT-Net takes per FLOP, against a plain MONAI U-Net of about equal FLOPs.

Run as `python -m tests.benchmarks.bench_pct_net` or by path. A step is forward, loss, backward and Adam, batch 1,
on the CPU. The steps of all networks alternate in one process, and the ratio is one of medians. The FLOPs are those of
`torch.utils.flop_counter` for forward and backward, i.e. convolutions and matrix products. Peak memory is how much the
resident set (`resource.getrusage`) of a fresh process grows in two steps, weights and optimizer state included.

Two ablations: masks and slots made anew in every step, and the published mask value of -100.
"""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import fire
import torch
from monai.networks.nets import BasicUNet
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from common.losses import DeepSupervisionDiceCELoss
from common.networks import PCTNet
from common.networks.pct_net import MASKED_SCORE, WindowTransformer

PUBLISHED_MASKED_SCORE = -100.0
NUM_CLASSES = 5
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "PCTNet": lambda: PCTNet(deep_supervision=True),
    "BasicUNet": lambda: BasicUNet(3, 1, NUM_CLASSES, features=(48, 48, 96, 192, 384, 48)),
}


class TrainingStep:
    """One network with its optimizer, loss and a fixed random batch."""

    def __init__(self, network: nn.Module, spatial_size: tuple[int, int, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.network = network.train()
        self.loss = DeepSupervisionDiceCELoss()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-5)
        self.image = torch.rand((1, 1, *spatial_size), generator=generator)
        self.label = torch.randint(0, NUM_CLASSES, (1, 1, *spatial_size), generator=generator)

    def backward(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.network(self.image), self.label).backward()

    def seconds(self) -> float:
        start = time.perf_counter()
        self.backward()
        self.optimizer.step()
        return time.perf_counter() - start

    def gigaflops(self) -> float:
        with FlopCounterMode(display=False) as counter:
            self.backward()
        return counter.get_total_flops() / 1e9


class UncachedStep(TrainingStep):
    """The same with masks and slots made in every step."""

    def backward(self) -> None:
        for module in self.network.modules():
            if isinstance(module, WindowTransformer):
                module._plans.clear()
        super().backward()


def use_published_mask(step: TrainingStep) -> TrainingStep:
    """Replace the cached masks of the network by those with the published value."""
    step.backward()
    for module in step.network.modules():
        if isinstance(module, WindowTransformer):
            for plan in module._plans.values():
                for mask in plan[2:]:
                    mask.mul_(PUBLISHED_MASKED_SCORE / MASKED_SCORE)
    return step


def peak_megabytes(name: str, spatial_size: tuple[int, int, int], threads: int) -> float:
    """Return by how much the resident set grows in two training steps; for a fresh process."""
    torch.set_num_threads(threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = TrainingStep(NETWORKS[name](), spatial_size)
    step.seconds()
    step.seconds()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def run(repeats: int = 7, threads: int = 2, spatial_size: tuple[int, int, int] = (32, 64, 64)) -> None:
    """Print time per FLOP, the ratio to the plain network, the ablations and peak memory.

    Args:
        repeats: Steps of each network; medians are taken.
        threads: CPU threads.
        spatial_size: Image size in voxels, (D, H, W).
    """
    torch.set_num_threads(threads)
    steps = {name: TrainingStep(make(), spatial_size) for name, make in NETWORKS.items()}
    flops = {name: step.gigaflops() for name, step in steps.items()}
    ablations = {
        "PCTNet, masks made every step": UncachedStep(NETWORKS["PCTNet"](), spatial_size),
        "PCTNet, published mask value": use_published_mask(TrainingStep(NETWORKS["PCTNet"](), spatial_size)),
    }
    runs = {**steps, **ablations}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(repeats + 1):
        for name, step in runs.items():
            elapsed = step.seconds()
            if repeat > 0:  # the first one allocates
                times[name].append(elapsed)
    median = {name: statistics.median(values) for name, values in times.items()}
    context = multiprocessing.get_context("spawn")
    print(f"training step at 1x1x{'x'.join(map(str, spatial_size))}, {threads} threads, median of {repeats}")
    for name, giga in flops.items():
        with context.Pool(1) as pool:
            peak = pool.apply(peak_megabytes, (name, spatial_size, threads))
        print(
            f"{name:10s} {median[name]:6.2f} s  {giga:6.1f} GFLOP  {1e3 * median[name] / giga:6.2f} ms/GFLOP  "
            f"peak memory {peak:5.0f} MiB"
        )
    per_flop = {name: median[name] / giga for name, giga in flops.items()}
    print(f"time per FLOP, PCTNet / BasicUNet: {per_flop['PCTNet'] / per_flop['BasicUNet']:.2f}")
    for name in ablations:
        print(f"{name} / PCTNet: {median[name] / median['PCTNet']:.2f}")


if __name__ == "__main__":
    fire.Fire(run)
