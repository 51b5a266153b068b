"""Which files a run will leave where, and whether it may write there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monai.handlers import CheckpointSaver, TensorBoardStatsHandler
from monai.transforms import SaveImaged

from ...handlers import (
    AdaptationState,
    AdaptationTrace,
    BoxMetrics,
    CaseReport,
    CaseScores,
    DomainMetrics,
    RunRecord,
    TrainingCheckpoint,
)
from ...handlers.checkpoint import STATE_FILE
from ...inferers.localization import SaveBoxesd
from ...transforms import SavePredictionsd
from .case_headers import Scans
from .run_config import RunConfig
from .sections import Section

__all__ = ["check_outputs"]

MIN_FREE_BYTES = 1 << 30
# What writes, the argument with its folder, and its files, with {case} for each case.
WRITERS: dict[Callable[..., Any], tuple[str, tuple[str, ...]]] = {
    TrainingCheckpoint: ("save_dir", ("model.pt", "model_last.pt", STATE_FILE)),
    CheckpointSaver: ("save_dir", ("checkpoints",)),
    TensorBoardStatsHandler: ("log_dir", ("events.out.tfevents.* (TensorBoard)",)),
    SavePredictionsd: ("output_dir", ("{case}_mask.png",)),
    SaveBoxesd: ("output_dir", ("{case}_boxes.json",)),
    CaseReport: ("output_dir", ("cases.csv", "cases.jsonl")),
    CaseScores: ("output_dir", ("scores.csv", "summary.json", "report.html")),
    DomainMetrics: ("output_dir", ("metrics.csv", "domains.json")),
    BoxMetrics: ("output_dir", ("boxes.csv", "boxes.json")),
    AdaptationTrace: ("output_dir", ("adaptation.csv",)),
    RunRecord: ("output_dir", ("run.json",)),
}


def check_outputs(config: RunConfig, scans: Sequence[Scans]) -> Section:
    """List the files that the run will write, by folder.

    Args:
        config: The run.
        scans: What the run reads.
    """
    section = Section("output")
    folders: dict[Path, list[str]] = {}
    for key in config.components(*WRITERS):
        argument, names = WRITERS[config.targets[key]]
        folder = Path(str(config.value(f"{key}#{argument}", ".")))
        folders.setdefault(folder, []).extend(names)
    for key in config.components(SaveImaged):
        ending = f"_{config.value(f'{key}#output_postfix', 'trans')}{config.value(f'{key}#output_ext', '.nii.gz')}"
        folders.setdefault(Path(str(config.value(f"{key}#output_dir", "."))), []).append("{case}" + ending)
    for key in config.components(AdaptationState):
        if config.value(f"{key}#save", False):
            path = Path(str(config.value(f"{key}#path")))
            folders.setdefault(path.parent, []).append(path.name)
    num_cases = sum(len(group.cases) for group in scans if group.name == "cases")
    for folder, files in folders.items():
        written = [name.replace("{case}", f"<{num_cases} cases>") for name in dict.fromkeys(files)]
        section.lines.append(f"{folder}: {', '.join(written)}")
        _check_folder(section, folder, files)
    if not folders:
        section.lines.append("none that is known here")
    return section


def _check_folder(section: Section, folder: Path, files: Sequence[str]) -> None:
    """Refuse a folder that cannot be written to; warn of a full disk, and of weights that will be replaced."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        section.problems.append(f"{folder} cannot be made: {existing} is a file. Give another folder.")
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        section.problems.append(f"{folder} cannot be written: no permission for {existing}. Give another folder.")
        return
    free = shutil.disk_usage(existing).free
    if free < MIN_FREE_BYTES:
        section.warnings.append(f"{existing} has {free / (1 << 20):.0f} MiB of disk left.")
    old = [name for name in files if name.endswith(".pt") and (folder / name).is_file()]
    if old:
        section.warnings.append(f"{folder} holds {', '.join(old)} of an earlier run, which this one writes over.")
