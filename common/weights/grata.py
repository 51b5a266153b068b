"""The source models of GraTa (`last-Res_Unet.pth`, MIT), converted to `common.networks.ResUNet`."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from . import vptta
from .conversion import ConvertedState

# A key that VPTTA's release does not have.
MARKER = "recon1.conv.weight"

AUXILIARY_TASKS = ("recon", "denoise", "supres", "rotate")  # codespell:ignore supres


def reason_to_drop(key: str) -> str | None:
    """Return why a published key is not taken over, or None if it is.

    Args:
        key: Published key.
    """
    if key.startswith(AUXILIARY_TASKS):
        return "a head of an auxiliary task that entropy and consistency do not use"
    return vptta.reason_to_drop(key)


def convert(state_dict: Mapping[str, torch.Tensor], resolution_mode: int | None) -> ConvertedState:
    """Return a published GraTa source model in our layout.

    Dropped are the unused ImageNet classifier and the heads of the auxiliary tasks (reconstruction, denoising,
    super-resolution, rotation), which neither of the two published losses reads.

    Args:
        state_dict: Published key to tensor.
        resolution_mode: None; this network has none.

    Returns:
        Our state dict and the dropped keys.

    Raises:
        ValueError: If keys are unknown or missing, among them those of the auxiliary tasks, or a resolution mode is
            asked for.
    """
    if MARKER not in state_dict:
        raise ValueError(
            f"The state dict is not the published layout of 'grata': no key {MARKER} of its auxiliary tasks. "
            "Check `name` (VPTTA's models are 'vptta'), and that the file is not converted already."
        )
    return vptta.rename_res_unet("grata", state_dict, resolution_mode, reason_to_drop)
