"""Mixed precision on a GPU and float32 on a CPU give the same network, within what half a mantissa can tell apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from common.networks import SamSegmenter
from tests.faults.training_runs import BUNDLES, SMALL_SAM

# Float16 rounds by 2^-11 = 0.0005 a step; through tens of layers, whose sums autocast keeps in float32, these add up
# to some thousandths of the output. Ten times as much would be an error in a layer, not rounding.
MEAN_ERROR, LARGEST_ERROR = 0.01, 0.05
# Bundle -> shape of an input as in training, sizes reduced where the network allows it.
INPUTS = {
    "grata": (2, 3, 64, 64),
    "maco": (2, 1, 64, 64),
    "medlsam": (1, 1, 64, 64, 64),
    "volume_fusion": (1, 1, 32, 64, 64),
    "vptta": (2, 3, 64, 64),
}


def network_of(bundle: str) -> torch.nn.Module:
    """The network that `train.json` trains, with random weights."""
    parser = ConfigParser()
    parser.read_config(str(BUNDLES[bundle] / "configs" / "train.json"))
    torch.manual_seed(0)
    return parser.get_parsed_content("network_def")


def errors(network: torch.nn.Module, forward: Callable[..., torch.Tensor], device: str, dtype: torch.dtype):
    """Mean and largest error of autocast against float32 on the CPU, as shares of the output's root mean square."""
    network.eval()
    with torch.no_grad():
        expected = forward(network, "cpu").float()
        network.to(device)
        with torch.autocast(device, dtype=dtype):
            found = forward(network, device)
    difference = (found.float().cpu() - expected) / expected.square().mean().sqrt()
    return difference.square().mean().sqrt().item(), difference.abs().max().item()


def forward_image(shape):
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))

    def forward(network, device):
        output = network(image.to(device))
        return output[0] if isinstance(output, (list, tuple)) else output

    return forward


def forward_prompt(network, device):
    image = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    boxes = torch.tensor([[8.0, 8.0, 40.0, 48.0], [10.0, 20.0, 60.0, 60.0]])
    return network(image.to(device), boxes=boxes.to(device), slice_index=torch.arange(2, device=device))


def test_every_bundle_is_here():
    assert set(INPUTS) == {name for name, path in BUNDLES.items() if trains(path)}


def trains(folder: Path) -> bool:
    return "network_def" in json.loads((folder / "configs" / "train.json").read_text())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("bundle", INPUTS)
def test_autocast_on_a_gpu_agrees_with_float32_on_a_cpu(bundle):
    mean, largest = errors(network_of(bundle), forward_image(INPUTS[bundle]), "cuda", torch.float16)
    assert mean < MEAN_ERROR
    assert largest < LARGEST_ERROR


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_promptable_network_agrees():
    torch.manual_seed(0)
    mean, largest = errors(SamSegmenter(SMALL_SAM), forward_prompt, "cuda", torch.float16)
    assert mean < MEAN_ERROR
    assert largest < LARGEST_ERROR


def test_the_comparison_sees_an_error_in_a_layer():
    """What the tests above measure, on the CPU: bfloat16 rounds by 2^-8, eight times as much as float16."""
    network = network_of("maco")
    mean, largest = errors(network, forward_image(INPUTS["maco"]), "cpu", torch.bfloat16)
    assert 0 < mean < 8 * MEAN_ERROR
    assert largest < 8 * LARGEST_ERROR
    right = forward_image(INPUTS["maco"])
    calls = iter((1.0, 1.2))
    mean, _ = errors(network, lambda net, device: right(net, device) * next(calls), "cpu", torch.bfloat16)
    assert mean > MEAN_ERROR
