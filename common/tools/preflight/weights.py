"""Are the weights there, whole, and of this network?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from ...handlers import AdaptationState, TrainingCheckpoint
from ...handlers.checkpoint import STATE_FILE
from ...weights import inspect_checkpoint, load_imagenet_encoder, load_segmenter, load_weights
from .run_config import RunConfig
from .sections import REFUSALS, Section, root_cause

__all__ = ["check_weights"]

# Which argument of each loader names the file.
LOADERS: dict[Callable[..., Any], str] = {
    load_weights: "path_or_state_dict",
    load_imagenet_encoder: "path",
    load_segmenter: "source",
}


def check_weights(config: RunConfig) -> Section:
    """Load what the run will load, with all the checks that it makes.

    Args:
        config: The run.
    """
    section = Section("weights")
    for key in config.components(*LOADERS):
        try:
            path = Path(config.value(f"{key}#{LOADERS[config.targets[key]]}"))
            loaded = config.value(key)
        except REFUSALS as error:
            section.problems.append(root_cause(error) + _hint(config, key))
            continue
        count = len(loaded.state_dict()) if isinstance(loaded, nn.Module) else len(loaded.loaded)
        kept = 0 if isinstance(loaded, nn.Module) else len(loaded.kept)
        section.lines.append(f"{path}: whole, {count} tensors fit" + (f", {kept} start anew" if kept else ""))
        if bad := _not_finite(config, key, loaded):
            section.problems.append(f"{path}: {bad} of its tensors hold NaN or infinity. Take an earlier checkpoint.")
    _add_states(config, section)
    if not section.lines and not section.problems:
        section.lines.append("none are loaded: the network starts from random numbers")
    return section


def _not_finite(config: RunConfig, key: str, loaded: object) -> int:
    network = loaded if isinstance(loaded, nn.Module) else config.value(f"{key}#network")
    return sum(not bool(tensor.isfinite().all()) for tensor in network.state_dict().values())


def _hint(config: RunConfig, key: str) -> str:
    """Say whose weights a file holds, or which checkpoints lie beside one that does not exist."""
    path = Path(str(config.value(f"{key}#{LOADERS[config.targets[key]]}")))
    if path.is_file():
        return f" The file holds: {inspect_checkpoint(path).kind}."
    if path.exists():
        return ""
    near = sorted(path.parent.glob("*.pt*")) if path.parent.is_dir() else []
    beside = f" There is {', '.join(other.name for other in near[:4])} beside it." if near else ""
    return f"{beside} What is published, and how it is converted: python -m {_package()}.weights list"


def _package() -> str:
    return __package__.rpartition(".tools")[0]


def _add_states(config: RunConfig, section: Section) -> None:
    """Look for what a resumed run goes on from."""
    for key in config.components(TrainingCheckpoint):
        if config.value(f"{key}#resume", False):
            path = Path(str(config.value(f"{key}#save_dir"))) / STATE_FILE
            if path.is_file():
                section.lines.append(f"{path}: training goes on from it")
            else:
                section.problems.append(
                    f"resume is set, but {path} does not exist; start without --resume, or give the folder of the "
                    "interrupted run with --ckpt_dir."
                )
    for key in config.components(AdaptationState):
        path = Path(str(config.value(f"{key}#path")))
        if config.value(f"{key}#load", False) and not path.is_file():
            section.problems.append(f"load_state is set, but {path} does not exist; leave it out, or give state_path.")
