"""The FMUNet checkpoint of PyMIC (`fmunet_abk1k_volf.pt`, Apache-2.0), converted to `common.networks.FMUNet`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .conversion import ConvertedState, expand_modules, rename_modules

# A key that only this release has.
MARKER = "encoder.en_conv0.conv_list.0.0.weight"

UNIT = {"0": "adn.N", "2": "conv"}
RESIDUAL_UNIT = {"0": "adn.N", "3": "conv"}


def published_modules() -> dict[str, str]:
    """Return published module to our module."""
    units: dict[str, str] = {}
    residual_units: dict[str, str] = {}
    for level in range(4):
        units[f"encoder.down{level}.down"] = f"down.{level}"
        units[f"decoder.upcat{level}.up"] = f"up.{level}.upsample"
        units[f"decoder.upcat{level}.conv"] = f"up.{level}.merge"
        units[f"out_layers.{level}"] = f"heads.{level}"
    for level in range(5):
        for unit in range(2):
            residual_units[f"encoder.en_conv{level}.conv_list.{unit}"] = f"encoder.{level}.{unit}"
            residual_units[f"decoder.de_conv{level}.conv_list.{unit}"] = f"decoder.{level}.{unit}"
    return {
        "project": "project",
        **expand_modules(units, UNIT),
        **expand_modules(residual_units, RESIDUAL_UNIT),
    }


def convert(state_dict: Mapping[str, torch.Tensor], resolution_mode: int | None) -> ConvertedState:
    """Return the published FMUNet in our layout; nothing is dropped.

    Args:
        state_dict: Published key to tensor.
        resolution_mode: 0, 1 or 2; None for whatever the kernels of the file say (0 in the released weights).

    Returns:
        Our state dict, and no dropped key.

    Raises:
        ValueError: If keys are unknown or missing, or the kernels are of another resolution mode.
    """
    converted = rename_modules("fmunet", state_dict, published_modules(), {}, lambda _: None)
    found = sum(converted.state_dict[f"encoder.{level}.0.conv.weight"].shape[2] == 1 for level in range(2))
    if resolution_mode is not None and resolution_mode != found:
        raise ValueError(
            f"resolution_mode is {resolution_mode}, but {found} of the two finest levels of this FMUNet checkpoint "
            f"have in-plane kernels. Leave resolution_mode out or give {found}."
        )
    return converted
