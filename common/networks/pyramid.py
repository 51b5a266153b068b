"""What PCT-Net and FMUNet share: five levels, pre-activation convolutions, padding to any size, heads per level."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from monai.networks.blocks import ADN
from torch import nn

from .dropout import Dropout

# Here and in the networks there is no `from __future__ import annotations`: TorchScript reads annotations as objects.

NUM_LEVELS = 5
NUM_HEADS = 4


def check_pyramid_arguments(
    network: str,
    in_channels: int,
    out_channels: int,
    feature_channels: Sequence[int],
    resolution_mode: int,
    dropout: Sequence[float],
) -> None:
    """Refuse constructor arguments that no five-level network can be built from.

    Args:
        network: Name of the class, for the message.
        in_channels: Channels of the image, at least 1.
        out_channels: Channels of the logits, at least 1.
        feature_channels: Channels of each level, finest first; five numbers.
        resolution_mode: 0, 1 or 2.
        dropout: Dropout probability of each level, finest first; five numbers in [0, 1).

    Raises:
        ValueError: If a value breaks its rule; the message names the argument and the value.
    """
    if in_channels < 1 or out_channels < 1:
        raise ValueError(
            f"{network}: in_channels and out_channels must be at least 1, got {in_channels} and {out_channels}."
        )
    if len(feature_channels) != NUM_LEVELS or min(feature_channels) < 1:
        raise ValueError(
            f"{network}: feature_channels must be {NUM_LEVELS} positive numbers, finest level first, "
            f"got {tuple(feature_channels)}."
        )
    if resolution_mode not in (0, 1, 2):
        raise ValueError(
            f"{network}: resolution_mode must be 0 (isotropic voxels), 1 or 2 (thick slices: that many levels are "
            f"convolved in-plane only), got {resolution_mode!r}."
        )
    if len(dropout) != NUM_LEVELS or not all(0.0 <= p < 1.0 for p in dropout):
        raise ValueError(
            f"{network}: dropout must be {NUM_LEVELS} probabilities in [0, 1), finest level first, "
            f"got {tuple(dropout)}."
        )


def level_kernels(resolution_mode: int) -> list[tuple[int, int, int]]:
    """Return the convolution kernel of each level, axis order (D, H, W): in-plane only on the first `resolution_mode`.

    Args:
        resolution_mode: 0, 1 or 2.
    """
    return [(1, 3, 3) if level < resolution_mode else (3, 3, 3) for level in range(NUM_LEVELS)]


def level_strides(resolution_mode: int) -> list[tuple[int, int, int]]:
    """Return the stride between each level and the next coarser one, axis order (D, H, W).

    Args:
        resolution_mode: 0, 1 or 2.
    """
    return [(1, 2, 2) if level < resolution_mode else (2, 2, 2) for level in range(NUM_LEVELS - 1)]


def preactivation(
    conv: nn.Module, channels: int, norm: str | tuple, act: str | tuple, dropout: float = 0.0
) -> "OrderedDict[str, nn.Module]":
    """Return normalization, activation, dropout and then `conv`, under MONAI's names `adn` and `conv`.

    Args:
        conv: What follows the activation.
        channels: Channels of the input.
        norm: MONAI normalization, a name or (name, arguments).
        act: MONAI activation, a name or (name, arguments).
        dropout: Probability; 0 leaves the layer out.

    Returns:
        Modules in the order in which they run, for `torch.nn.Sequential`.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    modules["adn"] = ADN(ordering="NA", in_channels=channels, norm=norm, act=act, norm_dim=3)
    if dropout > 0:
        modules["dropout"] = Dropout(dropout)
    modules["conv"] = conv
    return modules


def conv3d(
    in_channels: int, out_channels: int, kernel: tuple[int, int, int], stride: tuple[int, int, int] = (1, 1, 1)
) -> nn.Conv3d:
    """Return a biased 3D convolution whose padding keeps the size up to the stride.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Odd kernel size, axis order (D, H, W).
        stride: Stride, axis order (D, H, W).
    """
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    return nn.Conv3d(in_channels, out_channels, kernel, stride=stride, padding=padding)


class Merge(nn.Module):
    """Bring the coarser level to the size of the skip connection, concatenate (skip first) and reduce the channels.

    Args:
        upsample: Maps (B, C_high, d, h, w) to (B, C_low, D, H, W).
        merge: Maps (B, 2 C_low, D, H, W) to (B, C_low, D, H, W).
    """

    def __init__(self, upsample: nn.Module, merge: nn.Module) -> None:
        super().__init__()
        self.upsample = upsample
        self.merge = merge

    def forward(self, skip: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        """Return the merged features. Shape (B, C_low, D, H, W).

        Args:
            skip: Features of the finer level. Shape (B, C_low, D, H, W).
            coarse: Features of the coarser level. Shape (B, C_high, d, h, w).
        """
        return self.merge(torch.cat([skip, self.upsample(coarse)], dim=1))


class PyramidNetwork(nn.Module):
    """Encoder and decoder of five levels with one head on each of the four finest.

    Module names are the same in every network built on this: `project`, `encoder.{0..4}`, `down.{0..3}` (from that
    level to the next), `decoder.{0..4}`, `up.{0..3}` (to that level) and `heads.{0..3}`. Everything whose shape
    depends on the number of classes is under `heads.`, so a transfer to other classes drops that prefix by name.

    All four heads exist whatever `deep_supervision` says, so that one state dict serves pretraining with deep
    supervision and inference without it; only the heads that are asked for are computed. The three coarse heads are
    small (about 13 of 44,000 thousand parameters in PCT-Net).

    Any input of at least one voxel per axis runs: the image is padded at the far end of each axis to a multiple of
    the network's total stride, and the logits are cropped back. The padding repeats the border voxel, for that adds
    no edge and no intensity that the scan does not have (zeros would be air in one normalization and the mean tissue
    in another, and reflection needs more voxels than it pads). If the coarsest level would be one voxel, each axis is
    padded to twice its stride, since neither instance nor batch normalization can train on a single value; the
    same happens in eval mode, so that both modes see the same geometry.

    Args:
        project: First convolution, (B, in_channels, D, H, W) to (B, C_0, D, H, W).
        encoder: Five modules, one a level, each keeping its shape.
        down: Four modules, from each level to the next coarser one.
        decoder: Five modules, one a level, each keeping its shape.
        up: Four modules called with (skip, coarse), from each level's coarser neighbor to it.
        heads: Four modules from features to logits.
        strides: Four strides between the levels, axis order (D, H, W).
        deep_supervision: If True, training returns the logits of all four heads.
    """

    def __init__(
        self,
        project: nn.Module,
        encoder: Sequence[nn.Module],
        down: Sequence[nn.Module],
        decoder: Sequence[nn.Module],
        up: Sequence[nn.Module],
        heads: Sequence[nn.Module],
        strides: Sequence[tuple[int, int, int]],
        deep_supervision: bool,
    ) -> None:
        super().__init__()
        self.project = project
        self.encoder = nn.ModuleList(encoder)
        self.down = nn.ModuleList(down)
        self.decoder = nn.ModuleList(decoder)
        self.up = nn.ModuleList(up)
        self.heads = nn.ModuleList(heads)
        self.deep_supervision = deep_supervision
        totals = [[1, 1, 1]]
        for stride in strides:
            totals.append([total * step for total, step in zip(totals[-1], stride, strict=True)])
        # Voxels of the image per voxel of each level, (D, H, W); the last row is what the image is padded to.
        self.level_stride: list[list[int]] = totals

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """Return logits, in eval mode always as one tensor.

        Args:
            image: Image. Shape (B, in_channels, D, H, W), floating point, any size of at least one voxel per axis.

        Returns:
            Logits. Shape (B, out_channels, D, H, W). In training with `deep_supervision`, a list from full resolution
            down; the size of entry k is the image's size divided by the stride of level k, rounded up.

        Raises:
            ValueError: If `image` is not 5-D or is empty; the message shows the received shape.
        """
        if self.training and self.deep_supervision:
            return self.multi_scale_logits(image, 4)
        return self.multi_scale_logits(image, 1)[0]

    def multi_scale_logits(self, image: torch.Tensor, num_scales: int) -> list[torch.Tensor]:
        """Return the logits of the finest `num_scales` levels, from full resolution down, in either mode.

        Args:
            image: Image. Shape (B, in_channels, D, H, W), floating point.
            num_scales: How many heads to compute, 1 to 4.

        Returns:
            `num_scales` tensors. Shape of entry k: (B, out_channels, ceil(D / stride_k), ...).

        Raises:
            ValueError: If `image` is not 5-D or is empty.
        """
        if image.dim() != 5 or image.numel() == 0:
            raise ValueError(
                f"image must have shape (B, C, D, H, W) with at least one voxel per axis, got {image.shape}. "
                "Add the batch and channel axes, and check the crop that made it."
            )
        padded = self.pad(image)
        skip0 = self.encoder[0](self.project(padded))
        skip1 = self.encoder[1](self.down[0](skip0))
        skip2 = self.encoder[2](self.down[1](skip1))
        skip3 = self.encoder[3](self.down[2](skip2))
        features4 = self.decoder[4](self.encoder[4](self.down[3](skip3)))
        features3 = self.decoder[3](self.up[3](skip3, features4))
        features2 = self.decoder[2](self.up[2](skip2, features3))
        features1 = self.decoder[1](self.up[1](skip1, features2))
        features0 = self.decoder[0](self.up[0](skip0, features1))
        features = [features0, features1, features2, features3]
        logits: list[torch.Tensor] = []
        for level, head in enumerate(self.heads):
            if level < num_scales:
                logits.append(self.crop(head(features[level]), image, level))
        return logits

    def pad(self, image: torch.Tensor) -> torch.Tensor:
        """Repeat the far border voxels of `image` up to a size that every level divides.

        Args:
            image: Image. Shape (B, C, D, H, W).

        Returns:
            Padded image, or `image` itself if its size fits. Shape (B, C, D', H', W').
        """
        multiple = self.level_stride[4]
        depth = (image.shape[2] + multiple[0] - 1) // multiple[0]
        height = (image.shape[3] + multiple[1] - 1) // multiple[1]
        width = (image.shape[4] + multiple[2] - 1) // multiple[2]
        if depth * height * width == 1:
            depth, height, width = 2, 2, 2
        far_depth = depth * multiple[0] - image.shape[2]
        far_height = height * multiple[1] - image.shape[3]
        far_width = width * multiple[2] - image.shape[4]
        if far_depth + far_height + far_width == 0:
            return image
        return F.pad(image, [0, far_width, 0, far_height, 0, far_depth], mode="replicate")

    def crop(self, logits: torch.Tensor, image: torch.Tensor, level: int) -> torch.Tensor:
        """Cut from `logits` what the padding added.

        Args:
            logits: Logits of the padded image at `level`. Shape (B, C, d, h, w).
            image: The image before padding. Shape (B, in_channels, D, H, W).
            level: Level of the logits, 0 for full resolution.

        Returns:
            Logits. Shape (B, C, ceil(D / stride), ceil(H / stride), ceil(W / stride)).
        """
        stride = self.level_stride[level]
        depth = (image.shape[2] + stride[0] - 1) // stride[0]
        height = (image.shape[3] + stride[1] - 1) // stride[1]
        width = (image.shape[4] + stride[2] - 1) // stride[2]
        return logits[:, :, :depth, :height, :width]
