"""Renaming of a published state dict, with every key consumed or named as dropped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch


class ConvertedState(NamedTuple):
    """A state dict in our layout and what the published one held besides.

    Attributes:
        state_dict: Our key to tensor, bare (no wrapper, no `module.` prefix).
        dropped: Published key to the reason why it is not in `state_dict`.
    """

    state_dict: dict[str, torch.Tensor]
    dropped: dict[str, str]


def expand_modules(prefixes: Mapping[str, str], layers: Mapping[str, str]) -> dict[str, str]:
    """Return published module to our module for blocks that are built alike.

    Args:
        prefixes: Published block to our block.
        layers: Published layer within the block to ours.
    """
    return {
        f"{published}.{layer}": f"{ours}.{our_layer}"
        for published, ours in prefixes.items()
        for layer, our_layer in layers.items()
    }


def rename_modules(
    release: str,
    state_dict: Mapping[str, torch.Tensor],
    modules: Mapping[str, str],
    parameters: Mapping[str, str],
    reason_to_drop: Callable[[str], str | None],
) -> ConvertedState:
    """Rename every key of a published state dict, or drop it for a stated reason.

    Args:
        release: Name of the release, for messages.
        state_dict: Published key to tensor.
        modules: Published module (the key without its last part) to our module. Every one must occur.
        parameters: Published name of a tensor in its module to ours, where the two differ.
        reason_to_drop: Gives the reason why a key is dropped, or None to keep it.

    Returns:
        Our state dict and the dropped keys.

    Raises:
        ValueError: If a key is neither known nor dropped, or a module has no key; the message names them.
    """
    converted: dict[str, torch.Tensor] = {}
    dropped: dict[str, str] = {}
    unknown: list[str] = []
    found: set[str] = set()
    for key, tensor in state_dict.items():
        module, _, parameter = key.rpartition(".")
        reason = reason_to_drop(key)
        if reason is not None:
            dropped[key] = reason
        elif module in modules:
            converted[f"{modules[module]}.{parameters.get(parameter, parameter)}"] = tensor
            found.add(module)
        else:
            unknown.append(key)
    missing = [module for module in modules if module not in found]
    if unknown or missing:
        raise ValueError(
            f"The state dict is not the published layout of {release!r}: "
            f"{describe_keys('unknown key', unknown)}; {describe_keys('missing module', missing)}. "
            "Check `name` and `resolution_mode`, and that the file is the authors' and not converted already."
        )
    return ConvertedState(converted, dropped)


def describe_keys(what: str, keys: list[str], shown: int = 6) -> str:
    """Return a count and the first keys, e.g. "2 unknown keys (a.weight, a.bias)".

    Args:
        what: What the keys are, in the singular.
        keys: The keys.
        shown: How many are written out.
    """
    if not keys:
        return f"no {what}"
    more = f", and {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{len(keys)} {what}{'s' if len(keys) > 1 else ''} ({', '.join(keys[:shown])}{more})"
