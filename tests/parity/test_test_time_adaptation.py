"""VPTTA and GraTa compute what the authors' code computes, image after image of a stream.

VPTTA's prompt follows signs and gates that flip with the last bits of float32 (a gradient is off by 0.5 % where one
flips), and the stream carries that on. So the stream is compared in float64, which no flip disturbs, and the fast path
in float32 one image at a time, from the state that the stream has at that image.
"""

import copy

import pytest
import torch

from common.inferers import GraTaInferer, VPTTAInferer
from common.networks import ResUNet
from common.weights import convert_state_dict, load_weights

PROBABILITY = {"vptta": 1e-3, "grata": 5e-4}


def make_network(name, case, make_checkpoint):
    checkpoint = make_checkpoint(f"{name}_resunet34", case["seed"])
    converted = convert_state_dict(name, checkpoint)
    assert len(converted.state_dict) + len(converted.dropped) == len(checkpoint)
    network = ResUNet().eval()
    report = load_weights(network, converted.state_dict)
    assert set(report.loaded) == set(network.state_dict())
    return network


def scaled_images(case):
    """Images min-max scaled one by one, shape (1, 3, H, W)."""
    for pixels in case["images_u8"]:
        image = pixels.float()[None]
        yield (image - image.min()) / (image.max() - image.min())


def in_float32(state):
    """A state dict with its float64 tensors in float32."""
    if isinstance(state, dict):
        return {key: in_float32(value) for key, value in state.items()}
    return state.float() if isinstance(state, torch.Tensor) else state


def test_vptta(load_case, make_checkpoint):
    case = load_case("vptta")
    config = case["config"]
    network = make_network("vptta", case, make_checkpoint)
    exact_network = copy.deepcopy(network).double()

    def make_inferer():
        return VPTTAInferer(
            learning_rate=config["learning_rate"],
            betas=config["betas"],
            warm_up=config["warm_up"],
            prompt_fraction=config["prompt_alpha"],
            memory_size=config["memory_size"],
            num_neighbors=config["neighbours"],
            published=True,
        )

    exact = make_inferer()
    for index, image in enumerate(scaled_images(case)):
        fast = make_inferer()
        fast.load_state_dict(in_float32(exact.state_dict()))
        for inferer, inputs, model in ((exact, image.double(), exact_network), (fast, image, network)):
            probability = torch.sigmoid(inferer(inputs, model))[0]
            step = inferer.last_step
            assert (probability - case["prob"][index]).abs().max() < PROBABILITY["vptta"]
            assert step.loss.item() == pytest.approx(case["loss"][index], abs=1e-6)
            assert (step.initial_prompt - case["initial_prompt"][index]).abs().max() < 1e-3
            assert (step.trained_prompt - case["trained_prompt"][index]).abs().max() < 1e-3
            assert torch.allclose(step.key.float(), case["key"][index], rtol=1e-4, atol=1e-3)
    assert len(exact.state_dict()["state"]["keys"]) == config["memory_held"]
    with torch.no_grad():
        plain = torch.cat([torch.sigmoid(network(image)) for image in scaled_images(case)])
    assert (plain - case["plain_prob"]).abs().max() < PROBABILITY["vptta"]


def test_grata(load_case, make_checkpoint):
    case = load_case("grata")
    strong_views = iter(case["strong_view"])
    config = case["config"]
    inferer = GraTaInferer(config["learning_rate"], config["betas"], strong_view=lambda _image, _: next(strong_views))
    network = make_network("grata", case, make_checkpoint)
    for index, image in enumerate(scaled_images(case)):
        probability = torch.sigmoid(inferer(image, network))[0]
        step = inferer.last_step
        assert (probability - case["prob"][index]).abs().max() < PROBABILITY["grata"]
        assert step.entropy.item() == pytest.approx(case["entropy_loss"][index], abs=1e-6)
        assert step.consistency.item() == pytest.approx(case["consistency_loss"][index], abs=1e-6)
        assert step.cosine == pytest.approx(case["cosine"][index], abs=3e-3)
        assert step.learning_rate == pytest.approx(case["used_learning_rate"][index], abs=1e-7)
    assert len(inferer.state_dict()["state"]["affine"]) == len(case["updated_keys"])
