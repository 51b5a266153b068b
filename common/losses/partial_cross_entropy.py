"""Cross entropy over the pixels that an annotator touched."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from torch import nn

from ..data.scribbles import UNLABELLED


class PartialCrossEntropy(nn.Module):
    """Cross entropy averaged over the labelled pixels of a batch; zero, with zero gradients, where there are none.

    The base term of learning from scribbles. `torch.nn.functional.cross_entropy(..., ignore_index=255)` gives NaN for a
    batch without labels, and so would end a training at its first slice without strokes.

    Args:
        class_balance: Average per class, then over the classes that are labelled in the batch, so that long background
            strokes do not outweigh short ones.
    """

    def __init__(self, class_balance: bool = False) -> None:
        super().__init__()
        self.class_balance = class_balance

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # noqa: A002 - MONAI's name
        """Return the loss.

        Args:
            input: Logits. Shape (B, C, H, W) or (B, C, D, H, W).
            target: Labels in [0, C), or 255 where nothing is labelled. Shape (B, 1, *spatial), any dtype.

        Returns:
            Loss. Shape (), float32.

        Raises:
            ValueError: If shapes do not match or a label is neither a class nor 255.
        """
        labels = checked_labels(input, target)
        num_classes = input.shape[1]
        counts = torch.bincount(labels[labels != UNLABELLED], minlength=num_classes).float()
        if self.class_balance:
            weight = torch.where(counts > 0, 1.0 / counts.clamp(min=1.0), 0.0) / (counts > 0).sum().clamp(min=1)
        else:
            weight = torch.full_like(counts, 1.0) / counts.sum().clamp(min=1.0)
        return F.cross_entropy(input.float(), labels, weight=weight, ignore_index=UNLABELLED, reduction="sum")


def checked_labels(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the labels without their channel axis, as int64, after checking that they fit the logits.

    Args:
        logits: Shape (B, C, *spatial).
        target: Labels. Shape (B, 1, *spatial).

    Returns:
        Shape (B, *spatial), int64.

    Raises:
        ValueError: If shapes do not match or a label is neither in [0, C) nor 255.
    """
    expected = (logits.shape[0], 1, *logits.shape[2:])
    if tuple(target.shape) != expected:
        raise ValueError(
            f"target must be a label map of shape {expected} for logits of shape {tuple(logits.shape)}, got "
            f"{tuple(target.shape)}. Give integer labels with one channel, not one-hot."
        )
    labels = target[:, 0].long()
    wrong = (labels != UNLABELLED) & ((labels < 0) | (labels >= logits.shape[1]))
    if wrong.any():
        raise ValueError(
            f"target must hold classes in [0, {logits.shape[1]}) or {UNLABELLED} where nothing is labelled, got "
            f"{sorted(set(labels[wrong].tolist()))[:8]}. Convert the scribbles, or set num_classes."
        )
    return labels


class PartialDiceCELoss(nn.Module):
    """Partial cross entropy plus Dice over the labelled pixels: for dense labels, of which a transform hid some.

    MONAI's `DiceCELoss` knows no unlabelled pixels; a rotation brings such in at the corners.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cross_entropy = PartialCrossEntropy()
        self.dice = DiceLoss(softmax=True, to_onehot_y=True, batch=True, ignore_index=UNLABELLED)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:  # noqa: A002 - MONAI's name
        """Return the loss; arguments, result and errors as in `PartialCrossEntropy`."""
        return self.cross_entropy(input, target) + self.dice(input.float(), target)
