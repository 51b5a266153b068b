"""ResUNet, the 2D source model of VPTTA and GraTa: a ResNet encoder and a light decoder."""

import torch
import torch.nn.functional as F
from monai.networks.nets.resnet import ResNet
from torch import nn

# Here there is no `from __future__ import annotations`: TorchScript reads annotations as objects.

# Residual block, blocks per stage and output channels of the four stages.
ENCODERS: dict[str, tuple[str, list[int], list[int]]] = {
    "resnet34": ("basic", [3, 4, 6, 3], [64, 128, 256, 512]),
    "resnet50": ("bottleneck", [3, 4, 6, 3], [256, 512, 1024, 2048]),
}
STEM_CHANNELS = 64
DECODER_CHANNELS = 256
FINAL_CHANNELS = 32
# Pixels of the image per pixel of the coarsest features, along each axis.
TOTAL_STRIDE = 32


class ResNetEncoder(ResNet):
    """MONAI's 2D ResNet without its classifier, giving the features of every scale.

    Names and arithmetic are those of the ImageNet weights that PyTorch users know (`conv1`, `bn1`, `layer1` ...).

    Args:
        in_channels: Channels of the image.
        encoder: Key of `ENCODERS`.
    """

    def __init__(self, in_channels: int, encoder: str) -> None:
        block, layers, _ = ENCODERS[encoder]
        super().__init__(
            block,
            layers,
            [64, 128, 256, 512],
            spatial_dims=2,
            n_input_channels=in_channels,
            conv1_t_size=7,
            conv1_t_stride=2,
            feed_forward=False,
            bias_downsample=False,
        )

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features at 1/2 (before the pooling), 1/4, 1/8, 1/16 and 1/32 of the size, finest first.

        Args:
            x: Image. Shape (B, in_channels, H, W), sides divisible by 32.
        """
        stem = self.act(self.bn1(self.conv1(x)))
        quarter = self.layer1(self.maxpool(stem))
        eighth = self.layer2(quarter)
        sixteenth = self.layer3(eighth)
        return [stem, quarter, eighth, sixteenth, self.layer4(sixteenth)]


class UpBlock(nn.Module):
    """Double the size of the coarse features and join them with a skip connection: ReLU first, then BatchNorm.

    Args:
        coarse_channels: Channels of the coarse features.
        skip_channels: Channels of the skip connection.
    """

    def __init__(self, coarse_channels: int, skip_channels: int) -> None:
        super().__init__()
        self.upsample = nn.ConvTranspose2d(coarse_channels, DECODER_CHANNELS // 2, kernel_size=2, stride=2)
        self.lateral = nn.Conv2d(skip_channels, DECODER_CHANNELS // 2, kernel_size=1)
        self.norm = nn.BatchNorm2d(DECODER_CHANNELS)

    def forward(self, coarse: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return the joined features. Shape (B, 256, 2 h, 2 w).

        Args:
            coarse: Coarse features. Shape (B, coarse_channels, h, w).
            skip: Features of the encoder. Shape (B, skip_channels, 2 h, 2 w).
        """
        return self.norm(F.relu(torch.cat([self.upsample(coarse), self.lateral(skip)], dim=1), inplace=True))


class ResUNet(nn.Module):
    """U-Net of a ResNet encoder and a decoder of transposed convolutions, as VPTTA and GraTa publish it.

    Chen et al., arXiv:2311.18363 (CVPR 2024) and arXiv:2408.07343 (AAAI 2025), implementation details; encoder: He et
    al., arXiv:1512.03385. With "resnet34": 22,041,570 parameters and 41 BatchNorm layers. In the decoder ReLU comes
    before BatchNorm, as published. The outputs are logits of independent classes, to be read with a sigmoid (whole
    optic disc, and cup within it).

    Differs from the authors' code: one tensor as output (theirs adds features that only their training reads); any
    input size; no classifier and no auxiliary heads.

    Any input of at least one pixel per axis runs: the image is padded at the far end of each axis to a multiple of 32
    by repeating the border pixel, and the logits are cropped back. The padding counts in BatchNorm statistics of
    a training step or an adaptation, so sides that 32 divides are best.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the logits, one a class, without background.
        encoder: "resnet34" or "resnet50".

    Raises:
        ValueError: If a number of channels is below 1 or the encoder is unknown.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 2, encoder: str = "resnet34") -> None:
        if in_channels < 1 or out_channels < 1:
            raise ValueError(
                f"ResUNet: in_channels and out_channels must be at least 1, got {in_channels} and {out_channels}."
            )
        if encoder not in ENCODERS:
            raise ValueError(f"ResUNet: encoder must be one of {', '.join(ENCODERS)}, got {encoder!r}.")
        super().__init__()
        self.in_channels = in_channels
        self.total_stride = TOTAL_STRIDE  # TorchScript reads attributes, not globals
        self.encoder = ResNetEncoder(in_channels, encoder)
        quarter, eighth, sixteenth, bottom = ENCODERS[encoder][2]
        skips = [sixteenth, eighth, quarter, STEM_CHANNELS]
        coarse = [bottom, DECODER_CHANNELS, DECODER_CHANNELS, DECODER_CHANNELS]
        self.decoder = nn.ModuleList([UpBlock(*channels) for channels in zip(coarse, skips, strict=True)])
        self.upsample = nn.ConvTranspose2d(DECODER_CHANNELS, FINAL_CHANNELS, kernel_size=2, stride=2)
        self.norm = nn.BatchNorm2d(FINAL_CHANNELS)
        self.head = nn.Conv2d(FINAL_CHANNELS, out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits of the image's size.

        Args:
            image: Image. Shape (B, in_channels, H, W), floating point, any size of at least one pixel per axis.

        Returns:
            Logits. Shape (B, out_channels, H, W).

        Raises:
            ValueError: If `image` is not 4-D, is empty or has another number of channels; the message shows the
                received shape.
        """
        if image.dim() != 4 or image.numel() == 0 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"image must have shape (B, {self.in_channels}, H, W) with at least one pixel per axis, got "
                f"{image.shape}. Convert gray to RGB (or drop the alpha channel), or build the network with the "
                "in_channels of the image."
            )
        far_height = -image.shape[2] % self.total_stride
        far_width = -image.shape[3] % self.total_stride
        padded = image
        if far_height + far_width > 0:
            padded = F.pad(image, [0, far_width, 0, far_height], mode="replicate")
        skips = self.encoder(padded)
        features = skips[4]
        for level, block in enumerate(self.decoder):
            features = block(features, skips[3 - level])
        logits = self.head(F.relu(self.norm(self.upsample(features)), inplace=True))
        return logits[:, :, : image.shape[2], : image.shape[3]]
