"""Pairwise regularization: neighbors that look alike should be labelled alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from monai.utils import ensure_tuple_rep
from torch import nn


class GatedCRFLoss(nn.Module):
    """Dense CRF loss in a local window, on images without color (Obukhov et al., arXiv:1906.04651, section 3).

    `1/N sum_i sum_{j in window(i), j != i} k_ij (1 - p_i . p_j)`: the expected number of unlike neighbors, weighted by
    `k_ij = exp(-|x_i - x_j|^2 / (2 sigma_x^2) - |I_i - I_j|^2 / (2 sigma_I^2))`. Nothing is gated: all pixels count.

    Each pair of the window is looked at once and counted twice, so a 2D window of radius r takes 2 r (r + 1) passes
    over the image; in 3D take a small radius along every axis.

    Args:
        sigma_position: Standard deviation of the kernel in positions, in pixels.
        sigma_intensity: Standard deviation of the kernel in intensities, in the image's own unit.
        radius: Half width of the window, in pixels; one for all axes, or one each.
    """

    def __init__(
        self, sigma_position: float = 6.0, sigma_intensity: float = 0.1, radius: int | Sequence[int] = 5
    ) -> None:
        super().__init__()
        self.sigma_position = sigma_position
        self.sigma_intensity = sigma_intensity
        self.radius = radius

    def forward(self, input: torch.Tensor, image: torch.Tensor) -> torch.Tensor:  # noqa: A002 - MONAI's name
        """Return the loss.

        Args:
            input: Logits. Shape (B, C, *spatial).
            image: Image. Shape (B, channels, *spatial).

        Returns:
            Loss. Shape (), float32.
        """
        probability = torch.softmax(input.float(), dim=1)
        image = image.float()
        spatial_dims = input.ndim - 2
        total = probability.new_zeros(())
        for offset in _half_window(ensure_tuple_rep(self.radius, spatial_dims)):
            here, there = _pair(offset)
            if any(abs(step) >= size for step, size in zip(offset, input.shape[2:], strict=True)):
                continue  # the window reaches beyond the image
            with torch.no_grad():
                difference = (image[here] - image[there]).square().sum(dim=1) / self.sigma_intensity**2
                shift = sum(step * step for step in offset) / self.sigma_position**2
                kernel = torch.exp(-0.5 * (difference + shift))
            unlike = 1.0 - (probability[here] * probability[there]).sum(dim=1)
            total = total + 2.0 * (kernel * unlike).sum()
        return total / (input.shape[0] * input[0, 0].numel())


def _half_window(radius: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Offsets of a window, without zero and without the negative of any other."""
    zero = (0,) * len(radius)
    return (offset for offset in product(*(range(-r, r + 1) for r in radius)) if offset > zero)


def _pair(offset: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Windows of the two ends of all pairs that lie `offset` apart, behind the batch and channel axes."""
    lead = (slice(None), slice(None))
    here = tuple(slice(max(-step, 0), -step if step > 0 else None) for step in offset)
    there = tuple(slice(max(step, 0), step if step < 0 else None) for step in offset)
    return lead + here, lead + there
