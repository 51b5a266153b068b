"""What do scribbles give, and which part of MaCo gives it? All methods, the same data, network and budget."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import run
from monai.utils import ensure_tuple

from ..data.phantoms import write_heart_phantoms
from ..files import write_text_atomically
from .runs import ensure_phantoms, find_bundles, read_summary, refuse_other_settings

BUNDLE = "maco"
UPPER_BOUND = "full_supervision"
# Options of train.json that make each method.
ARMS: dict[str, dict[str, Any]] = {
    UPPER_BOUND: {"method": "@methods#full_supervision"},
    "partial_ce": {"method": "@methods#partial_ce"},
    "partial_ce_crf": {"method": "@methods#partial_ce_crf"},
    "dmpls": {"method": "@methods#dmpls"},
    "maco_without_cpl": {"method": "@methods#maco_without_cpl"},
    "maco_without_mcm": {"method": "@methods#maco_without_mcm"},
    "maco": {"method": "@methods#maco"},
    "maco_euclidean": {
        "method": "@methods#maco",
        "distance": "euclidean",
        "structure_tau_mm": 4.5,
        "background_tau_mm": 12.0,
    },
    "maco_50_percent": {"method": "@methods#maco", "scribble_fraction": 0.5},
    "maco_25_percent": {"method": "@methods#maco", "scribble_fraction": 0.25},
    "maco_10_percent": {"method": "@methods#maco", "scribble_fraction": 0.1},
}

# What a training of minutes on a CPU takes: small batches, and hearts that stay upright, as all of them are. The tau of
# background strokes, which leave a side open, was chosen on validation patients of other seeds.
SHORT_TRAINING: dict[str, Any] = {
    "batch_size": 4,
    "learning_rate": 0.003,
    "patch_size": 8,
    "rot90_prob": 0.0,
    "flip_prob": 0.0,
    "background_tau_mm": 133.0,
}
# Options of train.json that inference.json has, too.
_SEEN = ("roi_size", "resize_to", "percentile_range", "features", "num_classes")

_logger = logging.getLogger(__name__)


class Job(NamedTuple):
    """One method with one seed.

    Attributes:
        arm: Method, one of `ARMS`.
        seed: Seed of data, weights and draws.
        folder: Where checkpoints and scores go.
        data: Folder of the data set.
        options: Options of train.json for all methods.
        section: What is scored.
        threads: CPU threads to use.
    """

    arm: str
    seed: int
    folder: Path
    data: str
    options: dict[str, Any]
    section: str
    threads: int


def bench_maco(
    output_dir: str = "runs/bench_maco",
    seeds: int = 3,
    arms: str | Sequence[str] = tuple(ARMS),
    section: str = "test",
    num_training: int = 8,
    num_validation: int = 2,
    num_test: int = 6,
    image_size: int = 64,
    spacing_mm: float = 2.25,
    scribble_width: int = 1,
    epochs: int = 4,
    epoch_length: int = 50,
    dataset_dir: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    num_processes: int = 2,
) -> None:
    """Train every method once per seed and compare the last checkpoints, so that nothing is chosen by a score.

    Each seed has phantoms, initial weights and random draws of its own; all methods of a seed share them. Writes
    `results.json` and `results.md` into `output_dir`, anew after every run. What a former call finished there is not
    run again, so a benchmark can be interrupted, and methods or seeds can be added.

    Args:
        output_dir: Folder for phantoms, runs and results.
        seeds: Number of seeds, from 0.
        arms: Which methods, of `ARMS`; several as a list.
        section: What is scored: `validation` to choose options by, `test` to report.
        num_training: Patients with scribbles.
        num_validation: Patients for validation.
        num_test: Patients for testing.
        image_size: Pixels along both axes of a phantom's slice, and of what the network sees.
        spacing_mm: Pixel size of a phantom in mm.
        scribble_width: Width of the strokes in pixels, odd.
        epochs: Epochs of training.
        epoch_length: Iterations of an epoch.
        dataset_dir: A data set of your own instead of phantoms, the same for all seeds. Its training cases have labels
            and scribbles, those of `section` labels.
        overrides: Options of train.json, for all methods, over those of `SHORT_TRAINING`: "{'tau_mm': 3.0}".
        num_processes: Trainings that run at the same time, each with its share of the CPU threads.

    Raises:
        RuntimeError: If a run fails.
        ValueError: If there is no such method, or `output_dir` holds a benchmark with other settings.
    """
    chosen = ensure_tuple(arms)
    unknown = [arm for arm in chosen if arm not in ARMS]
    if unknown:
        raise ValueError(f"arms must be some of {', '.join(ARMS)}; found {', '.join(unknown)}.")
    more = {**SHORT_TRAINING, "roi_size": [image_size, image_size], **(overrides or {})}
    phantoms: dict[str, Any] = {
        "num_cases": num_training + num_validation + num_test,
        "num_validation": num_validation,
        "num_test": num_test,
        "image_size": image_size,
        "spacing_mm": spacing_mm,
        "scribble_width": scribble_width,
    }
    settings: dict[str, Any] = {"phantoms": phantoms, "dataset_dir": dataset_dir, "section": section, "overrides": more}
    settings |= {"epochs": epochs, "epoch_length": epoch_length}
    root = Path(output_dir).resolve()
    refuse_other_settings(root / "settings.json", settings)
    if dataset_dir is None:
        for seed in range(seeds):
            ensure_phantoms(write_heart_phantoms, root / f"seed{seed}" / "data", {**phantoms, "seed": seed})
    threads = max(1, (os.cpu_count() or 1) // num_processes)
    jobs = [
        Job(
            arm,
            seed,
            root / f"seed{seed}" / arm,
            dataset_dir or str(root / f"seed{seed}" / "data"),
            {**more, "max_epochs": epochs, "epoch_length": epoch_length, "val_interval": epochs},
            section,
            threads,
        )
        for seed in range(seeds)
        for arm in chosen
    ]
    context = multiprocessing.get_context("spawn")
    scores: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        for job, summary in zip(jobs, pool.map(run_job, jobs), strict=True):
            _logger.info("Seed %d, %s: mean Dice %.4f", job.seed, job.arm, summary["mean_over_structures"]["dice"])
            scores.setdefault(job.arm, []).append(summary)
            results = {"settings": settings, "scores": scores}
            write_text_atomically(json.dumps(results, indent=4) + "\n", root / "results.json")
            write_text_atomically(format_results(scores) + "\n", root / "results.md")
    _logger.info("\n%s", format_results(scores))


def run_job(job: Job) -> dict[str, Any]:
    """Train and score, each unless a former run did, and return the summary.

    For a worker process, which imports everything once for many runs; what they print goes to `log.txt` in the folder.

    Args:
        job: What to run.
    """
    (bundle,) = (path for path in find_bundles() if path.name == BUNDLE)
    torch.set_num_threads(min(job.threads, torch.get_num_threads()))  # OMP_NUM_THREADS may ask for fewer
    if not (job.folder / "done").is_file():
        start = time.perf_counter()
        places = {"dataset_dir": job.data, "ckpt_dir": str(job.folder), "output_dir": str(job.folder / "logs")}
        options = {**job.options, **places, **ARMS[job.arm], "seed": job.seed}
        _run_bundle_here(bundle, ["train.json", "small.json"], options, job.folder / "log.txt")
        write_text_atomically(f"{time.perf_counter() - start:.0f} s\n", job.folder / "done")
    scores = job.folder / "scores"
    if not (scores / "summary.json").is_file():
        # what the network sees and is must be the same as in training
        seen = {key: job.options[key] for key in _SEEN if key in job.options}
        places = {"dataset_dir": job.data, "ckpt_path": str(job.folder / "model_last.pt"), "output_dir": str(scores)}
        configs = ["inference.json", "small.json", "evaluate.json"]
        _run_bundle_here(bundle, configs, {**seen, **places, "section": job.section}, scores / "log.txt")
    return read_summary(scores)


def _run_bundle_here(bundle: Path, configs: Sequence[str], options: Mapping[str, Any], log_file: Path) -> None:
    """Run a bundle in this process, whose output goes to a file from now on."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("w") as stream:
        for standard in (sys.stdout, sys.stderr):
            standard.flush()
            os.dup2(stream.fileno(), standard.fileno())
        run(config_file=[str(bundle / "configs" / name) for name in configs], **options)


def format_results(scores: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Lay out the scores as a Markdown table: Dice of all and of each structure, and the share of full supervision.

    Args:
        scores: For each method the summaries of its seeds.
    """
    structures = list(next(iter(scores.values()))[0]["structures"])
    names = [name.replace("_", " ") for name in structures]
    head = ["method", "mean Dice", "spread over seeds", "each seed", *names, "mean HD95 mm", "of full supervision"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    bound = _dice(scores[UPPER_BOUND]) if UPPER_BOUND in scores else []
    for method, summaries in scores.items():
        dice = _dice(summaries)
        spread = statistics.stdev(dice) if len(dice) > 1 else 0.0
        parts = [statistics.mean(s["structures"][name]["dice"]["mean"] for s in summaries) for name in structures]
        hd95_mm = statistics.mean(s["mean_over_structures"]["hd95_mm"] for s in summaries)
        share = f"{100 * statistics.mean(dice) / statistics.mean(bound):.1f} %" if bound else ""
        each = ", ".join(f"{value:.3f}" for value in dice)
        cells = [f"{statistics.mean(dice):.3f}", f"{spread:.3f}", each, *(f"{value:.3f}" for value in parts)]
        rows.append(f"| {' | '.join([method.replace('_', ' '), *cells, f'{hd95_mm:.1f}', share])} |")
    return "\n".join(rows)


def _dice(summaries: Sequence[Mapping[str, Any]]) -> list[float]:
    return [summary["mean_over_structures"]["dice"] for summary in summaries]
