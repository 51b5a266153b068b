"""PCT-Net and FMUNet compute what the authors' code computes with the same weights."""

import numpy as np
import pytest
import torch

from common.networks import FMUNet, PCTNet
from common.networks.pct_net import relative_position_index
from common.weights import convert_state_dict, fmunet, load_weights, pctnet

NETWORKS = {"pctnet": PCTNet, "fmunet": FMUNet}
TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=NETWORKS)
def computed(request, load_case, make_checkpoint):
    """Case, our outputs, loss and gradient norms."""
    name = request.param
    case = load_case(name)
    params = case["params"]
    network = NETWORKS[name](
        in_channels=params["in_chns"],
        out_channels=params["class_num"],
        feature_channels=params["feature_chns"],
        resolution_mode=1,
        deep_supervision=True,
    )
    load_weights(network, convert_state_dict(name, make_checkpoint(f"{name}_small", case["seed"]), 1).state_dict)
    network.eval()
    image = np.random.RandomState(case["seed"]).standard_normal((1, 1, *case["input_size"]))
    outputs = network.multi_scale_logits(torch.from_numpy(image).float(), 4)
    loss = sum(output.square().mean() for output in outputs)
    loss.backward()
    gradient_norms = {key: float(tensor.grad.norm()) for key, tensor in network.named_parameters()}
    return name, case, [output.detach() for output in outputs], loss.item(), gradient_norms


def test_outputs_of_all_scales(computed):
    _, case, outputs, _, _ = computed
    for level, (ours, published) in enumerate(zip(outputs, case["outputs"], strict=True)):
        step = case["output_stride"] if level < 2 else 1
        deviation = case["output_std"][level]
        assert (ours[:, :, ::step, ::step, ::step] - published).abs().max() < TOLERANCE * deviation
        assert ours.mean().item() == pytest.approx(case["output_mean"][level], abs=TOLERANCE * deviation)
        assert ours.std().item() == pytest.approx(deviation, rel=TOLERANCE)


def test_loss_and_gradient_norms(computed):
    name, case, _, loss, ours = computed
    assert loss == pytest.approx(case["loss"], rel=TOLERANCE)
    modules = pctnet.published_modules(1) if name == "pctnet" else fmunet.published_modules()
    compared = set()
    for key, norm in case["gradient_norm"].items():
        module, _, parameter = key.rpartition(".")
        if norm is None:
            assert module not in modules, f"{key} has no gradient in the published code, so ours must not have it"
            continue
        our_key = f"{modules[module]}.{parameter.replace('relative_position_bias_table', 'bias_table')}"
        # Biases before a normalization have no gradient but rounding.
        assert ours[our_key] == pytest.approx(norm, rel=2e-4, abs=2e-6 * loss), key
        compared.add(our_key)
    assert compared == set(ours)


def test_relative_position_index(load_case):
    published = load_case("pctnet")["relative_position_index"].long()
    assert torch.equal(relative_position_index(legacy=True), published)


@pytest.mark.parametrize("name", NETWORKS)
def test_released_layout_fills_the_default_network(name, make_checkpoint):
    checkpoint = make_checkpoint(f"{name}_published", 0)
    converted = convert_state_dict(name, checkpoint)
    assert len(converted.state_dict) + len(converted.dropped) == len(checkpoint)
    network = NETWORKS[name]()
    report = load_weights(network, converted.state_dict)
    assert set(report.loaded) == set(network.state_dict())
    assert not report.dropped
    assert not report.kept


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_every_resolution_mode_of_the_released_pct_net(mode, make_checkpoint):
    converted = convert_state_dict("pctnet", make_checkpoint("pctnet_published", 0), mode)
    with torch.device("meta"):
        network = PCTNet(resolution_mode=mode)
    own = {key: tensor.shape for key, tensor in network.state_dict().items()}
    assert {key: tensor.shape for key, tensor in converted.state_dict.items()} == own
    reasons = set(converted.dropped.values())
    assert len(reasons) == 4  # two other modes, the idle normalization, the index
