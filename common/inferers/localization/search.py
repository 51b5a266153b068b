"""Where in a patch the features around a point are most like a template."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

TEMPLATE_SIZES = (2, 4, 8)


def cut_template(maps: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the unit feature vectors around the center of each patch, on all scales.

    MedLSAM (arXiv:2306.14752): the central 2^3, 4^3 and 8^3 voxels of the maps of strides 4, 2 and 1, which cover the
    same 8^3 voxels of the patch.

    Args:
        maps: Features, coarse to fine. Shape (B, C, d, h, w) each.

    Returns:
        Templates, coarse to fine. Shape (B, C, k, k, k) each.
    """
    templates = []
    for features, size in zip(maps, TEMPLATE_SIZES, strict=True):
        cut = [slice(n // 2 - size // 2, n // 2 + size // 2) for n in features.shape[2:]]
        templates.append(F.normalize(features[:, :, cut[0], cut[1], cut[2]].float(), dim=1))
    return templates


def similarity_maps(
    maps: Sequence[torch.Tensor],
    templates: Sequence[torch.Tensor],
    patch_size: Sequence[int],
    weights: Sequence[float] = (1.0, 1.0, 1.0),
) -> torch.Tensor:
    """Return how similar each place of a patch is to templates: mean cosine, summed over the scales.

    A place is the corner between eight voxels at which a template is centered; there is one more of them than voxels
    along each axis, the first and the last at the patch's faces, where half of the template hangs over and counts 0. So
    the middle place is exactly the patch's center on every scale, and coarse scales are interpolated between places,
    not between voxels. The authors' code squeezes the same outputs into the size of the patch, which shifts each scale
    by up to half of its voxels.

    Args:
        maps: Features of one patch, coarse to fine, all scales or the coarse ones. Shape (C, d, h, w) each.
        templates: Templates of the same scales. Shape (N, C, k, k, k) each.
        patch_size: Size (D, H, W) of the patch.
        weights: Factor of each scale, coarse to fine; what is 0 is not computed.

    Returns:
        Similarity, in [-3, 3] for three scales of weight 1. Shape (N, D + 1, H + 1, W + 1).
    """
    size = [n + 1 for n in patch_size]
    total = templates[0].new_zeros((len(templates[0]), *size))
    for features, template, weight in zip(maps, templates, weights[: len(maps)], strict=True):
        if weight > 0:
            scores = correlate(F.normalize(features.float(), dim=0), template)
            if list(scores.shape[1:]) != size:
                scores = F.interpolate(scores[None], size=size, mode="trilinear", align_corners=True)[0]
            total.add_(scores, alpha=weight)
    return total


def add_finest(
    scores: torch.Tensor, features: torch.Tensor, template: torch.Tensor, start: torch.Tensor, weight: float = 1.0
) -> None:
    """Add the finest scale to the similarity of the places in a block of a patch, in place.

    What of the template hangs over the block counts 0, which is right at the faces of the patch only.

    Args:
        scores: Similarity of one template at all places of the patch. Shape (D + 1, H + 1, W + 1).
        features: Features of stride 1 in the block. Shape (C, d, h, w).
        template: Its template of that scale. Shape (1, C, k, k, k).
        start: First voxel of the block. Shape (3,), int64.
        weight: Factor of the scale.
    """
    cut = [slice(a, a + n + 1) for a, n in zip(start.tolist(), features.shape[1:], strict=True)]
    scores[cut[0], cut[1], cut[2]].add_(correlate(F.normalize(features.float(), dim=0), template)[0], alpha=weight)


def correlate(features: torch.Tensor, templates: torch.Tensor) -> torch.Tensor:
    """Return the mean over a template's voxels of the product with the features beneath, at every place.

    A convolution to one channel wastes a CPU's vector units, and one with a group for each template even its caches. So
    the rows of the templates become the channels of a convolution along the last axis, and their outputs are added up
    with the shifts of the rows.

    Args:
        features: Features. Shape (C, d, h, w).
        templates: Templates with an even number k of voxels per axis. Shape (N, C, k, k, k).

    Returns:
        Shape (N, d + 1, h + 1, w + 1).
    """
    count, channels, size = templates.shape[:3]
    half = size // 2
    depth, height, width = features.shape[1:]
    rows = templates.permute(0, 2, 3, 1, 4).reshape(count * size * size, channels, 1, 1, size)
    rows = rows.contiguous(memory_format=torch.channels_last_3d)
    outputs = F.conv3d(features[None], rows, padding=(0, 0, half))[0]
    # channels come last in memory, where the sums want them first: a product with the identity transposes fastest
    outputs = torch.mm(torch.eye(len(outputs), device=outputs.device, dtype=outputs.dtype), outputs.flatten(1))
    outputs = outputs.view(count, size, size, depth, height, width + 1)
    scores = features.new_zeros((count, depth + 1, height + 1, width + 1))
    for z in range(size):
        to_z, from_z = _overlap(depth, z - half)
        for y in range(size):
            to_y, from_y = _overlap(height, y - half)
            scores[:, to_z, to_y] += outputs[:, z, y, from_z, from_y]
    return scores.div_(size**3)


def best_place(scores: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the place with the highest score in a window.

    Args:
        scores: Shape (d, h, w).
        low: First place of the window. Shape (3,), int64.
        high: Last place of the window. Shape (3,), int64.

    Returns:
        The place, shape (3,), int64, and its score, a scalar, on the CPU.
    """
    cut = [slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    window = scores[cut[0], cut[1], cut[2]]
    best, index = window.flatten().max(dim=0)
    return low + torch.stack(torch.unravel_index(index, window.shape)).cpu(), best.cpu()


def group_points(centers: torch.Tensor, reach: int) -> list[tuple[torch.Tensor, list[int]]]:
    """Group points that can share a patch, so that few patches show all of them.

    Args:
        centers: Voxels. Shape (points, 3), int64.
        reach: How far a point may be from the center of its patch, in voxels along each axis.

    Returns:
        The center of each patch, shape (3,), int64, and the indices of its points.
    """
    apart = (centers[:, None] - centers).abs().amax(dim=-1)
    left = torch.ones(len(centers), dtype=torch.bool)
    groups = []
    while left.any():
        # from the point with most others in reach on, the nearest first
        first = (((apart <= 2 * reach) & left).sum(dim=1) * left).argmax()
        near = torch.nonzero((apart[first] <= 2 * reach) & left).flatten()
        low = high = centers[first]
        members = []
        for point in near[apart[first, near].argsort(stable=True)].tolist():
            lower, higher = low.minimum(centers[point]), high.maximum(centers[point])
            if (higher - lower).max() <= 2 * reach:
                low, high = lower, higher
                members.append(point)
        groups.append(((low + high) // 2, sorted(members)))
        left[members] = False
    return groups


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """Which places see a row of templates shifted by `shift`, and which voxels they see there."""
    low, high = max(0, -shift), min(size + 1, size - shift)
    return slice(low, high), slice(low + shift, high + shift)
