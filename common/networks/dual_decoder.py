"""A second decoder beside that of a U-Net, for the time of training."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm


class DualDecoderUNet(nn.Module):
    """MONAI's `BasicUNet` with a second decoder that sees its features through dropout.

    The network of DMPLS (Luo et al., MICCAI 2022, arXiv:2203.02106). The U-Net stays what it is: its weights are the
    ones to save, and alone they segment; the second decoder is left behind.

    Args:
        network: The U-Net, whose encoder both decoders share.
        dropout: Share of the features that the second decoder does not see.

    Raises:
        TypeError: If `network` is not a `BasicUNet`.
    """

    def __init__(self, network: nn.Module, dropout: float = 0.5) -> None:
        super().__init__()
        if not isinstance(network, BasicUNet):
            raise TypeError(
                f"A second decoder can be added to MONAI's BasicUNet only, got {type(network).__name__}; choose "
                f"another method, or BasicUNet as network_def."
            )
        self.network = network
        self.dropout = dropout
        self.decoder = deepcopy(
            nn.ModuleList([network.upcat_4, network.upcat_3, network.upcat_2, network.upcat_1, network.final_conv])
        )
        for module in self.decoder.modules():
            if isinstance(module, _ConvNd | _BatchNorm | _InstanceNorm):
                module.reset_parameters()

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of the U-Net's own decoder and those of the second one.

        Args:
            image: Shape (B, channels, *spatial).
        """
        network = self.network
        features = [network.conv_0(image)]
        for down in (network.down_1, network.down_2, network.down_3, network.down_4):
            features.append(down(features[-1]))
        own = (network.upcat_4, network.upcat_3, network.upcat_2, network.upcat_1, network.final_conv)
        dropped = [F.dropout(feature, self.dropout, self.training) for feature in features]
        return _decode(own, features), _decode(tuple(self.decoder), dropped)


def _decode(decoder: tuple[nn.Module, ...], features: list[torch.Tensor]) -> torch.Tensor:
    *steps, head = decoder
    hidden = features[-1]
    for step, skip in zip(steps, features[-2::-1], strict=True):
        hidden = step(hidden, skip)
    return head(hidden)
