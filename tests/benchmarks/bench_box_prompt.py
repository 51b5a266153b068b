"""Masks of many organs from boxes: one encoding a slice against one for every organ, as ratios in one run.

    python -m tests.benchmarks.bench_box_prompt
    python -m tests.benchmarks.bench_box_prompt --architecture vit_b --num_slices 1 --repeats 1 --estimate

Both sides get the same scan, boxes and weights (drawn anew: speed does not depend on them) and take turns; the figures
are medians of the CPU time of the process on one thread.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable

import fire
import numpy as np
import torch

from common.data.boxes import OrganBoxes, ScanBoxes, VoxelBox
from common.inferers import BoxPromptInferer, EmbeddingCache
from common.networks import SamSegmenter


def cpu_s(function: Callable[[], torch.Tensor]) -> tuple[float, torch.Tensor]:
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def draw_boxes(num_organs: int, shape: tuple[int, int, int]) -> ScanBoxes:
    """Boxes that touch every slice."""
    rng = np.random.default_rng(0)
    organs = []
    for label in range(1, num_organs + 1):
        lower = rng.integers(0, shape[1] // 2, 2)
        upper = lower + rng.integers(8, shape[1] // 2, 2)
        box = VoxelBox((0, int(lower[0]), int(lower[1])), (shape[0], int(upper[0]), int(upper[1])))
        organs.append(OrganBoxes(f"organ {label}", label, (box,)))
    return ScanBoxes("scan", np.eye(4), shape, tuple(organs))


def bench_box_prompt(
    architecture: str = "tiny",
    num_organs: int = 10,
    num_slices: int = 8,
    side: int = 256,
    repeats: int = 5,
    estimate: bool = False,
) -> None:
    """Print CPU seconds and ratios.

    Args:
        architecture: Variant of SAM.
        num_organs: Organs, all on every slice.
        num_slices: Slices of the scan.
        side: Height and width of a slice in voxels.
        repeats: Repetitions, of which the median is taken.
        estimate: Measure encoding and decoding once each, and add up what both sides take.
    """
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SamSegmenter(architecture).eval()
    shape = (num_slices, side, side)
    volume = torch.rand(1, 1, *shape)
    boxes = draw_boxes(num_organs, shape)
    encoded: list[int] = []
    network.encoder.register_forward_hook(lambda _m, _i, output: encoded.append(len(output.last_hidden_state)))

    def together(box_batch_size: int = 16, cache: EmbeddingCache | None = None) -> torch.Tensor:
        return BoxPromptInferer(box_batch_size=box_batch_size, cache=cache)(volume, network, boxes)

    def organ_by_organ() -> torch.Tensor:
        inferer = BoxPromptInferer()
        masks = [inferer(volume, network, ScanBoxes("scan", np.eye(4), shape, (organ,))) for organ in boxes.organs]
        return torch.stack(masks).amax(0)

    if estimate:
        slices = volume[0, 0, :, None]
        faces = torch.rand(num_organs, 2) * network.image_size / 2
        with torch.inference_mode():
            encode_s, embedding = cpu_s(lambda: network.encode(slices))
            rows = torch.zeros(num_organs, dtype=torch.int64)
            decode_s, _ = cpu_s(lambda: network.decode(embedding, torch.cat([faces, faces + 100], 1), rows))
        decode_s *= num_slices
        print(f"{architecture}: {num_slices} slices encoded in {encode_s:.1f} s, {num_organs} boxes on each decoded in")
        print(f"{decode_s:.1f} s; one encoding for every organ takes")
        print(f"{(num_organs * encode_s + decode_s) / (encode_s + decode_s):.1f} times as long as one for all")
        return
    times: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        cache = EmbeddingCache(folder)
        together(cache=cache)
        for _ in range(repeats):
            for name, function in {
                "all organs together": together,
                "the same, one box a call": lambda: together(1),
                "the same, embeddings on disk": lambda: together(cache=cache),
                "organ by organ": organ_by_organ,
            }.items():
                encoded.clear()
                seconds, _ = cpu_s(function)
                times.setdefault(name, []).append(seconds)
                counts[name] = sum(encoded)
    base = statistics.median(times["all organs together"])
    print(f"{architecture}: {num_organs} organs on {num_slices} slices of {side} x {side}, CPU time on one thread")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:32s} {median:8.2f} s {median / base:7.2f} times {counts[name]:4d} slices encoded")


if __name__ == "__main__":
    fire.Fire(bench_box_prompt)
