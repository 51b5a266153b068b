"""Initial weights of an encoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from common.networks import ResUNet
from common.weights import load_imagenet_encoder


def test_everything_but_the_classifier_is_loaded(tmp_path):
    """A file as the model zoo has it: with a classifier, without counters."""
    source, target = ResUNet(), ResUNet()
    state = {key: value for key, value in source.encoder.state_dict().items() if "num_batches" not in key}
    torch.save({**state, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "resnet34.pth")
    decoder = target.head.weight.clone()
    load_imagenet_encoder(target, tmp_path / "resnet34.pth")
    torch.testing.assert_close(target.encoder.state_dict(), source.encoder.state_dict())
    torch.testing.assert_close(target.head.weight, decoder)


def test_another_network_is_refused(tmp_path):
    torch.save(ResUNet(encoder="resnet50").encoder.state_dict(), tmp_path / "resnet50.pth")
    with pytest.raises(ValueError, match="do not fit ResNetEncoder"):
        load_imagenet_encoder(ResUNet(), tmp_path / "resnet50.pth")
    with pytest.raises(TypeError, match=r"must have an encoder.*got Linear\. Set use_imagenet to false"):
        load_imagenet_encoder(nn.Linear(1, 1), tmp_path / "resnet50.pth")
