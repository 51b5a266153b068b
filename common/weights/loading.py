"""Loading of weights into a network: every key is loaded, dropped by name, or an error."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from .checkpoint import read_checkpoint, unwrap_state_dict
from .conversion import describe_keys
from .releases import find_release

logger = logging.getLogger(__name__)


class LoadReport(NamedTuple):
    """What `load_weights` did.

    Attributes:
        source: The file, or "state dict".
        loaded: Keys whose tensors went into the network.
        dropped: Keys of the source that were dropped by prefix.
        kept: Keys of the network under a dropped prefix, which keep the values that they had.
    """

    source: str
    loaded: tuple[str, ...]
    dropped: tuple[str, ...]
    kept: tuple[str, ...]


def load_weights(
    network: nn.Module,
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    drop_prefixes: Sequence[str] = (),
) -> LoadReport:
    """Load weights into `network`, in full but for what is dropped by name.

    Every key of the source is loaded or starts with one of `drop_prefixes`; every key of the network is filled or
    starts with one of them; shapes are equal. The network is not touched before all that is checked. To fine-tune on
    other classes, drop "heads."; to take the encoder alone, drop "up.", "decoder." and "heads.".

    Args:
        network: Network to fill, in place.
        path_or_state_dict: Checkpoint file (read with `weights_only=True`), or a state dict.
        drop_prefixes: Starts of keys to leave out. Each must be the start of a key of the network.

    Returns:
        Which keys were loaded, dropped and kept; one line of it is logged.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not a checkpoint, keys or shapes differ, a prefix matches nothing, or
            weights are not finite; the message names file, keys and remedy.
    """
    prefixes = (drop_prefixes,) if isinstance(drop_prefixes, str) else tuple(drop_prefixes)
    if isinstance(path_or_state_dict, Mapping):
        source = "state dict"
        given = unwrap_state_dict(path_or_state_dict, "The state dict")
    else:
        source = str(path_or_state_dict)
        given = read_checkpoint(path_or_state_dict)
    own = network.state_dict()
    useless = [prefix for prefix in prefixes if not any(key.startswith(prefix) for key in own)]
    if useless or "" in prefixes:
        tops = ", ".join(dict.fromkeys(f"{key.partition('.')[0]}." for key in own))
        raise ValueError(
            f"drop_prefixes must be starts of keys of {type(network).__name__}, which has {tops}; "
            f"got {useless[0] if useless else ''!r}."
        )
    wanted = {key: tensor for key, tensor in own.items() if not key.startswith(prefixes)}
    offered = {key: tensor for key, tensor in given.items() if not key.startswith(prefixes)}
    missing = [key for key in wanted if key not in offered]
    unexpected = [key for key in offered if key not in wanted]
    misshapen = [
        f"{key} {tuple(offered[key].shape)} for {tuple(tensor.shape)}"
        for key, tensor in wanted.items()
        if key in offered and offered[key].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        raise ValueError(
            f"Weights of {source} do not fit {type(network).__name__}: {describe_keys('missing key', missing)}; "
            f"{describe_keys('unexpected key', unexpected)}; {describe_keys('misshapen key', misshapen)}. "
            f"{remedy(given, source, missing, unexpected, misshapen)}"
        )
    bad = [key for key, tensor in wanted.items() if not _is_finite(offered[key].to(tensor.dtype))]
    if bad:
        raise ValueError(
            f"Weights of {source} must be finite; {describe_keys('tensor with NaN or infinity', bad)}. The training "
            "diverged: take an earlier checkpoint, or train with a smaller learning rate."
        )
    with torch.no_grad():
        for key, tensor in wanted.items():
            tensor.copy_(offered[key])
    report = LoadReport(
        source=source,
        loaded=tuple(wanted),
        dropped=tuple(key for key in given if key not in offered),
        kept=tuple(key for key in own if key not in wanted),
    )
    logger.info(
        "Loaded %d of %d tensors of %s from %s; dropped %d of the file and kept %d of the network under %s",
        len(report.loaded),
        len(own),
        type(network).__name__,
        source,
        len(report.dropped),
        len(report.kept),
        ", ".join(prefixes) or "no prefix",
    )
    return report


def _is_finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def remedy(
    given: Mapping[str, torch.Tensor],
    source: str,
    missing: Sequence[str],
    unexpected: Sequence[str],
    misshapen: Sequence[str],
) -> str:
    """Return what to do about weights that do not fit.

    Args:
        given: State dict of the source.
        source: The file, or "state dict".
        missing: Keys that the network has and the source has not.
        unexpected: Keys that the source has and the network has not.
        misshapen: Keys whose shapes differ.
    """
    release = find_release(given)
    if release is not None:
        return (
            f"This is the authors' layout of {release!r}. Convert it first: "
            f"python -m {__package__} convert --name {release} --source {source} --output FILE"
        )
    differing = [*missing, *unexpected, *misshapen]
    for head in ("heads.", "head."):
        if all(key.startswith(head) for key in differing):
            return f"Only the head differs: set out_channels to the file's, or drop it with drop_prefixes=['{head}']."
    return "Build the network with the arguments that it was trained with, or name what to leave out in drop_prefixes."
