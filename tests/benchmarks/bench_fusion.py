"""Volume Fusion against a straightforward NumPy/SciPy pipeline, as ratios in one run.

    python -m tests.benchmarks.bench_fusion [--repeats 21] [--roi_size "(64,128,128)"]

Both sides get the same volumes and the same drawn parameters and take turns; the figures are medians of the CPU time
of the process on one thread.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import fire
import numpy as np
import torch
import torch.nn.functional as F

from common.transforms.volume_fusion import VolumeFusion, resize_trilinear
from tests.oracles import volume_fusion as oracle


def cpu_ms(function: Callable[[], object]) -> float:
    start = time.process_time()
    function()
    return 1e3 * (time.process_time() - start)


def bench_fusion(
    repeats: int = 21, roi_size: tuple[int, int, int] = (64, 128, 128), source_size: tuple[int, int, int] | None = None
) -> None:
    """Print CPU milliseconds and ratios."""
    torch.set_num_threads(1)
    source_size = source_size or tuple(3 * n // 2 for n in roi_size)
    rng = np.random.default_rng(0)
    # CT-like: air, soft tissue with noise, some bone
    volume = np.clip(rng.normal(0.5, 0.05, source_size), 0, 1).astype(np.float32)
    volume[:, : source_size[1] // 6] = 0.0
    volume[:, -source_size[1] // 8 :, : source_size[2] // 4] = 0.9
    tensor = torch.from_numpy(volume)[None]
    fusion = VolumeFusion(
        roi_size, seed=0, block_size_max=[min(a, n) for a, n in zip((20, 32, 32), roi_size, strict=True)]
    )
    patches = VolumeFusion(roi_size, seed=0, variant="patches")
    times: dict[str, list[float]] = {}
    for _ in range(repeats):
        plans = fusion.randomize([source_size])
        pair = patches.randomize([source_size, source_size])
        crop = tensor[0, 1:-1, 1:-1, 1:-1]
        for name, function in {
            "plain NumPy/SciPy": partial(oracle.fuse_blocks_sample, volume, plans[0], roi_size, 5),
            "ours, blocks": partial(fusion.apply, [tensor], plans),
            "ours, patches (a sample of 2)": partial(patches.apply, [tensor, tensor], pair),
            "torch trilinear resize": partial(
                F.interpolate, crop[None, None], size=roi_size, mode="trilinear", align_corners=True
            ),
            "our trilinear resize": partial(resize_trilinear, crop, roi_size),
        }.items():
            times.setdefault(name, []).append(cpu_ms(function))
    medians = {name: statistics.median(values) for name, values in times.items()}
    medians["ours, patches (a sample of 2)"] /= 2
    plain = medians["plain NumPy/SciPy"]
    for name, value in medians.items():
        ratio = "" if "resize" in name else f"{plain / value:6.1f} times less than plain"
        print(f"{name:32s} {value:8.2f} ms CPU, one thread {ratio}")


if __name__ == "__main__":
    fire.Fire(bench_fusion)
