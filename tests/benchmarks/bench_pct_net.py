"""How long a training step of PCT-Net takes per FLOP, against a plain MONAI U-Net of about equal FLOPs.

Run as `python -m tests.benchmarks.bench_pct_net` or by path. A step is forward, loss, backward and fused Adam, batch
1, on the CPU. All variants take turns in one process, in a rotating order. A ratio is the median of the ratios within a
turn, once of wall time and once of CPU time, which other work on the machine disturbs less. FLOPs are those that
`torch.utils.flop_counter` counts in forward and backward, i.e. convolutions and matrix products. Peak memory is how far
the peak of the resident set (`VmHWM` of Linux) of a fresh process rises in two steps, with weights and optimizer state.

Two ablations: masks and slots made anew in every step, and the published mask value of -100.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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


class Seconds(NamedTuple):
    """Duration of one step."""

    wall: float
    cpu: float


class TrainingStep:
    """One network with its optimizer, loss and a fixed random batch."""

    def __init__(self, network: nn.Module, spatial_size: tuple[int, int, int]) -> None:
        generator = torch.Generator().manual_seed(0)
        self.network = network.train()
        self.loss = DeepSupervisionDiceCELoss()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, weight_decay=1e-5, fused=True)
        self.image = torch.rand((1, 1, *spatial_size), generator=generator)
        self.label = torch.randint(0, NUM_CLASSES, (1, 1, *spatial_size), generator=generator)

    def backward(self) -> None:
        self.optimizer.zero_grad()
        self.loss(self.network(self.image), self.label).backward()

    def measure(self) -> Seconds:
        wall, cpu = time.perf_counter(), time.process_time()
        self.backward()
        self.optimizer.step()
        return Seconds(time.perf_counter() - wall, time.process_time() - cpu)

    def gigaflops(self) -> float:
        with FlopCounterMode(display=False) as counter:
            self.backward()
        return counter.get_total_flops() / 1e9

    def transformers(self) -> list[WindowTransformer]:
        return [module for module in self.network.modules() if isinstance(module, WindowTransformer)]

    def measure_uncached(self) -> Seconds:
        for transformer in self.transformers():
            transformer._plans.clear()
        return self.measure()

    def measure_published_mask(self) -> Seconds:
        masks = [
            mask for transformer in self.transformers() for plan in transformer._plans.values() for mask in plan[2:]
        ]
        for mask in masks:
            mask.mul_(PUBLISHED_MASKED_SCORE / MASKED_SCORE)
        seconds = self.measure()
        for mask in masks:
            mask.mul_(MASKED_SCORE / PUBLISHED_MASKED_SCORE)
        return seconds


def peak_megabytes(name: str, spatial_size: tuple[int, int, int], threads: int) -> float:
    """Return by how much the resident set grows in two training steps; to be called in a fresh process."""
    torch.set_num_threads(threads)
    before = resident_peak_megabytes()
    step = TrainingStep(NETWORKS[name](), spatial_size)
    step.measure()
    step.measure()
    return resident_peak_megabytes() - before


def resident_peak_megabytes() -> float:
    """Return the peak of this process's resident set so far; `getrusage` would count that of its parent too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def run(repeats: int = 7, threads: int = 2, spatial_size: tuple[int, int, int] = (32, 64, 64)) -> None:
    """Print time per FLOP, the ratio to the plain network, the ablations and peak memory.

    Args:
        repeats: Turns that are measured, after one that is not.
        threads: CPU threads.
        spatial_size: Image size in voxels, (D, H, W).
    """
    torch.set_num_threads(threads)
    print(f"training step at 1x1x{'x'.join(map(str, spatial_size))}, {threads} threads, {repeats} turns", flush=True)
    steps = {name: TrainingStep(make(), spatial_size) for name, make in NETWORKS.items()}
    gigaflops = {name: step.gigaflops() for name, step in steps.items()}
    measures = {
        "PCTNet": steps["PCTNet"].measure,
        "BasicUNet": steps["BasicUNet"].measure,
        "uncached": steps["PCTNet"].measure_uncached,
        "mask of -100": steps["PCTNet"].measure_published_mask,
    }
    turns = []
    order = list(measures)
    for _ in range(repeats + 1):
        turns.append({name: measures[name]() for name in order})
        order.append(order.pop(0))  # each follows another one, so that none always finds warm memory
    turns = turns[1:]

    def ratio(above: str, below: str, clock: str) -> float:
        return statistics.median(getattr(turn[above], clock) / getattr(turn[below], clock) for turn in turns)

    context = multiprocessing.get_context("spawn")
    for name, work in gigaflops.items():
        with context.Pool(1) as pool:
            peak = pool.apply(peak_megabytes, (name, spatial_size, threads))
        wall = statistics.median(turn[name].wall for turn in turns)
        print(
            f"{name:10s} {wall:6.2f} s {work:6.1f} GFLOP {1e3 * wall / work:6.2f} ms/GFLOP, peak memory {peak:5.0f} MiB"
        )
    scale = gigaflops["BasicUNet"] / gigaflops["PCTNet"]
    for clock in ("wall", "cpu"):
        print(f"{clock} time per FLOP, PCTNet / BasicUNet: {scale * ratio('PCTNet', 'BasicUNet', clock):.2f}")
        for name in ("uncached", "mask of -100"):
            print(f"{clock} time, PCTNet {name} / PCTNet: {ratio(name, 'PCTNet', clock):.2f}")


if __name__ == "__main__":
    fire.Fire(run)
