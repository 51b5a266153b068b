"""VPTTA's BatchNorm: mixed statistics and their distance from the image's own, in one pass with one saved tensor."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .batch_norm import ImageBatchNorm2d, image_statistics


class WarmUpBatchNorm2d(ImageBatchNorm2d):
    """BatchNorm by mixed statistics that can report how far they are from the image's own.

    arXiv:2311.18363, section 3.4 (statistics-fusion-based warm-up) and the loss of section 3.3.

    Args:
        norm: Layer to stand in for.
        name: Name of the layer in the network, for messages.
    """

    def __init__(self, norm: nn.BatchNorm2d, name: str) -> None:
        super().__init__(norm, name)
        # Where distances go while a prompt is trained; None while an image is predicted.
        self.distances: list[torch.Tensor] | None = None

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalized features of one image, shape (1, C, H, W); keep the distance if it is asked for.

        Args:
            x: Features of one image. Shape (1, C, H, W).
        """
        statistics = image_statistics(x.detach())
        mixed = self.mix(*statistics)
        if self.distances is None:
            return F.batch_norm(x, *mixed, self.weight, self.bias, training=False, eps=self.eps)
        normalized, distance = NormalizeWithDistance.apply(x, *statistics, *mixed, self.weight, self.bias, self.eps)
        self.distances.append(distance)
        return normalized


class NormalizeWithDistance(torch.autograd.Function):
    """Normalize by given statistics, and measure their distance from the features' own.

    The distance is mean over channels of |mixed mean - mean| plus that of |mixed deviation - deviation| (unbiased, no
    epsilon). The mixed statistics count as constants, the own ones as functions of the features; so with slope and
    offset per channel the gradient is `scale * dy + slope * x + offset`: one pass, and only x is kept. A deviation of
    zero has the gradient zero.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
        mixed_mean: torch.Tensor,
        mixed_variance: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        eps: float,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return normalized features, shape (1, C, H, W), and the distance, a scalar.

        Args:
            ctx: Where what the backward pass needs is kept.
            x: Features of one image. Shape (1, C, H, W).
            mean: Mean of each channel. Shape (C,).
            variance: Unbiased variance of each channel. Shape (C,).
            mixed_mean: Mean to normalize by. Shape (C,).
            mixed_variance: Variance to normalize by. Shape (C,).
            weight: Scale of the layer. Shape (C,), or None.
            bias: Shift of the layer. Shape (C,), or None.
            eps: Added to the variance before the root is taken.
        """
        deviation = variance.sqrt()
        mean_shift, deviation_shift = mixed_mean - mean, mixed_variance.sqrt() - deviation
        distance = mean_shift.abs().mean() + deviation_shift.abs().mean()
        channels, pixels = len(mean), x.shape[2] * x.shape[3]
        slope = -deviation_shift.sign() / (deviation * (channels * (pixels - 1)))
        slope = torch.where(deviation > 0, slope, 0.0)
        offset = -mean_shift.sign() / (channels * pixels) - slope * mean
        scale = torch.rsqrt(mixed_variance + eps)
        ctx.save_for_backward(x, slope, offset, scale if weight is None else scale * weight)
        ctx.set_materialize_grads(False)
        return F.batch_norm(x, mixed_mean, mixed_variance, weight, bias, training=False, eps=eps), distance

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        """Return the gradient of the features.

        Args:
            ctx: What the forward pass kept.
            gradients: Gradient of the normalized features, None after the last layer, and that of the distance.
        """
        gradient, distance_gradient = gradients
        x, slope, offset, scale = (
            tensor if tensor.dim() == 4 else tensor[:, None, None] for tensor in ctx.saved_tensors
        )
        result = None
        if distance_gradient is not None:
            result = torch.addcmul((offset * distance_gradient).to(x.dtype), x, (slope * distance_gradient).to(x.dtype))
        if gradient is not None:
            scale = scale.to(gradient.dtype)
            result = gradient * scale if result is None else result.addcmul_(gradient, scale)
        return (result, *[None] * 7)
