"""The MedLAM checkpoint of MedLSAM (`medlam.pth`), converted to `common.networks.MedLAM`.

The authors state two licences for their work, Apache-2.0 and CC-BY-NC-4.0: take the weights for non-commercial.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .conversion import ConvertedState, rename_modules

# A key that only this release has.
MARKER = "conv0_1.model.conv1_1.Conv.weight"

NUM_ENCODER_STAGES = 5
NUM_DECODER_STAGES = 4


def published_modules() -> dict[str, str]:
    """Return published module to our module."""
    modules = {f"fc{layer + 1}": f"position_head.{layer}" for layer in range(3)}
    for stage in range(NUM_ENCODER_STAGES + NUM_DECODER_STAGES):
        is_encoder = stage < NUM_ENCODER_STAGES
        ours = f"encoder.{stage}" if is_encoder else f"decoder.{stage - NUM_ENCODER_STAGES}"
        for unit in range(2):
            modules[f"conv{stage}_{unit + 1}.model.conv1_1.Conv"] = f"{ours}.{unit}.conv"
    return modules


def convert(state_dict: Mapping[str, torch.Tensor], resolution_mode: int | None) -> ConvertedState:
    """Return the published MedLAM in our layout, without the classification layer that nothing uses.

    Args:
        state_dict: Published key to tensor.
        resolution_mode: None; the network has no such modes.

    Returns:
        Our state dict and the dropped keys.

    Raises:
        ValueError: If keys are unknown or missing, or a resolution mode is given.
    """
    if resolution_mode is not None:
        raise ValueError(f"resolution_mode must be left out for 'medlam', got {resolution_mode}.")

    def reason_to_drop(key: str) -> str | None:
        return "a layer that neither training nor inference uses" if key.startswith("classification.") else None

    return rename_modules("medlam", state_dict, published_modules(), {}, reason_to_drop)
