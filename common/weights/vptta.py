"""The source models of VPTTA (`last-Res_Unet.pth`, MIT), converted to `common.networks.ResUNet`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ..networks.res_unet import ENCODERS
from .conversion import ConvertedState, expand_modules, rename_modules

# A key that GraTa's release has, too: `releases.RELEASES` lists GraTa's first.
MARKER = "up1.tr_conv.weight"

# A key that only the encoder ResNet-50 has.
BOTTLENECK_KEY = "res.layer1.0.conv3.weight"
CLASSIFIER_PREFIX = "res.fc."


def published_modules(encoder: str) -> dict[str, str]:
    """Return published module to our module.

    Args:
        encoder: "resnet34" or "resnet50".
    """
    block, layers, _ = ENCODERS[encoder]
    units = 3 if block == "bottleneck" else 2
    names = ["conv1", "bn1"]
    for stage, num_blocks in enumerate(layers, start=1):
        for index in range(num_blocks):
            names += [f"layer{stage}.{index}.{kind}{unit + 1}" for unit in range(units) for kind in ("conv", "bn")]
        if stage > 1 or block == "bottleneck":
            names += [f"layer{stage}.0.downsample.{part}" for part in (0, 1)]
    decoder = {f"up{level + 1}": f"decoder.{level}" for level in range(4)}
    return {
        **{f"res.{name}": f"encoder.{name}" for name in names},
        **expand_modules(decoder, {"tr_conv": "upsample", "x_conv": "lateral", "bn": "norm"}),
        "up5": "upsample",
        "bnout": "norm",
        "seg_head": "head",
    }


def reason_to_drop(key: str) -> str | None:
    """Return why a published key is not taken over, or None if it is.

    Args:
        key: Published key.
    """
    return (
        "the ImageNet classifier, which the published forward never calls"
        if key.startswith(CLASSIFIER_PREFIX)
        else None
    )


def convert(state_dict: Mapping[str, torch.Tensor], resolution_mode: int | None) -> ConvertedState:
    """Return a published VPTTA source model in our layout; dropped is the unused ImageNet classifier.

    Args:
        state_dict: Published key to tensor.
        resolution_mode: None; this network has none.

    Returns:
        Our state dict and the dropped keys.

    Raises:
        ValueError: If keys are unknown or missing, or a resolution mode is asked for.
    """
    return rename_res_unet("vptta", state_dict, resolution_mode, reason_to_drop)


def rename_res_unet(
    release: str,
    state_dict: Mapping[str, torch.Tensor],
    resolution_mode: int | None,
    reason: Callable[[str], str | None],
) -> ConvertedState:
    """Rename the modules of a published ResUNet, whose encoder the keys tell.

    Args:
        release: Name of the release, for messages.
        state_dict: Published key to tensor.
        resolution_mode: None; this network has none.
        reason: Gives the reason why a key is dropped, or None to keep it.

    Returns:
        Our state dict and the dropped keys.

    Raises:
        ValueError: If keys are unknown or missing, or a resolution mode is asked for.
    """
    if resolution_mode is not None:
        raise ValueError(
            f"resolution_mode is for 3D networks, and {release!r} has none; got {resolution_mode}. Leave it out."
        )
    encoder = "resnet50" if BOTTLENECK_KEY in state_dict else "resnet34"
    return rename_modules(release, state_dict, published_modules(encoder), {}, reason)
