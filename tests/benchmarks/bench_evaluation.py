"""Scoring a case against a loop of per-structure full-volume calls of MONAI's metrics, as a ratio in one run.

    python -m tests.benchmarks.bench_evaluation [--num_cases 2] [--shape "(256,256,128)"] [--num_structures 10]

Both sides get the same label maps in memory and give Dice, NSD, HD95 and ASD of every structure; the figures are CPU
time of the process on one thread, and the largest difference between the two.
"""

from __future__ import annotations

import time

import fire
import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)

from common.evaluation.masks import Grid, split_label_map
from common.evaluation.protocols import PROTOCOLS, score_masks
from common.evaluation.structures import LabelSet, Structure

SPACING_MM = (0.9, 0.9, 2.5)
TOLERANCE_MM = 1.0


def organs(shape: tuple[int, int, int], num_structures: int, seed: int, moved_voxels: float = 0.0) -> np.ndarray:
    """A label map of ellipsoids of organ-like sizes with wavy surfaces, moved by a number of voxels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.uint8)
    for label in range(1, num_structures + 1):
        radii = rng.uniform(0.04, 0.16, 3) * shape
        center = rng.uniform(radii + 8, np.array(shape) - radii - 8)
        phases = rng.uniform(0, 2 * np.pi, 3)
        window = tuple(slice(max(0, int(c - 1.2 * r)), int(c + 1.2 * r)) for c, r in zip(center, radii, strict=True))
        axes = np.ogrid[window]
        scaled = [(a - c - moved_voxels) / r for a, c, r in zip(axes, center, radii, strict=True)]
        waves = sum(0.1 * np.sin(7 * s + phase + moved_voxels) for s, phase in zip(scaled, phases, strict=True))
        labels[window][sum(s**2 for s in scaled) + waves < 1] = label
    return labels


def score_ours(prediction: np.ndarray, reference: np.ndarray, label_set: LabelSet) -> np.ndarray:
    grid = Grid(reference.shape, np.diag([*SPACING_MM, 1.0]), SPACING_MM)
    predicted, true = (split_label_map("memory", labels, label_set) for labels in (prediction, reference))
    rows = []
    for structure in label_set.structures:
        pair = predicted[structure.name], true[structure.name]
        values = score_masks(*pair, grid, TOLERANCE_MM, PROTOCOLS["plain"]).values
        rows.append([values[metric] for metric in ("dice", "nsd", "hd95_mm", "asd_mm")])
    return np.array(rows)


def score_monai(prediction: np.ndarray, reference: np.ndarray, label_set: LabelSet) -> np.ndarray:
    rows = []
    for structure in label_set.structures:
        pair = [torch.from_numpy(np.isin(labels, structure.labels))[None, None] for labels in (prediction, reference)]
        options = {"include_background": True, "spacing": SPACING_MM}
        rows.append(
            [
                compute_dice(*pair).item(),
                compute_surface_dice(*pair, [TOLERANCE_MM], use_subvoxels=True, **options).item(),
                compute_hausdorff_distance(*pair, percentile=95, **options).item(),
                compute_average_surface_distance(*pair, symmetric=True, **options).item(),
            ]
        )
    return np.array(rows)


def bench_evaluation(
    num_cases: int = 2, shape: tuple[int, int, int] = (256, 256, 128), num_structures: int = 10
) -> None:
    """Print CPU seconds a case, the ratio, and the largest difference of a score."""
    torch.set_num_threads(1)
    structures = tuple(Structure(f"organ {label}", (label,), TOLERANCE_MM) for label in range(1, num_structures + 1))
    label_set = LabelSet("organs", structures)
    seconds = {"ours": 0.0, "MONAI, structure by structure": 0.0}
    difference = 0.0
    for case in range(num_cases):
        reference = organs(shape, num_structures, case)
        prediction = organs(shape, num_structures, case, moved_voxels=1.5)
        results = []
        for name, function in zip(seconds, (score_ours, score_monai), strict=True):
            start_s = time.process_time()
            results.append(function(prediction, reference, label_set))
            seconds[name] += time.process_time() - start_s
        difference = max(difference, float(np.abs(results[0] - results[1]).max()))
    ours_s, monai_s = (value / num_cases for value in seconds.values())
    for name, value in seconds.items():
        print(f"{name:32s} {value / num_cases:8.2f} s CPU a case, one thread")
    print(f"{monai_s / ours_s:.1f} times less; largest difference of a score {difference:.1e}")


if __name__ == "__main__":
    fire.Fire(bench_evaluation)
