"""Does pretraining by Volume Fusion pay? Phantoms, one or two labelled cases, the same budget with and without."""

from __future__ import annotations

import json
import logging
import os
import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..data.phantoms import write_torso_phantoms
from ..files import write_text_atomically
from .runs import ensure_phantoms, find_bundles, read_summary, refuse_other_settings, run_bundle

BUNDLE = "volume_fusion"
ARMS = ("scratch", "pretrained")
# A pretext task that a CPU can learn within the hour: fewer classes, blocks that are large against the crop, no change
# of intensities; no weight decay, which would shrink the deep levels.
PRETEXT: dict[str, Any] = {
    "num_classes": 3,
    "block_size_min": [8, 16, 16],
    "block_size_max": [16, 32, 32],
    "augmentation": "spatial",
    "weight_decay": 0.0,
}

_logger = logging.getLogger(__name__)


def bench_volume_fusion(
    output_dir: str = "runs/bench_volume_fusion",
    seeds: int = 3,
    num_labeled: int = 1,
    num_unlabeled: int = 24,
    num_test: int = 6,
    pretrain_epochs: int = 40,
    finetune_epochs: int = 5,
    finetune_learning_rate: float = 0.01,
    epoch_length: int = 50,
    field_of_view: str = "abdomen",
    spacing_mm: float = 5.0,
    num_processes: int = 2,
) -> None:
    """Pretrain once, then fine-tune from scratch and from the pretrained weights, and compare on test cases.

    Pretraining sees the unlabelled scans of seed 0. Each seed of the fine-tuning has phantoms, initial weights and
    random draws of its own; the two arms of a seed share all but the initial weights. What is evaluated is the last
    checkpoint, so nothing is chosen by a score. Writes `results.json` and `results.md` into `output_dir`; what a former
    run finished there is not run again.

    Args:
        output_dir: Folder for phantoms, runs and results.
        seeds: Number of seeds, from 0.
        num_labeled: Labelled training cases.
        num_unlabeled: Unlabelled scans for pretraining.
        num_test: Labelled test cases.
        pretrain_epochs: Epochs of pretraining, on the task of `PRETEXT`.
        finetune_epochs: Epochs of fine-tuning, in both arms.
        finetune_learning_rate: Learning rate of fine-tuning, in both arms.
        epoch_length: Iterations of an epoch.
        field_of_view: Of the phantoms, see `write_torso_phantoms`.
        spacing_mm: Of the phantoms.
        num_processes: Trainings that run at the same time, each with its share of the CPU threads.

    Raises:
        RuntimeError: If a run fails.
        ValueError: If `output_dir` holds a benchmark with other settings.
    """
    settings = {key: value for key, value in locals().items() if key not in ("output_dir", "seeds", "num_processes")}
    settings["pretext"] = PRETEXT
    (bundle,) = (path for path in find_bundles() if path.name == BUNDLE)
    root = Path(output_dir).resolve()
    refuse_other_settings(root / "settings.json", settings)
    pretraining = root / "pretraining"
    threads = max(1, (os.cpu_count() or 1) // num_processes)

    def train(run: Path, configs: list[str], overrides: dict[str, Any]) -> None:
        if (run / "done").is_file():
            return
        _logger.info("Training %s", run)
        overrides = {**overrides, "ckpt_dir": str(run), "output_dir": str(run / "logs")}
        seconds = run_bundle(bundle, configs, overrides, run / "log.txt", threads)
        write_text_atomically(f"{seconds:.0f} s\n", run / "done")

    def run_arm(seed: int, arm: str) -> dict[str, Any]:
        data = root / f"seed{seed}" / "data"
        run = root / f"seed{seed}" / arm
        shared = {"dataset_dir": str(data), "seed": seed, "epoch_length": epoch_length}
        start: dict[str, Any] = {"use_pretrained": False}
        if arm == "pretrained":
            start = {"pretrained_path": str(pretraining / "model_last.pt")}
        steps = {
            "max_epochs": finetune_epochs,
            "val_interval": finetune_epochs,
            "learning_rate": finetune_learning_rate,
        }
        tune = ["train.json", "small.json", "finetune.json"]
        train(run, tune, {**shared, **steps, **start})
        scores = run / "scores"
        if not (scores / "summary.json").is_file():
            last = {"ckpt_path": str(run / "model_last.pt"), "output_dir": str(scores), "dataset_dir": str(data)}
            run_bundle(bundle, ["inference.json", "small.json", "evaluate.json"], last, scores / "log.txt", threads)
        summary = read_summary(scores)
        _logger.info("Seed %d, %s: mean Dice %.4f", seed, arm, summary["mean_over_structures"]["dice"])
        return summary

    phantoms = {
        "num_cases": num_labeled + num_test + 1,
        "num_validation": 1,
        "num_test": num_test,
        "num_unlabeled": num_unlabeled,
        "field_of_view": field_of_view,
        "spacing_mm": spacing_mm,
    }
    for seed in range(seeds):
        ensure_phantoms(write_torso_phantoms, root / f"seed{seed}" / "data", {**phantoms, "seed": seed})
    once = {"dataset_dir": str(root / "seed0" / "data"), "seed": 0, "epoch_length": epoch_length}
    steps = {"max_epochs": pretrain_epochs, "lr_step_epochs": pretrain_epochs, "val_interval": 5}
    with ThreadPoolExecutor(num_processes) as pool:
        pretrained = pool.submit(train, pretraining, ["train.json", "small.json"], {**once, **steps, **PRETEXT})
        futures = {"scratch": [pool.submit(run_arm, seed, "scratch") for seed in range(seeds)]}
        pretrained.result()
        futures["pretrained"] = [pool.submit(run_arm, seed, "pretrained") for seed in range(seeds)]
        scores = {arm: [future.result() for future in futures[arm]] for arm in ARMS}
    results = {"settings": settings, "seeds": seeds, "scores": scores}
    write_text_atomically(json.dumps(results, indent=4) + "\n", root / "results.json")
    table = format_results(scores)
    write_text_atomically(table + "\n", root / "results.md")
    _logger.info("\n%s", table)


def format_results(scores: dict[str, list[dict[str, Any]]]) -> str:
    """Lay out mean Dice, its spread over the seeds, and the gain of each seed as a Markdown table.

    Args:
        scores: For each arm the summaries of its seeds.
    """
    dice = {arm: [s["mean_over_structures"]["dice"] for s in rows] for arm, rows in scores.items()}
    gains = [after - before for before, after in zip(dice["scratch"], dice["pretrained"], strict=True)]
    rows = [
        "| start | mean Dice | spread over seeds | each seed | mean HD95 mm | mean NSD |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ARMS:
        means = [s["mean_over_structures"] for s in scores[arm]]
        hd95_mm, nsd = (statistics.mean(m[field] for m in means) for field in ("hd95_mm", "nsd"))
        rows.append(f"| {arm} | {_spread(dice[arm])} | {hd95_mm:.1f} | {nsd:.3f} |")
    rows.append(f"| gain | {_spread(gains)} | | |")
    return "\n".join(rows)


def _spread(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.3f} | {deviation:.3f} | {', '.join(f'{v:.3f}' for v in values)}"
