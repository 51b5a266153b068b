"""What do scribbles give, and which part of MaCo gives it? All methods, the same data, network and budget."""

from __future__ import annotations

import json
import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from ..data.phantoms import write_heart_phantoms
from ..files import write_text_atomically
from .runs import ensure_phantoms, find_bundles, read_summary, refuse_other_settings, run_bundle

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
    "maco_50_percent": {"method": "@methods#maco", "scribble_fraction": 0.5},
    "maco_25_percent": {"method": "@methods#maco", "scribble_fraction": 0.25},
    "maco_10_percent": {"method": "@methods#maco", "scribble_fraction": 0.1},
}

_logger = logging.getLogger(__name__)


def bench_maco(
    output_dir: str = "runs/bench_maco",
    seeds: int = 3,
    arms: str | Sequence[str] = tuple(ARMS),
    section: str = "test",
    num_training: int = 8,
    num_validation: int = 4,
    num_test: int = 8,
    image_size: int = 128,
    epochs: int = 24,
    epoch_length: int = 50,
    dataset_dir: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    num_processes: int = 2,
) -> None:
    """Train every method once per seed and compare the last checkpoints, so that nothing is chosen by a score.

    Each seed has phantoms, initial weights and random draws of its own; all methods of a seed share them. Writes
    `results.json` and `results.md` into `output_dir`; what a former run finished there is not run again, so a benchmark
    can be interrupted, and methods or seeds can be added.

    Args:
        output_dir: Folder for phantoms, runs and results.
        seeds: Number of seeds, from 0.
        arms: Which methods, of `ARMS`; several as a list.
        section: What is scored: `validation` to choose options by, `test` to report.
        num_training: Patients with scribbles.
        num_validation: Patients for validation.
        num_test: Patients for testing.
        image_size: Pixels along both axes of a phantom's slice.
        epochs: Epochs of training.
        epoch_length: Iterations of an epoch.
        dataset_dir: A data set of your own instead of phantoms, the same for all seeds. Its training cases have labels
            and scribbles, those of `section` labels.
        overrides: Further options of train.json, for all methods, such as "{'tau_mm': 3.0}".
        num_processes: Trainings that run at the same time, each with its share of the CPU threads.

    Raises:
        RuntimeError: If a run fails.
        ValueError: If there is no such method, or `output_dir` holds a benchmark with other settings.
    """
    chosen = ensure_tuple(arms)
    unknown = [arm for arm in chosen if arm not in ARMS]
    if unknown:
        raise ValueError(f"arms must be some of {', '.join(ARMS)}; found {', '.join(unknown)}.")
    more = dict(overrides or {})
    phantoms: dict[str, Any] = {
        "num_cases": num_training + num_validation + num_test,
        "num_validation": num_validation,
        "num_test": num_test,
        "image_size": image_size,
    }
    settings: dict[str, Any] = {"phantoms": phantoms, "dataset_dir": dataset_dir, "section": section, "overrides": more}
    settings |= {"epochs": epochs, "epoch_length": epoch_length}
    (bundle,) = (path for path in find_bundles() if path.name == BUNDLE)
    root = Path(output_dir).resolve()
    refuse_other_settings(root / "settings.json", settings)
    threads = max(1, (os.cpu_count() or 1) // num_processes)

    def run_arm(seed: int, arm: str) -> dict[str, Any]:
        run = root / f"seed{seed}" / arm
        data = dataset_dir or str(root / f"seed{seed}" / "data")
        if not (run / "done").is_file():
            _logger.info("Training %s", run)
            steps = {"max_epochs": epochs, "epoch_length": epoch_length, "val_interval": epochs}
            places = {"dataset_dir": data, "ckpt_dir": str(run), "output_dir": str(run / "logs")}
            options = {**more, **places, **steps, **ARMS[arm], "seed": seed}
            seconds = run_bundle(bundle, ["train.json", "small.json"], options, run / "log.txt", threads)
            write_text_atomically(f"{seconds:.0f} s\n", run / "done")
        scores = run / "scores"
        if not (scores / "summary.json").is_file():
            # what the network sees and is must be the same as in training
            seen: dict[str, Any] = {
                key: more[key] for key in ("roi_size", "resize_to", "features", "num_classes") if key in more
            }
            places = {"dataset_dir": data, "ckpt_path": str(run / "model_last.pt"), "output_dir": str(scores)}
            configs = ["inference.json", "small.json", "evaluate.json"]
            run_bundle(bundle, configs, {**seen, **places, "section": section}, scores / "log.txt", threads)
        summary = read_summary(scores)
        _logger.info("Seed %d, %s: mean Dice %.4f", seed, arm, summary["mean_over_structures"]["dice"])
        return summary

    if dataset_dir is None:
        for seed in range(seeds):
            ensure_phantoms(write_heart_phantoms, root / f"seed{seed}" / "data", {**phantoms, "seed": seed})
    with ThreadPoolExecutor(num_processes) as pool:
        futures = {arm: [pool.submit(run_arm, seed, arm) for seed in range(seeds)] for arm in chosen}
        scores = {arm: [future.result() for future in futures[arm]] for arm in chosen}
    results = {"settings": settings, "seeds": seeds, "scores": scores}
    write_text_atomically(json.dumps(results, indent=4) + "\n", root / "results.json")
    table = format_results(scores)
    write_text_atomically(table + "\n", root / "results.md")
    _logger.info("\n%s", table)


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
        parts = [statistics.mean(s["structures"][name]["dice"] for s in summaries) for name in structures]
        hd95_mm = statistics.mean(s["mean_over_structures"]["hd95_mm"] for s in summaries)
        share = f"{100 * statistics.mean(dice) / statistics.mean(bound):.1f} %" if bound else ""
        each = ", ".join(f"{value:.3f}" for value in dice)
        cells = [f"{statistics.mean(dice):.3f}", f"{spread:.3f}", each, *(f"{value:.3f}" for value in parts)]
        rows.append(f"| {' | '.join([method.replace('_', ' '), *cells, f'{hd95_mm:.1f}', share])} |")
    return "\n".join(rows)


def _dice(summaries: Sequence[Mapping[str, Any]]) -> list[float]:
    return [summary["mean_over_structures"]["dice"] for summary in summaries]
