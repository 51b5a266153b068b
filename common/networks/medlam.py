"""MedLAM: where a patch lies in the body, and features that find the same place in another body."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .dropout import Dropout
from .winograd import is_cpu_inference, is_faster, winograd_conv3d

NUM_SCALES = 3
# Along each axis, places whose features stand for a patch's in `finest_block`.
_SAMPLES = 8


class ConvUnit(nn.Module):
    """Convolution 3x3x3, instance normalization without parameters, ReLU.

    The bias has no effect before a normalization; the published weights have it.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor, coarser: torch.Tensor | None = None) -> torch.Tensor:
        """Return the activations. Shape (B, out_channels, D, H, W).

        Args:
            x: Features. Shape (B, in_channels, D, H, W), less the channels of `coarser`.
            coarser: Features of half the size, which are upsampled and joined before `x`. Shape
                (B, C, D / 2, H / 2, W / 2).
        """
        if torch.jit.is_scripting():
            x = self._convolve(x, coarser)
        elif is_faster(x, self.conv):
            x = winograd_conv3d(x, self.conv.weight, self.conv.bias, coarser)
        elif x.shape[1] == 1 and is_cpu_inference(x):
            x = _convolve_planes(x, self.conv)
        else:
            x = self._convolve(x, coarser)
        if x.shape[0] == 1:
            # Of one item it is the same; this one keeps channels last in memory, which convolutions on a CPU prefer.
            return F.relu(F.batch_norm(x, None, None, training=True), inplace=True)
        return F.relu(F.instance_norm(x), inplace=True)

    def _convolve(self, x: torch.Tensor, coarser: torch.Tensor | None) -> torch.Tensor:
        if coarser is not None:
            upsampled = F.interpolate(coarser, scale_factor=2.0, mode="trilinear", align_corners=False)
            x = torch.cat([upsampled, x], dim=1)
        return self.conv(x)


class _TwoUnits(nn.Sequential):
    """A stage: two units, of which the first may join coarser features."""

    def __init__(self, in_channels: int, middle_channels: int, out_channels: int) -> None:
        super().__init__(ConvUnit(in_channels, middle_channels), ConvUnit(middle_channels, out_channels))

    def forward(self, x: torch.Tensor, coarser: torch.Tensor | None = None) -> torch.Tensor:
        return self[1](self[0](x, coarser))


class MedLAM(nn.Module):
    """Network of MedLSAM's localization (Lei et al., arXiv:2306.14752, section on MedLAM; Medical Image Analysis 2025).

    A 3D U-Net over a patch of fixed size. Its encoder feeds a position head: three linear layers without activations,
    whose output p is a place in the body up to a constant; d = r * tanh(p_0 - p_1) is the offset between two patches
    (`RelativeDistanceLoss`). Its decoder gives feature maps of strides 4, 2 and 1, by which the same place is found in
    another scan. Encoder, head and decoder can be run apart, since a position needs no decoder.

    Differs from the authors' code: the 1x1x1 classification layer, which their losses and their inference never use, is
    left out; three strides are returned, not four maps.

    Args:
        in_channels: Channels of the image.
        base_channels: Channels b of the network; stages have 2b, 2b, 4b, 8b, 16b channels, all three features 4b.
        patch_size: Size of every input in voxels (D, H, W), multiples of 16.
        dropout: Probability of dropping an element of the bottleneck in training.

    Raises:
        ValueError: If a size is no multiple of 16 or all are 16, or a number of channels below 1.
    """

    def __init__(
        self,
        in_channels: int = 1,
        base_channels: int = 24,
        patch_size: Sequence[int] = (64, 64, 64),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(patch_size) != 3 or any(size < 16 or size % 16 for size in patch_size) or max(patch_size) < 32:
            raise ValueError(
                f"patch_size must be three multiples of 16, not all 16, got {tuple(patch_size)}; e.g. (64, 64, 64)."
            )
        if in_channels < 1 or base_channels < 1:
            raise ValueError(
                f"Channels must be at least 1, got in_channels {in_channels}, base_channels {base_channels}."
            )
        b = base_channels
        self.in_channels = in_channels
        self.patch_size = tuple(int(size) for size in patch_size)
        self.feature_channels = 4 * b
        units = [(in_channels, 2 * b, 2 * b), (2 * b,) * 3, (2 * b, 2 * b, 4 * b), (4 * b, 4 * b, 8 * b)]
        self.encoder = nn.ModuleList(_TwoUnits(*unit) for unit in [*units, (8 * b, 8 * b, 16 * b)])
        self.dropout = Dropout(dropout)
        bottleneck = 16 * b * (self.patch_size[0] // 16) * (self.patch_size[1] // 16) * (self.patch_size[2] // 16)
        self.position_head = nn.Sequential(nn.Linear(bottleneck, 8 * b), nn.Linear(8 * b, 4 * b), nn.Linear(4 * b, 3))
        merged = [(24 * b, 8 * b, 8 * b), (12 * b, 4 * b, 4 * b), (6 * b, 4 * b, 4 * b), (6 * b, 4 * b, 4 * b)]
        self.decoder = nn.ModuleList(_TwoUnits(*unit) for unit in merged)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return where each patch lies, up to one constant of the network; runs the encoder only.

        Args:
            x: Patches. Shape (B, in_channels, *patch_size).

        Returns:
            Positions p. Shape (B, 3), unbounded, in the order of the spatial axes.

        Raises:
            ValueError: If the patches have another size.
        """
        return self.locate(self.encode(x))

    def encode(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of the encoder, stride 1 to 16, the last being the bottleneck.

        Args:
            x: Patches. Shape (B, in_channels, *patch_size).

        Raises:
            ValueError: If the patches have another size.
        """
        if x.dim() != 5 or list(x.shape[2:]) != list(self.patch_size):
            raise ValueError(f"Patches must have shape (B, C, {self.patch_size}), got {x.shape}. Crop and pad them.")
        features: list[torch.Tensor] = []
        for stage, units in enumerate(self.encoder):
            x = units(F.max_pool3d(x, 2) if stage > 0 else x)
            features.append(x)
        features[-1] = self.dropout(features[-1])
        return features

    def locate(self, encoded: list[torch.Tensor]) -> torch.Tensor:
        """Return positions from what `encode` returned. Shape (B, 3).

        Args:
            encoded: Features of the encoder.
        """
        return self.position_head(encoded[-1].flatten(1))

    def decode(self, encoded: list[torch.Tensor], num_scales: int = NUM_SCALES) -> list[torch.Tensor]:
        """Return the feature maps of strides 4, 2 and 1 from what `encode` returned.

        Args:
            encoded: Features of the encoder.
            num_scales: How many of them, coarse to fine; the finest costs most of the time.

        Returns:
            Feature maps, coarse to fine. Shape (B, 4b, D / stride, H / stride, W / stride) each.
        """
        x = encoded[-1]
        maps: list[torch.Tensor] = []
        for stage, units in enumerate(self.decoder):
            if stage <= num_scales:
                skip = encoded[3 - stage]
                x = units(skip, x)
                if stage > 0:
                    maps.append(x)
        return maps

    def finest_statistics(
        self, encoded: list[torch.Tensor], coarser: torch.Tensor
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Estimate what the last stage of the decoder normalizes by, at a fraction of its work, for `finest_block`.

        Args:
            encoded: What `encode` returned for one patch.
            coarser: The features of stride 2 that `decode` returned for it. Shape (1, 4b, D / 2, H / 2, W / 2).

        Returns:
            Mean and variance of each channel over the patch, for both of its convolutions, from a grid of 8 places
            along each axis. Shape (4b,) each.
        """
        convolutions = self._finest_convolutions()
        window = 2 * len(convolutions) + 1
        windows = [range(0, count - window + 1, max(1, count // _SAMPLES)) for count in self.patch_size]
        samples = _upsampled_and_joined(
            coarser, encoded[0], [[first + i for first in axis for i in range(window)] for axis in windows]
        )
        for axis in range(3):
            # to window and place in it
            samples = samples.unflatten(2 + 2 * axis, (-1, window))
        samples = samples[0].permute(1, 3, 5, 0, 2, 4, 6).flatten(0, 2)
        statistics = []
        for conv in convolutions:
            samples = F.conv3d(samples, conv.weight, conv.bias)
            variance, mean = torch.var_mean(samples, dim=(0, 2, 3, 4), correction=0)
            statistics.append((mean, variance))
            samples = F.relu(F.batch_norm(samples, mean, variance), inplace=True)
        return statistics

    def finest_block(
        self,
        encoded: list[torch.Tensor],
        coarser: torch.Tensor,
        start: torch.Tensor,
        size: int,
        statistics: list[tuple[torch.Tensor, torch.Tensor]],
    ) -> torch.Tensor:
        """Return the features of stride 1 in a block of one patch.

        Args:
            encoded: What `encode` returned for one patch.
            coarser: The features of stride 2 that `decode` returned for it. Shape (1, 4b, D / 2, H / 2, W / 2).
            start: First voxel of the block, which lies within the patch. Shape (3,), int64.
            size: Voxels of the block along each axis.
            statistics: What `finest_statistics` returned for the patch.

        Returns:
            Shape (1, 4b, size, size, size).
        """
        convolutions = self._finest_convolutions()
        reach = len(convolutions)
        ends = [(low - reach, low + size + reach) for low in start.tolist()]
        inside = [range(max(low, 0), min(high, n)) for (low, high), n in zip(ends, self.patch_size, strict=True)]
        block = _upsampled_and_joined(coarser, encoded[0], inside)
        zeros = [(r.start - low, high - r.stop) for r, (low, high) in zip(inside, ends, strict=True)]
        block = F.pad(block, [n for pair in reversed(zeros) for n in pair])
        for conv, (mean, variance) in zip(convolutions, statistics, strict=True):
            reach -= 1
            block = F.conv3d(block, conv.weight, conv.bias)
            block = F.relu(F.batch_norm(block, mean, variance), inplace=True)
            for axis, (low, count) in enumerate(zip(start.tolist(), self.patch_size, strict=True)):
                # beyond the patch there is padding
                block.narrow(axis + 2, 0, max(0, reach - low)).zero_()
                beyond = max(0, low + size + reach - count)
                block.narrow(axis + 2, block.shape[axis + 2] - beyond, beyond).zero_()
        return block

    def _finest_convolutions(self) -> list[nn.Conv3d]:
        return [module for module in self.decoder[-1].modules() if isinstance(module, nn.Conv3d)]


def _convolve_planes(x: torch.Tensor, conv: nn.Conv3d) -> torch.Tensor:
    """The same as `conv` for one item with one channel, as a convolution in 2D of each plane and its two neighbors.

    torch has a slow path for 3D with one channel. Returns (1, O, D, H, W), channels last in memory.
    """
    planes = F.pad(x[0, 0], (0, 0, 0, 0, 1, 1)).unfold(0, 3, 1).movedim(-1, 1)
    planes = planes.contiguous(memory_format=torch.channels_last)
    return F.conv2d(planes, conv.weight[:, 0], conv.bias, padding=1).transpose(0, 1)[None]


def _upsampled_and_joined(coarser: torch.Tensor, skip: torch.Tensor, places: Sequence[Sequence[int]]) -> torch.Tensor:
    """What the last stage of the decoder convolves, at some places along each axis only.

    Args:
        coarser: Features of stride 2. Shape (1, C, d, h, w).
        skip: Features of stride 1. Shape (1, E, D, H, W).
        places: Places along each axis.

    Returns:
        Shape (1, C + E, places, places, places).
    """
    for axis, chosen in enumerate(places, start=2):
        index = torch.tensor(list(chosen), device=skip.device)
        identity = torch.eye(coarser.shape[axis], dtype=coarser.dtype, device=coarser.device)[None]
        weights = F.interpolate(identity, scale_factor=2.0, mode="linear", align_corners=False)[0, :, index]
        coarser = torch.tensordot(coarser, weights, dims=([axis], [0])).movedim(-1, axis)
        skip = skip.index_select(axis, index)
    return torch.cat([coarser, skip], dim=1)


class PairedMedLAM(nn.Module):
    """What training needs of MedLAM in one forward pass, so that several processes can share it.

    Args:
        network: The network that is trained.
    """

    def __init__(self, network: MedLAM) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: torch.Tensor) -> dict[str, torch.Tensor | list[torch.Tensor]]:
        """Return positions and features of originals and copies.

        Args:
            patches: Original 0 and 1, deformed copy 0 and 1, and any number of further patches, which run the encoder
                only. Shape (4 + E, B, C, *patch_size).

        Returns:
            `position`: shape (4 + E, B, 3). `original_maps`, `deformed_maps`: features, coarse to fine, of shape
            (2, B, 4b, d, h, w) each.
        """
        count, batch = patches.shape[:2]
        encoded = self.network.encode(patches.flatten(0, 1))
        maps = [m.unflatten(0, (4, batch)) for m in self.network.decode([e[: 4 * batch] for e in encoded])]
        return {
            "position": self.network.locate(encoded).unflatten(0, (count, batch)),
            "original_maps": [m[:2] for m in maps],
            "deformed_maps": [m[2:] for m in maps],
        }
