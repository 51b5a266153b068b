"""Dice plus cross entropy on one or several scales, against one label map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.losses import DeepSupervisionLoss, DiceCELoss


class DeepSupervisionDiceCELoss(DeepSupervisionLoss):
    """Batch Dice and cross entropy, averaged over the scales of a deeply supervised network.

    The loss of Volume Fusion (Wang et al., arXiv:2306.16925), used in pretraining and fine-tuning. On each scale:
    `lambda_dice` times 1 - mean over all classes, with background, of (2 I + 1e-5) / (Y + P + 1e-5), its sums running
    over batch and space together, plus `lambda_ce` times the mean cross entropy. Scales weigh 1, 1/2, 1/4, 1/8 from
    full resolution down, divided by their sum. The one-hot label map is averaged down to each scale, so coarse
    targets are soft; MONAI's own `DeepSupervisionLoss` takes nearest labels and leaves the weights' sum at 1.875.

    Differs from the authors' code: cross entropy goes through log-softmax, so saturated logits give no NaN.

    Args:
        lambda_dice: Weight of the Dice loss.
        lambda_ce: Weight of the cross entropy.
    """

    def __init__(self, lambda_dice: float = 0.5, lambda_ce: float = 0.5) -> None:
        super().__init__(
            DiceCELoss(
                include_background=True,
                softmax=True,
                batch=True,
                smooth_nr=1e-5,
                smooth_dr=1e-5,
                lambda_dice=lambda_dice,
                lambda_ce=lambda_ce,
            ),
            weight_mode="exp",
        )
        # PyTorch's name for adaptive average pooling; the parent hands it to `interpolate`.
        self.interp_mode = "area"

    def get_weights(self, levels: int = 1) -> list[float]:
        """Return the weight of each scale, full resolution first; they sum to 1.

        Args:
            levels: Number of scales.
        """
        weights = super().get_weights(levels)
        return [weight / sum(weights) for weight in weights]

    def forward(self, input: torch.Tensor | Sequence[torch.Tensor], target: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Return the loss.

        Args:
            input: Logits, or a list of logits from full resolution down. Shape (B, C, D, H, W) or (B, C, d, h, w);
                C is at least 2.
            target: Label map of the full resolution. Shape (B, 1, D, H, W), whole numbers in [0, C), any dtype.

        Returns:
            Loss. Shape (), float32.

        Raises:
            ValueError: If shapes do not match or a label is not in [0, C); the message shows what was received.
        """
        logits = input if isinstance(input, torch.Tensor) else input[0]
        num_classes = logits.shape[1]
        expected = (logits.shape[0], 1, *logits.shape[2:])
        if num_classes < 2 or tuple(target.shape) != expected:
            raise ValueError(
                f"target must be a label map of shape {expected} for logits of shape {tuple(logits.shape)} with at "
                f"least 2 channels, got {tuple(target.shape)}. Give integer labels, not one-hot."
            )
        labels = target[:, 0].long()
        lowest, highest = (int(value) for value in torch.aminmax(labels))
        if lowest < 0 or highest >= num_classes:
            raise ValueError(
                f"target must hold labels in [0, {num_classes}) for logits of {num_classes} channels, "
                f"got {lowest} to {highest}. Map the labels, or set out_channels to the number of classes."
            )
        one_hot = F.one_hot(labels, num_classes).movedim(-1, 1).to(torch.float32)
        return super().forward(input if isinstance(input, torch.Tensor) else list(input), one_hot)
