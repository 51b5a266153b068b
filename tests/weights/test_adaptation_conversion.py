"""Conversion of the source models of VPTTA and GraTa; the full layouts are in tests/parity."""

import pytest
import torch

from common.networks import ResUNet
from common.weights import convert_state_dict, load_weights, vptta

CLASSIFIER = {"res.fc.weight": torch.zeros(1000, 512), "res.fc.bias": torch.zeros(1000)}
AUXILIARY = ("recon1.conv.weight", "denoise_head.bias", "supres_head.0.weight", "rotate_head.4.bias")


def published(encoder):
    """The state dict of a ResUNet under the published names."""
    with torch.device("meta"):
        network = ResUNet(encoder=encoder)
    names = {ours: name for name, ours in vptta.published_modules(encoder).items()}
    state = {}
    for key, tensor in network.state_dict().items():
        module, _, parameter = key.rpartition(".")
        state[f"{names[module]}.{parameter}"] = tensor
    return state


@pytest.mark.parametrize("encoder", ["resnet34", "resnet50"])
def test_every_key_is_converted_or_dropped(encoder):
    state = {**published(encoder), **CLASSIFIER}
    converted = convert_state_dict("vptta", state)
    with torch.device("meta"):
        expected = ResUNet(encoder=encoder).state_dict()
    assert {key: tensor.shape for key, tensor in converted.state_dict.items()} == {
        key: tensor.shape for key, tensor in expected.items()
    }
    assert converted.dropped.keys() == CLASSIFIER.keys()
    assert "ImageNet classifier" in converted.dropped["res.fc.bias"]


def test_heads_of_auxiliary_tasks_are_dropped_from_grata():
    state = {**published("resnet34"), **CLASSIFIER, **dict.fromkeys(AUXILIARY, torch.zeros(1))}
    converted = convert_state_dict("grata", state)
    assert converted.dropped.keys() == {*CLASSIFIER, *AUXILIARY}
    assert "auxiliary task" in converted.dropped["supres_head.0.weight"]


def test_layouts_are_not_taken_for_one_another():
    state = published("resnet34")
    with pytest.raises(ValueError, match=r"not the published layout of 'grata': no key recon1.conv.weight"):
        convert_state_dict("grata", state)
    grata_state = {**state, "recon1.conv.weight": torch.zeros(1)}
    with pytest.raises(ValueError, match=r"layout of 'vptta': 1 unknown key \(recon1.conv.weight\)"):
        convert_state_dict("vptta", grata_state)
    del state["seg_head.weight"], state["seg_head.bias"]
    with pytest.raises(ValueError, match=r"1 missing module \(seg_head\)"):
        convert_state_dict("vptta", state)
    with pytest.raises(ValueError, match=r"resolution_mode is for 3D networks.*got 1"):
        convert_state_dict("vptta", published("resnet34"), resolution_mode=1)


@pytest.mark.parametrize(("extra", "name"), [({}, "vptta"), ({"recon1.conv.weight": torch.zeros(1)}, "grata")])
def test_loading_an_unconverted_file_names_its_release(extra, name):
    with torch.device("meta"):
        network = ResUNet()
    with pytest.raises(ValueError, match=f"authors' layout of '{name}'"):
        load_weights(network, {**published("resnet34"), **extra})
