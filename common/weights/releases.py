"""Which published checkpoints can be converted, and the conversion of a state dict and of a file."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..files import write_atomically
from . import fmunet, grata, medlam, pctnet, sam, vptta
from .checkpoint import read_checkpoint, unwrap_state_dict
from .conversion import ConvertedState

logger = logging.getLogger(__name__)


class Release(NamedTuple):
    """A published checkpoint layout.

    Attributes:
        convert: Maps (published state dict, resolution mode or None) to our layout.
        marker: A key by which the published layout is recognized.
    """

    convert: Callable[[Mapping[str, torch.Tensor], int | None], ConvertedState]
    marker: str


RELEASES: dict[str, Release] = {
    "pctnet": Release(pctnet.convert, pctnet.MARKER),
    "fmunet": Release(fmunet.convert, fmunet.MARKER),
    "medlam": Release(medlam.convert, medlam.MARKER),
    "sam": Release(sam.convert, sam.MARKER),
    "grata": Release(grata.convert, grata.MARKER),  # before VPTTA, whose marker it has, too
    "vptta": Release(vptta.convert, vptta.MARKER),
}


def find_release(state_dict: Mapping[str, torch.Tensor]) -> str | None:
    """Return the name of the release whose published layout `state_dict` has, or None.

    Args:
        state_dict: Key to tensor.
    """
    return next((name for name, release in RELEASES.items() if release.marker in state_dict), None)


def convert_state_dict(name: str, state_dict: Mapping[str, Any], resolution_mode: int | None = None) -> ConvertedState:
    """Convert a published state dict to the layout of our network.

    Args:
        name: Name of the release, a key of `RELEASES`.
        state_dict: Published key to tensor, or the checkpoint dictionary that holds it.
        resolution_mode: 0, 1 or 2; None for the mode of the release: 1 for "pctnet" (its checkpoint holds all
            three), what the kernels say for "fmunet" (the released weights are of mode 0); 2D networks have none.

    Returns:
        Our state dict, and the dropped published keys with their reasons.

    Raises:
        ValueError: If the name or mode is unknown, a key is neither known nor dropped, one is missing, or the weights
            belong to another function than our network computes.
    """
    if name not in RELEASES:
        raise ValueError(f"name must be one of {', '.join(RELEASES)}, got {name!r}.")
    if resolution_mode not in (None, 0, 1, 2):
        raise ValueError(f"resolution_mode must be 0, 1 or 2, or be left out, got {resolution_mode!r}.")
    return RELEASES[name].convert(unwrap_state_dict(state_dict, f"The {name!r} checkpoint"), resolution_mode)


def convert_checkpoint(
    name: str,
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    resolution_mode: int | None = None,
) -> ConvertedState:
    """Convert a published checkpoint file to a bare state dict in our layout, and log what was dropped.

    Args:
        name: Name of the release, a key of `RELEASES`.
        source: The authors' file.
        output: File to write. It appears complete or not at all; missing folders are made.
        resolution_mode: See `convert_state_dict`.

    Returns:
        What was written, and the dropped published keys with their reasons.

    Raises:
        FileNotFoundError: If there is no file `source`.
        ValueError: If `source` is not a checkpoint of that release; the message names it.
    """
    state_dict = read_checkpoint(source)
    try:
        converted = convert_state_dict(name, state_dict, resolution_mode)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    target = Path(output)
    # Without clones, views would be written with the whole storage that they look into.
    write_atomically({key: tensor.clone() for key, tensor in converted.state_dict.items()}, target)
    for reason in dict.fromkeys(converted.dropped.values()):
        keys = [key for key, why in converted.dropped.items() if why == reason]
        logger.info("Dropped %d keys (%s): %s", len(keys), ", ".join(keys), reason)
    logger.info(
        "Wrote %s: %d tensors of %r from %s, %d published keys dropped",
        target,
        len(converted.state_dict),
        name,
        source,
        len(converted.dropped),
    )
    return converted
