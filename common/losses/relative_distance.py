"""Regression of the offset between two patches of one scan."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

# The authors' range along (superior, anterior, left): longer than any offset in a body.
DISTANCE_RANGE_MM = (1500.0, 600.0, 600.0)


def offset_mm(
    position: torch.Tensor, other_position: torch.Tensor, distance_range_mm: Sequence[float] = DISTANCE_RANGE_MM
) -> torch.Tensor:
    """Return where one patch lies as seen from another, d = r * tanh(p - p_other).

    MedLSAM (arXiv:2306.14752), section on relative distance regression.

    Args:
        position: Position p that MedLAM gives for a patch. Shape (..., 3).
        other_position: The same of the other patch. Shape (..., 3).
        distance_range_mm: Range r per axis in mm; no offset beyond it can be expressed.

    Returns:
        Center of the patch minus center of the other in mm, in the order of the spatial axes. Shape (..., 3).
    """
    reach = torch.as_tensor(distance_range_mm, dtype=position.dtype, device=position.device)
    return reach * torch.tanh(position - other_position)


class RelativeDistanceLoss(nn.Module):
    """Mean squared error between true and predicted offset of two patches.

    The authors take it in mm^2, which with untrained weights is some 10^5 times the similarity loss beside it; a weight
    of the order of 10^-4 brings them together. `normalize` divides by the range instead, which makes less of the errors
    along an axis of long range.

    Args:
        distance_range_mm: Range per axis in mm, see `offset_mm`.
        normalize: Whether the error is taken in units of the range instead of mm.

    Raises:
        ValueError: If the range is not three positive numbers.
    """

    def __init__(self, distance_range_mm: Sequence[float] = DISTANCE_RANGE_MM, normalize: bool = False) -> None:
        super().__init__()
        if len(distance_range_mm) != 3 or min(distance_range_mm) <= 0:
            raise ValueError(f"distance_range_mm must be three positive numbers in mm, got {distance_range_mm}.")
        self.distance_range_mm = tuple(float(reach) for reach in distance_range_mm)
        self.normalize = normalize

    def forward(
        self, position: torch.Tensor, other_position: torch.Tensor, true_offset_mm: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss. Shape ().

        Args:
            position: Positions of the first patches. Shape (..., 3).
            other_position: Positions of the second patches. Shape (..., 3).
            true_offset_mm: First center minus second center in mm. Shape (..., 3).
        """
        error = offset_mm(position, other_position, self.distance_range_mm) - true_offset_mm
        if self.normalize:
            error = error / error.new_tensor(self.distance_range_mm)
        return error.square().mean()
