"""FMUNet, the residual U-Net that Volume Fusion is published with since 2025."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from .pyramid import (
    NUM_HEADS,
    NUM_LEVELS,
    Merge,
    PyramidNetwork,
    check_pyramid_arguments,
    conv3d,
    level_kernels,
    level_strides,
    preactivation,
)

NEGATIVE_SLOPE = 0.01
NORM = ("instance", {"affine": True})
ACT = ("leakyrelu", {"negative_slope": NEGATIVE_SLOPE})


class ResidualUnit(nn.Sequential):
    """Add to the input what a sequence of modules makes of it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input plus the sequence's output. Shape as the input, (B, C, D, H, W).

        Args:
            x: Features. Shape (B, C, D, H, W).
        """
        residual = x
        for module in self:
            residual = module(residual)
        return x + residual


class FMUNet(PyramidNetwork):
    """Residual U-Net with instance normalization and pre-activation.

    Wang et al., "Volume Fusion-based Self-Supervised Pretraining for 3D Medical Image Segmentation", IEEE TIP
    34:6041-6052, 2025. The authors' code calls `resolution_mode` `res_mode`. A level is two residual units (norm,
    LeakyReLU, dropout, convolution); the bottleneck has a level of the encoder and one of the decoder. Levels are
    joined by strided convolutions downward and by 1x1x1 convolution and trilinear interpolation (corners aligned)
    upward. `resolution_mode` levels at the top convolve and scale in-plane only, for thick slices.

    Differs from the authors' code: any input size (see `PyramidNetwork`); one tensor in eval mode whatever was set
    before. Total stride, axis order (D, H, W): 16x16x16, 8x16x16 and 4x16x16 in modes 0, 1 and 2.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the logits, i.e. classes with background.
        feature_channels: Channels of the five levels, finest first.
        resolution_mode: How many of the finest levels are convolved in-plane only: 0, 1 or 2. The published weights
            have mode 0.
        dropout: Dropout probability of the five levels, finest first.
        deep_supervision: If True, training returns the logits of four scales.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 5,
        feature_channels: Sequence[int] = (32, 64, 128, 256, 512),
        resolution_mode: int = 0,
        dropout: Sequence[float] = (0.0, 0.0, 0.2, 0.2, 0.2),
        deep_supervision: bool = False,
    ) -> None:
        check_pyramid_arguments("FMUNet", in_channels, out_channels, feature_channels, resolution_mode, dropout)
        width = list(feature_channels)
        kernels = level_kernels(resolution_mode)
        strides = level_strides(resolution_mode)

        def residual_level(level: int) -> nn.Sequential:
            return nn.Sequential(
                *(
                    ResidualUnit(
                        preactivation(
                            conv3d(width[level], width[level], kernels[level]), width[level], NORM, ACT, dropout[level]
                        )
                    )
                    for _ in range(2)
                )
            )

        def down(level: int) -> nn.Sequential:
            conv = conv3d(width[level], width[level + 1], kernels[level], strides[level])
            return nn.Sequential(preactivation(conv, width[level], NORM, ACT))

        def up(level: int) -> Merge:
            reduce = preactivation(conv3d(width[level + 1], width[level], (1, 1, 1)), width[level + 1], NORM, ACT)
            scale = tuple(float(step) for step in strides[level])
            resize = nn.Upsample(scale_factor=scale, mode="trilinear", align_corners=True)
            merge = preactivation(conv3d(2 * width[level], width[level], kernels[level]), 2 * width[level], NORM, ACT)
            return Merge(nn.Sequential(OrderedDict(reduce, resize=resize)), nn.Sequential(merge))

        def head(level: int) -> nn.Sequential:
            return nn.Sequential(
                preactivation(conv3d(width[level], out_channels, kernels[level]), width[level], NORM, ACT)
            )

        super().__init__(
            project=conv3d(in_channels, width[0], kernels[0]),
            encoder=[residual_level(level) for level in range(NUM_LEVELS)],
            down=[down(level) for level in range(NUM_LEVELS - 1)],
            decoder=[residual_level(level) for level in range(NUM_LEVELS)],
            up=[up(level) for level in range(NUM_LEVELS - 1)],
            heads=[head(level) for level in range(NUM_HEADS)],
            strides=strides,
            deep_supervision=deep_supervision,
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE, mode="fan_in", nonlinearity="leaky_relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
