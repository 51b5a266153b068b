"""What is in a file of weights, and whether it is one."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .checkpoint import STATE_DICT_KEYS, read_content, unwrap_state_dict
from .releases import find_release

__all__ = ["CheckpointReport", "inspect_checkpoint"]

PUBLISHED = "published"
# A number of this size is no weight that a training leaves.
LARGE = 1e6
# Start of a key that only our networks have, and which network that is.
OURS = {
    "position_head.": "MedLAM of this project (localization, bundle medlsam)",
    "sam.vision_encoder.": "SAM in our layout (bundle medlsam)",
    "encoder.layer1.": "ResUNet of this project (bundles vptta and grata)",
    "heads.": "PCTNet or FMUNet of this project (bundle volume_fusion)",
    "conv_0.conv_0.conv.": "BasicUNet of MONAI (bundle maco)",
}
RELEASE_NAMES = {
    "pctnet": "PCT-Net as the authors of MIS-FM publish it",
    "fmunet": "FMUNet as the authors of MIS-FM publish it",
    "medlam": "MedLAM as the authors of MedLSAM publish it",
    "sam": "SAM or MedSAM as published",
    "grata": "source model as the authors of GraTa publish it",
    "vptta": "source model as the authors of VPTTA publish it",
}
TRAINING_STATE = {"network", "objects", "epoch", "random"}


@dataclass
class CheckpointReport:
    """What a file is.

    Attributes:
        path: The file.
        kind: What it is, in words.
        usable: Whether it holds weights that a bundle can read or convert.
        advice: What to do with it.
        num_tensors: Tensors in the state dict.
        num_parameters: Numbers in them.
        dtypes: Numbers by type, such as `float32`.
        doubts: Values that weights should not have.
        largest: Names and shapes of the largest tensors.
    """

    path: str
    kind: str
    usable: bool
    advice: str = ""
    num_tensors: int = 0
    num_parameters: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    largest: list[str] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """Yield the report as lines for a terminal."""
        yield f"file       {self.path} ({Path(self.path).stat().st_size:,} bytes)"
        yield f"kind       {self.kind}"
        if self.num_tensors:
            types = ", ".join(f"{name} {count:,}" for name, count in self.dtypes.items())
            yield f"holds      {self.num_tensors} tensors, {self.num_parameters:,} numbers ({types})"
            yield f"largest    {'; '.join(self.largest)}"
            yield f"values     {'; '.join(self.doubts) or 'all finite, none above 1e6 in size'}"
        if self.advice:
            yield f"next       {self.advice}"


def inspect_checkpoint(path: str | os.PathLike[str]) -> CheckpointReport:
    """Say what a file is; nothing in it is executed.

    Args:
        path: A file that might be a checkpoint.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    file = Path(path)
    if not file.is_file():
        what = "is a folder" if file.is_dir() else "does not exist"
        raise FileNotFoundError(f"Checkpoint {file} {what}. Give the path of a file.")
    if _is_torchscript(file):
        return CheckpointReport(
            str(file),
            "TorchScript: a network with its code, not weights",
            usable=False,
            advice="ask for the state dict from which it was exported; torch.jit.load would run its code",
        )
    try:
        content = read_content(file)
    except ValueError as error:
        return CheckpointReport(str(file), "not weights", usable=False, advice=str(error))
    if _is_optimizer(content):
        return CheckpointReport(
            str(file),
            "state of an optimizer, without weights",
            usable=False,
            advice="take the file of the same run that holds the weights, such as model.pt",
        )
    try:
        state = unwrap_state_dict(content, str(file), from_file=True)
    except ValueError as error:
        return CheckpointReport(str(file), f"not weights: a {type(content).__name__}", usable=False, advice=str(error))
    return _describe(file, content, state)


def _describe(file: Path, content: Any, state: Mapping[str, torch.Tensor]) -> CheckpointReport:
    """Describe a state dict that was found in the content of a file."""
    kind, advice, usable = _recognize(file, state)
    if isinstance(content, Mapping) and set(content) >= TRAINING_STATE:
        kind = f"state of an interrupted training, with the weights of {kind}"
        advice = "go on with --resume True, or take model.pt or model_last.pt beside it"
    elif isinstance(content, Mapping):
        wrapped = [key for key in STATE_DICT_KEYS if isinstance(content.get(key), Mapping)]
        kind += f", under the key {wrapped[0]!r}" if wrapped else ""
    dtypes: Counter[str] = Counter()
    for tensor in state.values():
        dtypes[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    ordered = sorted(state, key=lambda key: -state[key].numel())
    return CheckpointReport(
        str(file),
        kind,
        usable,
        advice,
        len(state),
        sum(tensor.numel() for tensor in state.values()),
        dict(dtypes.most_common()),
        list(_doubts(state)),
        [f"{key} {tuple(state[key].shape)}" for key in ordered[:3]],
    )


def _recognize(file: Path, state: Mapping[str, torch.Tensor]) -> tuple[str, str, bool]:
    """Return what weights these are, what to do with them, and whether a bundle can use them."""
    release = find_release(state)
    if release == "sam":
        return RELEASE_NAMES[release], "give it as --sam_path to the bundle medlsam", True
    if release is not None:
        how = f"python -m {__package__} convert --name {release} --source {file} --output FILE"
        return RELEASE_NAMES[release], how, True
    for start, name in OURS.items():
        if any(key.startswith(start) for key in state):
            return name, "", True
    if "fc.weight" in state and "layer1.0.conv1.weight" in state:
        return "a ResNet classifier", "give it as --imagenet_path, if it is resnet34", True
    first = next(iter(state))
    return f"weights of a network that is not known here; the first tensor is {first!r}", "", False


def _doubts(state: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """Yield what values weights should not have."""
    floating = {key: tensor for key, tensor in state.items() if tensor.is_floating_point() and tensor.numel()}
    bad = [key for key, tensor in floating.items() if not bool(tensor.isfinite().all())]
    if bad:
        yield f"NaN or infinity in {len(bad)} tensors, such as {bad[0]}: the training diverged"
    sound = {key: tensor for key, tensor in floating.items() if key not in bad}
    large = [key for key, tensor in sound.items() if float(tensor.abs().max()) > LARGE]
    if large:
        yield f"numbers above 1e6 in {len(large)} tensors, such as {large[0]}"
    zero = [key for key, tensor in sound.items() if tensor.dim() > 1 and not bool(tensor.any())]
    if zero:
        yield f"nothing but zeros in {len(zero)} tensors, such as {zero[0]}"


def _is_torchscript(file: Path) -> bool:
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("constants.pkl") or "/code/" in name for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # read_content says what is wrong with it
        return False


def _is_optimizer(content: Any) -> bool:
    return isinstance(content, Mapping) and set(content) >= {"state", "param_groups"} and "model" not in content
