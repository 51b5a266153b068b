"""Initial weights of a ResNet encoder from a classifier trained on ImageNet."""

from __future__ import annotations

import os

from torch import nn

from .checkpoint import read_checkpoint
from .loading import LoadReport, load_weights

CLASSIFIER = "fc."
COUNTER = ".num_batches_tracked"


def load_imagenet_encoder(network: nn.Module, path: str | os.PathLike[str]) -> LoadReport:
    """Load a classifier's file, such as `resnet34-333f7ec4.pth` of the PyTorch model zoo, into a network's encoder.

    Its last layer (`fc.`) is left out; the counters of BatchNorm, which files of before 2018 lack and which nothing
    here reads, stay as they are. Everything else must fit.

    Args:
        network: Network whose `encoder`, a ResNet with the usual names (`conv1`, `bn1`, `layer1` ...) and without
            classifier, is filled in place.
        path: The classifier's file.

    Returns:
        Which keys were loaded.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If the network has no encoder.
        ValueError: If it is no checkpoint, or of another network than the encoder.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        raise TypeError(
            f"network must have an encoder to load ImageNet weights into, as ResUNet; got {type(network).__name__}. "
            f"Set use_imagenet to false."
        )
    given = {key: value for key, value in read_checkpoint(path).items() if not key.startswith(CLASSIFIER)}
    counters = {key: value for key, value in encoder.state_dict().items() if key.endswith(COUNTER)}
    return load_weights(encoder, {**counters, **given})
