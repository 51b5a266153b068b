"""Does MedLAM find organs that nobody labelled for it, and say so where one is not there? Phantoms, few supports."""

from __future__ import annotations

import json
import logging
import os
import statistics
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ..data.phantoms import write_torso_phantoms
from ..files import write_text_atomically
from .runs import ensure_phantoms, find_bundles, read_summary, refuse_other_settings, run_bundle

BUNDLE = "medlsam"
# Search of `LocalizationInferer` by the name of the arm.
ARMS = {"regression": "none", "search": "exact", "fast": "fast"}
# Where the boxes of the masks come from, `boxes_from` of `inference.json`.
BOXES = {"localized boxes": "files", "true boxes": "reference_organs"}
# Section of the halves of the test scans, in which organs are absent.
HALVES = "halves"

_logger = logging.getLogger(__name__)


def bench_localization(
    output_dir: str = "runs/bench_localization",
    seeds: int = 3,
    num_supports: tuple[int, ...] = (1, 3),
    num_unlabeled: int = 24,
    num_test: int = 4,
    epochs: int = 8,
    epoch_length: int = 125,
    mask_epochs: int = 10,
    mask_epoch_length: int = 60,
    field_of_view: str = "abdomen_pelvis",
    spacing_mm: float = 5.0,
    num_threads: int | None = None,
    overrides: dict[str, Any] | None = None,
) -> None:
    """Train on unlabelled phantoms once per seed, then localize the organs of unseen ones from few supports.

    Each seed has phantoms, initial weights and random draws of its own. No label is read in training, and the last
    checkpoint is used, so nothing is chosen by a score. The arms: the regression alone, with the similarity search, and
    with the fast one. Then, with most supports and the default thresholds, the upper and the lower half of each test
    scan: which organs are missed, which are seen where there are none. Last, the small promptable network learns from
    the supports' masks (`tiny_sam.json`), and turns the boxes of the exact search, and true ones, into masks. Writes
    `results.json` and `results.md` into `output_dir`; what a former run finished there is not run again.

    Args:
        output_dir: Folder for phantoms, runs and results.
        seeds: Number of seeds, from 0.
        num_supports: Numbers of support scans.
        num_unlabeled: Scans for training.
        num_test: Scans to localize in.
        epochs: Epochs of training.
        epoch_length: Iterations of an epoch.
        mask_epochs: Epochs of the promptable network, the last one's weights are used.
        mask_epoch_length: Iterations of such an epoch.
        field_of_view: Of the phantoms, see `write_torso_phantoms`.
        spacing_mm: Of the phantoms.
        num_threads: CPU threads of a run; None takes all.
        overrides: Further values by configuration id, for all runs, such as `{"patch_size": [32, 32, 32]}`.

    Raises:
        RuntimeError: If a run fails.
        ValueError: If `output_dir` holds a benchmark with other settings.
    """
    supports = [int(n) for n in (num_supports if isinstance(num_supports, (tuple, list)) else [num_supports])]
    settings = {
        "num_supports": supports,
        "num_unlabeled": num_unlabeled,
        "num_test": num_test,
        "epochs": epochs,
        "epoch_length": epoch_length,
        "mask_epochs": mask_epochs,
        "mask_epoch_length": mask_epoch_length,
        "field_of_view": field_of_view,
        "spacing_mm": spacing_mm,
        "overrides": overrides or {},
    }
    (bundle,) = (path for path in find_bundles() if path.name == BUNDLE)
    root = Path(output_dir).resolve()
    refuse_other_settings(root / "settings.json", settings)
    threads = num_threads or os.cpu_count() or 1
    phantoms = {
        "num_cases": max(supports) + num_test,
        "num_validation": 0,
        "num_test": num_test,
        "num_unlabeled": num_unlabeled,
        "field_of_view": field_of_view,
        "spacing_mm": spacing_mm,
    }
    scores: dict[str, list[dict[str, Any]]] = {}
    halves: list[dict[str, Any]] = []
    masks: dict[str, list[dict[str, Any]]] = {name: [] for name in BOXES}
    for seed in range(seeds):
        folder = root / f"seed{seed}"
        data = folder / "data"
        ensure_phantoms(write_torso_phantoms, data, {**phantoms, "seed": seed})
        shared = {**(overrides or {}), "dataset_dir": str(data), "seed": seed}
        train = {
            **shared,
            "section": "unlabeled",
            "ckpt_dir": str(folder / "model"),
            "output_dir": str(folder / "model" / "logs"),
            "max_epochs": epochs,
            "epoch_length": epoch_length,
        }
        _run_once(folder / "model" / "seconds", bundle, ["train.json", "small.json"], train, threads)
        configs = ["localize.json", "small.json", "evaluate_boxes.json"]
        shared |= {"ckpt_path": str(folder / "model" / "model_last.pt"), "cache_dir": str(folder / "templates")}
        shared |= {"for_slicer": False}
        for count in supports:
            for arm, search in ARMS.items():
                out = folder / f"{arm}_{count}"
                # every organ of the phantoms is looked for, and the truth says whether it is there
                locate = {**shared, "num_supports": count, "search": search, "min_similarity": 0.0, "min_inside": 0.0}
                _run_once(out / "seconds", bundle, configs, {**locate, "output_dir": str(out)}, threads)
                summary = json.loads((out / "boxes.json").read_text())
                scores.setdefault(f"{arm}, {count} supports", []).append(summary)
                _logger.info("Seed %d, %s, %d supports: %s", seed, arm, count, summary["mean_over_organs"])
        out = folder / HALVES
        write_halves(data)
        locate = {**shared, "section": HALVES, "num_supports": max(supports), "output_dir": str(out)}
        _run_once(out / "seconds", bundle, configs, locate, threads)
        halves.append(json.loads((out / "boxes.json").read_text()))
        model = folder / "segmenter"
        train = {"dataset_dir": str(data), "seed": seed, "num_workers": 0, "max_epochs": mask_epochs}
        train |= {"epoch_length": mask_epoch_length, "ckpt_dir": str(model), "output_dir": str(model / "logs")}
        _run_once(model / "seconds", bundle, ["finetune_sam.json", "tiny_sam.json"], train, threads)
        for name, boxes_from in BOXES.items():
            out = folder / f"masks_{boxes_from}"
            segment = {"dataset_dir": str(data), "sam_path": str(model / "model_last.pt"), "output_dir": str(out)}
            segment |= {"boxes_from": boxes_from, "boxes_dir": str(folder / f"search_{max(supports)}")}
            _run_once(out / "seconds", bundle, ["inference.json", "evaluate.json"], segment, threads)
            masks[name].append(read_summary(out))
    seconds = [float((root / f"seed{seed}" / "model" / "seconds").read_text()) for seed in range(seeds)]
    results = {"settings": settings, "training_seconds": seconds, "scores": scores, HALVES: halves, "masks": masks}
    write_text_atomically(json.dumps(results, indent=4) + "\n", root / "results.json")
    table = f"{format_results(scores)}\n\n{format_absence(halves)}\n\n{format_masks(masks)}"
    write_text_atomically(table + "\n", root / "results.md")
    _logger.info("\n%s\nTraining took %s s.", table, ", ".join(f"{s:.0f}" for s in seconds))


def _run_once(mark: Path, bundle: Path, configs: list[str], overrides: dict[str, Any], threads: int) -> None:
    """Run, unless a former call did, and write down how long it took."""
    if mark.is_file():
        return
    _logger.info("Running %s in %s", " + ".join(configs), mark.parent)
    seconds = run_bundle(bundle, configs, overrides, mark.parent / "log.txt", threads)
    write_text_atomically(f"{seconds:.1f}\n", mark)


def write_halves(dataset_dir: Path) -> None:
    """Add the lower and the upper half of each test scan to a data set, as a section of its own.

    Args:
        dataset_dir: Folder of a data set whose slices are the third axis; nothing happens where it has the section.
    """
    file = dataset_dir / "dataset.json"
    description = json.loads(file.read_text())
    if HALVES in description:
        return
    (dataset_dir / HALVES).mkdir(exist_ok=True)
    entries = []
    for case in description["test"]:
        for half in ("lower", "upper"):
            entry = {}
            for key, source in case.items():
                image = nib.load(dataset_dir / source)
                middle = image.shape[2] // 2
                target = f"{HALVES}/{half}_{key}_{Path(source).name}"
                part = image.slicer[:, :, :middle] if half == "lower" else image.slicer[:, :, middle:]
                nib.save(nib.Nifti1Image(np.asarray(part.dataobj), part.affine), dataset_dir / target)
                entry[key] = target
            entries.append(entry)
    write_text_atomically(json.dumps({**description, HALVES: entries}, indent=4) + "\n", file)


def format_absence(halves: list[dict[str, Any]]) -> str:
    """Say how often an organ was missed or seen where there is none.

    Args:
        halves: Summaries of the halves of scans, one a seed, as `BoxMetrics` writes them.
    """
    organs = [organ for summary in halves for organ in summary["organs"].values()]
    total = {f"num_{f}": sum(o[f"num_{f}"] for o in organs) for f in ("scored", "absent", "missed", "false_alarms")}
    there = total["num_scored"] - total["num_false_alarms"]
    absent = total["num_absent"] + total["num_false_alarms"]
    return (
        f"Halves of scans: of {there} whole organs that are there, {total['num_missed']} were missed; of {absent} that "
        f"are not there, {total['num_false_alarms']} were seen."
    )


def format_results(scores: dict[str, list[dict[str, Any]]]) -> str:
    """Lay out IoU and wall distance of each arm, per organ, as means over the seeds, as a Markdown table.

    Args:
        scores: For each arm the summaries of its seeds, as `BoxMetrics` writes them.
    """
    organs = list(next(iter(scores.values()))[0]["organs"])
    rows = [f"| organ | {' | '.join(scores)} |", f"|---|{'---|' * len(scores)}"]
    for organ in organs:
        cells = [_cell([summary["organs"][organ] for summary in seeds]) for seeds in scores.values()]
        if any(cell != "-" for cell in cells):
            rows.append(f"| {organ} | {' | '.join(cells)} |")
    cells = [_cell([summary["mean_over_organs"] for summary in seeds]) for seeds in scores.values()]
    rows.append(f"| mean | {' | '.join(cells)} |")
    spread = [", ".join(f"{s['mean_over_organs']['iou']:.3f}" for s in seeds) for seeds in scores.values()]
    rows.append(f"| mean IoU of each seed | {' | '.join(spread)} |")
    return "\n".join(rows)


def _cell(summaries: list[dict[str, Any]]) -> str:
    """IoU and wall distance in mm; a dash where no seed scored any."""
    scored = [s for s in summaries if s["iou"] is not None]
    if not scored:
        return "-"
    iou, wall_mm = (statistics.mean(s[field] for s in scored) for field in ("iou", "wall_distance_mm"))
    return f"{iou:.3f}, {wall_mm:.1f} mm"


def format_masks(masks: dict[str, list[dict[str, Any]]]) -> str:
    """Lay out the Dice of masks by where their boxes come from, as means over the seeds, as a Markdown table.

    Args:
        masks: For each origin of boxes the summaries of its seeds, as `CaseScores` writes them.
    """
    rows = [f"| Dice of masks | {' | '.join(masks)} |", f"|---|{'---|' * len(masks)}"]
    for organ in next(iter(masks.values()))[0]["structures"]:
        dice = [[summary["structures"][organ]["dice"]["mean"] for summary in seeds] for seeds in masks.values()]
        scored = [[d for d in values if d is not None] for values in dice]
        if any(scored):
            rows.append(f"| {organ} | {' | '.join(f'{statistics.mean(d):.3f}' if d else '-' for d in scored)} |")
    means = [[summary["mean_over_structures"]["dice"] for summary in seeds] for seeds in masks.values()]
    rows.append(f"| mean | {' | '.join(f'{statistics.mean(m):.3f}' for m in means)} |")
    rows.append(f"| mean of each seed | {' | '.join(', '.join(f'{d:.3f}' for d in m) for m in means)} |")
    return "\n".join(rows)
