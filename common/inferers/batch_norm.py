"""BatchNorm layers that read the statistics of the image at hand, swapped into a copy of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

Layer = TypeVar("Layer", bound="ImageBatchNorm2d")


class ImageBatchNorm2d(nn.Module):
    """BatchNorm of one image by a mixture of its own statistics and those of the source.

    Mean and variance are `source_weight` times the running statistics plus the rest times those of each image of the
    batch by itself; with 0, those of the image alone (biased variance), as `torch.nn.BatchNorm2d` computes them in
    training at batch size 1. Running statistics are never written.

    Args:
        norm: Layer to stand in for; its parameters and buffers are taken over, not copied.
        name: Name of the layer in the network, for messages.
    """

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self, norm: nn.BatchNorm2d, name: str) -> None:
        super().__init__()
        self.name = name
        self.eps = norm.eps
        self.weight = norm.weight
        self.bias = norm.bias
        self.register_buffer("running_mean", norm.running_mean)
        self.register_buffer("running_var", norm.running_var)
        self.source_weight = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalized features, each image by its own statistics. Shape as the input.

        Args:
            x: Features. Shape (B, C, H, W).
        """
        self.check_size(x)
        normalized = [self.normalize(image) for image in x.split(1)]
        return normalized[0] if len(normalized) == 1 else torch.cat(normalized)

    def normalize(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalized features of one image. Shape (1, C, H, W).

        Args:
            x: Features of one image. Shape (1, C, H, W).
        """
        if self.source_weight == 0:
            return F.batch_norm(x, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps)
        mean, variance = self.mix(*image_statistics(x))
        return F.batch_norm(x, mean, variance, self.weight, self.bias, training=False, eps=self.eps)

    def mix(self, mean: torch.Tensor, variance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and variance by which to normalize. Shapes (C,).

        Args:
            mean: Mean of the image. Shape (C,).
            variance: Unbiased variance of the image. Shape (C,).
        """
        return (
            torch.lerp(mean, self.running_mean, self.source_weight),
            torch.lerp(variance, self.running_var, self.source_weight),
        )

    def check_size(self, x: torch.Tensor) -> None:
        """Refuse features of a single pixel, which have no variance.

        Args:
            x: Features. Shape (B, C, H, W).

        Raises:
            ValueError: If H and W are 1.
        """
        if x.shape[2] * x.shape[3] < 2:
            raise ValueError(
                f"The image is too small to adapt to: BatchNorm layer {self.name!r} sees one value per channel "
                f"(features of shape {tuple(x.shape)}), which has no variance. Resize images to at least twice the "
                "total stride of the network per side (64 pixels for a ResNet encoder)."
            )


def image_statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and unbiased variance of each channel of one image, in one call. Shapes (C,), at least float32.

    Args:
        x: Features. Shape (1, C, H, W), at least two pixels.
    """
    if x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64):
        # The kernel of BatchNorm is many times faster than `var_mean`, most of all channels-last.
        mean, variance = torch.batch_norm_update_stats(x, None, None, 0.0)
        pixels = x.shape[2] * x.shape[3]
        return mean, variance * (pixels / (pixels - 1))
    variance, mean = torch.var_mean(at_least_float32(x), dim=(0, 2, 3))
    return mean, variance


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor in float32, or in float64 if it is.

    Args:
        x: Floating point, any shape.
    """
    return x.to(torch.promote_types(x.dtype, torch.float32))


def replace_batch_norms(
    network: nn.Module, layer: Callable[[nn.BatchNorm2d, str], Layer], prefixes: Sequence[str] = ("",)
) -> list[Layer]:
    """Swap BatchNorm2d layers of `network`, in place, and return the new ones in the order of the network.

    Args:
        network: Network to change; a private copy.
        layer: Makes a new layer from the old one and its name.
        prefixes: Starts of the names of the layers to swap.

    Raises:
        ValueError: If a prefix matches no BatchNorm2d with running statistics.
    """
    old = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats
    }
    for prefix in prefixes:
        if not any(name.startswith(prefix) for name in old):
            where = f" under {prefix!r}" if prefix else ""
            raise ValueError(
                f"network must have BatchNorm2d layers with running statistics{where} to adapt; "
                f"{type(network).__name__} has none (instance, group or layer normalization cannot be adapted, nor can "
                "a TorchScript module). Train with batch normalization, or use NoAdaptationInferer."
            )
    chosen = {id(module): layer(module, name) for name, module in old.items() if name.startswith(tuple(prefixes))}
    for parent in list(network.modules()):
        # Not `named_children`, which leaves out the second name of a layer that is used twice.
        for name, child in list(parent._modules.items()):
            if id(child) in chosen:
                setattr(parent, name, chosen[id(child)])
    return list(chosen.values())
