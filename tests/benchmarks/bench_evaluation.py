"""Scoring against a loop of per-structure full-volume calls of MONAI's metrics, as a ratio in one run.

    python -m tests.benchmarks.bench_evaluation [--num_cases 2] [--shape "(256,256,128)"] [--num_structures 10]
    python -m tests.benchmarks.bench_evaluation --from_files True [--num_cases 20] [--num_workers 2]

The first: both sides get the same label maps in memory and give Dice, NSD, HD95 and ASD of every structure; the figures
are CPU time of the process on one thread, and the largest difference between the two.

The second: `score_folder` reads and scores files in processes, the loop reads and scores the first of them in this
process. The figures are seconds by the clock and of CPU, and the memory that the processes had at most, beside what
they had when they started.
"""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from pathlib import Path

import fire
import nibabel as nib
import numpy as np
import torch
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_surface_dice,
)

from common.evaluation import score_folder
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


def bench_cases(num_cases: int, shape: tuple[int, int, int], num_structures: int) -> None:
    """Print CPU seconds a case, the ratio, and the largest difference of a score."""
    torch.set_num_threads(1)
    label_set = organ_labels(num_structures)
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


def organ_labels(num_structures: int) -> LabelSet:
    labels = range(1, num_structures + 1)
    return LabelSet("organs", tuple(Structure(f"organ {label}", (label,), TOLERANCE_MM) for label in labels))


class MemoryWatch(threading.Thread):
    """Looks at the processes below this one, and remembers how much memory the largest one had."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_mb: dict[int, float] = {}
        self.at_start_mb: dict[int, float] = {}
        self.cpu_s: dict[int, float] = {}
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.05):
            for pid in self.processes():
                fields = read_text(Path(f"/proc/{pid}/stat")).rsplit(")", 1)[-1].split()
                if fields:
                    self.cpu_s[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                found = re.search(r"VmRSS:\s+(\d+)", read_text(Path(f"/proc/{pid}/status")))
                if found:
                    now_mb = int(found[1]) / 1024
                    self.at_start_mb.setdefault(pid, now_mb)
                    self.peak_mb[pid] = max(self.peak_mb.get(pid, 0.0), now_mb)

    def processes(self) -> list[int]:
        parents = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            text = read_text(path)
            if text:
                parents[int(text.split()[0])] = int(text.rsplit(")", 1)[1].split()[1])
        below = [os.getpid()]
        for pid in below:
            below += [child for child, parent in parents.items() if parent == pid]
        return below[1:]


def read_text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process has ended
        return ""


def bench_folder(num_cases: int, shape: tuple[int, int, int], num_structures: int, num_workers: int) -> None:
    """Print seconds a case from files, the ratio, and the memory of the processes."""
    torch.set_num_threads(1)
    label_set = organ_labels(num_structures)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        entries = {f"organ {label}": label for label in range(1, num_structures + 1)}
        (root / "labels.json").write_text(f'{{"labels": {entries}}}'.replace("'", '"'))
        for case in range(num_cases):
            for kind, moved in (("references", 0.0), ("predictions", 1.5)):
                (root / kind).mkdir(exist_ok=True)
                image = nib.Nifti1Image(organs(shape, num_structures, case, moved), np.diag([*SPACING_MM, 1.0]))
                nib.save(image, root / kind / f"case{case:02d}.nii.gz")
        watch = MemoryWatch()
        watch.start()
        start_s = time.perf_counter()
        folders = [root / kind for kind in ("predictions", "references")]
        scored = score_folder(*folders, root / "labels.json", root / "out", num_workers=num_workers)
        ours_s = (time.perf_counter() - start_s) / num_cases
        watch.done.set()
        watch.join()
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        pair = [np.asarray(nib.load(folder / "case00.nii.gz").dataobj) for folder in folders]
        expected = score_monai(*pair, label_set)
        monai_s, monai_cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
        found = [scored.table.values[metric][0] for metric in ("dice", "nsd", "hd95_mm", "asd_mm")]
        difference = float(np.abs(np.stack(found, axis=1) - expected).max())
    ours_cpu_s = sum(watch.cpu_s.values()) / num_cases
    print(f"ours, {num_workers} processes, {num_cases} cases: {ours_s:.2f} s a case, {ours_cpu_s:.2f} s CPU")
    print(f"MONAI, structure by structure, one case: {monai_s:.2f} s, {monai_cpu_s:.2f} s CPU")
    print(f"{monai_s / ours_s:.1f} and {monai_cpu_s / ours_cpu_s:.1f} times less; largest difference {difference:.1e}")
    for pid, peak_mb in sorted(watch.peak_mb.items()):
        print(f"process {pid}: at most {peak_mb:.0f} MB, {watch.at_start_mb[pid]:.0f} MB when first seen")


def bench_evaluation(
    num_cases: int | None = None,
    shape: tuple[int, int, int] = (256, 256, 128),
    num_structures: int = 10,
    from_files: bool = False,
    num_workers: int = 2,
) -> None:
    """Run one of the two benchmarks."""
    if from_files:
        bench_folder(num_cases or 20, shape, num_structures, num_workers)
    else:
        bench_cases(num_cases or 2, shape, num_structures)


if __name__ == "__main__":
    fire.Fire(bench_evaluation)
