"""Feature vectors that find their place again in a deformed copy of a patch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

# Below this, 1 - S is rounding error, and its logarithm would be minus infinity.
MIN_COMPLEMENT = 1e-7


class MultiScaleSimilarityLoss(nn.Module):
    """Cross entropy between where a point is found by its features and where it truly is, on each scale.

    MedLSAM (arXiv:2306.14752), multi-scale similarity, in the form of the authors' code: the paper's one-hot target is
    a ball there, and what lies in a shell around it counts for nothing. For each point, S is the softmax over the
    voxels of the deformed patch of `sharpness` times the cosine between their features and the features at the point in
    the original patch. With s the stride of a scale and D the distance in mm between a voxel and the point,

        L = -sum(log S where D <= positive_mm * s) / count - sum(log(1 - S) where D >= negative_mm * s) / count,

    where sums and counts run over batch, points and voxels together. The sum over scales and patches is divided by the
    number of scales times the number of points.

    Args:
        sharpness: Factor of the cosine within the softmax.
        positive_mm: Radius of the ball on the finest scale in mm; not below half a voxel.
        negative_mm: From this distance on, in mm on the finest scale, a voxel is a wrong one.

    Raises:
        ValueError: If a value is not positive, or `negative_mm` below `positive_mm`.
    """

    def __init__(self, sharpness: float = 15.0, positive_mm: float = 3.0, negative_mm: float = 6.0) -> None:
        super().__init__()
        if sharpness <= 0 or not 0 < positive_mm <= negative_mm:
            raise ValueError(
                f"sharpness must be positive and 0 < positive_mm <= negative_mm, got {sharpness}, {positive_mm}, "
                f"{negative_mm}."
            )
        self.sharpness = sharpness
        self.positive_mm = positive_mm
        self.negative_mm = negative_mm

    def forward(
        self,
        original_maps: Sequence[torch.Tensor],
        deformed_maps: Sequence[torch.Tensor],
        points: torch.Tensor,
        points_mm: torch.Tensor,
        coordinates_mm: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss of one patch of each pair. Shape ().

        Args:
            original_maps: Features of the original patches, coarse to fine. Shape (B, C, d, h, w) each.
            deformed_maps: Features of the deformed copies, of the same shapes.
            points: Voxels in the original patches, the same in the whole batch. Shape (N, 3), whole numbers.
            points_mm: Where they are in the scans, in mm. Shape (B, N, 3).
            coordinates_mm: Where each voxel of the deformed copies comes from, in mm. Shape (B, 3, D, H, W).
        """
        gap = coordinates_mm.float()[:, None] - points_mm.float()[..., None, None, None]
        distance_mm = torch.linalg.vector_norm(gap, dim=2)
        total = coordinates_mm.new_zeros((), dtype=torch.float32)
        for original, deformed in zip(original_maps, deformed_maps, strict=True):
            stride = coordinates_mm.shape[-1] // original.shape[-1]
            total = total + self._scale(original, deformed, points // stride, distance_mm, stride)
        return total / (len(original_maps) * len(points))

    def _scale(
        self,
        original: torch.Tensor,
        deformed: torch.Tensor,
        voxels: torch.Tensor,
        distance_mm: torch.Tensor,
        stride: int,
    ) -> torch.Tensor:
        """Loss of one scale, summed over what `forward` divides by."""
        depth, height, width = voxels.unbind(1)
        queries = F.normalize(original[:, :, depth, height, width].float(), dim=1)
        keys = F.normalize(deformed.flatten(2).float(), dim=1)
        log_share = torch.log_softmax(self.sharpness * torch.bmm(queries.transpose(1, 2), keys), dim=2)
        if stride > 1:
            distance_mm = F.interpolate(distance_mm, scale_factor=1 / stride, mode="trilinear", align_corners=False)
        distance_mm = distance_mm.flatten(2)
        positive = distance_mm <= self.positive_mm * stride
        negative = distance_mm >= self.negative_mm * stride
        log_rest = torch.log((-torch.expm1(log_share)).clamp_min(MIN_COMPLEMENT))
        return -_masked_mean(log_share, positive) - _masked_mean(log_rest, negative)


def _masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean where the mask is set; 0 where it is empty, as when no point lies in the deformed patch."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp_min(1)
