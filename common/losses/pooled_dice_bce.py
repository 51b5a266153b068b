"""Binary cross-entropy and soft Dice of channels that may overlap."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class PooledDiceBCELoss(nn.Module):
    """Mean binary cross-entropy plus one soft Dice loss over the whole batch and all channels together.

    The source training of VPTTA (arXiv:2311.18363) and GraTa (arXiv:2408.07343), as in their code: sums run over batch,
    channels and pixels before the quotient is taken, so a small structure weighs as much as its pixels.
    `monai.losses.DiceCELoss` averages over channels instead.

    Args:
        smooth: Added to numerator and denominator of the Dice.
    """

    def __init__(self, smooth: float = 1.0) -> None:
        super().__init__()
        self.smooth = smooth

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the loss, a scalar.

        Args:
            logits: Shape (B, K, H, W).
            target: The same shape, 0 and 1.

        Raises:
            ValueError: If the shapes differ.
        """
        if logits.shape != target.shape:
            raise ValueError(
                f"logits and target must have one shape, got {tuple(logits.shape)} and {tuple(target.shape)}; check "
                f"that mask_ranges and channel_names name the channels of the network."
            )
        target = target.to(logits.dtype)
        probability = torch.sigmoid(logits)
        overlap = (probability * target).sum()
        dice = (2 * overlap + self.smooth) / (probability.sum() + target.sum() + self.smooth)
        return F.binary_cross_entropy_with_logits(logits, target) + 1 - dice
