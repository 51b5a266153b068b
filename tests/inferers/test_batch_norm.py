"""The swapped layers against PyTorch's own, and the two baselines built on them."""

import copy
import math

import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from common.inferers import BatchNormStatisticsInferer, TENTInferer
from common.inferers.batch_norm import ImageBatchNorm2d, replace_batch_norms
from common.inferers.tent import bernoulli_entropy
from common.inferers.warm_up import WarmUpBatchNorm2d


@pytest.fixture
def norm():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5)
    with torch.no_grad():
        for tensor in (norm.weight, norm.running_var):
            tensor.uniform_(0.5, 2)
        for tensor in (norm.bias, norm.running_mean):
            tensor.normal_()
    return norm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_image_statistics_are_those_of_training_at_batch_size_one(norm, layout):
    features = torch.randn(3, 5, 6, 7).contiguous(memory_format=layout)
    layer = ImageBatchNorm2d(norm, "norm")
    trained = copy.deepcopy(norm).train()
    expected = torch.cat([trained(image) for image in features.split(1)])
    assert torch.allclose(layer(features), expected, atol=1e-6)
    layer.source_weight = 1.0
    assert torch.allclose(layer(features), norm.eval()(features), atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mixture_by_hand(layout):
    norm = nn.BatchNorm2d(1, affine=False)
    norm.running_mean.fill_(4.0)
    norm.running_var.fill_(9.0)
    layer = ImageBatchNorm2d(norm, "norm")
    layer.source_weight = 0.25
    features = torch.tensor([[[[0.0, 2.0], [4.0, 2.0]]]]).contiguous(memory_format=layout)
    # mean 0.75 * 2 + 0.25 * 4 = 2.5; unbiased variance 0.75 * 8 / 3 + 0.25 * 9 = 4.25
    expected = (features - 2.5) / math.sqrt(4.25 + 1e-5)
    assert torch.allclose(layer(features), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_warm_up_layer_has_the_gradient_that_autograd_finds(norm, dtype):
    norm = norm.to(dtype)
    layer = WarmUpBatchNorm2d(norm, "norm")
    layer.source_weight = 0.3
    features = torch.randn(1, 5, 6, 7, dtype=dtype)
    gradient = torch.randn(1, 5, 6, 7, dtype=dtype)
    results = []
    for own in (True, False):
        x = features.clone().requires_grad_(True)
        if own:
            layer.distances = []
            normalized, distance = layer(x), layer.distances[0]
        else:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True)
            mixed_mean = 0.7 * mean.detach() + 0.3 * norm.running_mean
            mixed_variance = 0.7 * variance.detach() + 0.3 * norm.running_var
            distance = (mixed_mean - mean).abs().mean() + (mixed_variance.sqrt() - variance.sqrt()).abs().mean()
            scaled = (x - mixed_mean[:, None, None]) / (mixed_variance[:, None, None] + norm.eps).sqrt()
            normalized = scaled * norm.weight[:, None, None] + norm.bias[:, None, None]
        loss = (normalized * gradient).sum() + 2.5 * distance
        results.append((normalized, distance, *torch.autograd.grad(loss, x)))
    for ours, expected in zip(*results, strict=True):
        assert torch.allclose(ours, expected, atol=1e-5)


def test_warm_up_layer_of_constant_features_has_no_nan(norm):
    layer = WarmUpBatchNorm2d(norm, "norm")
    layer.distances = []
    features = torch.zeros(1, 5, 4, 4, requires_grad=True)
    normalized = layer(features)
    (gradient,) = torch.autograd.grad(normalized.sum() + layer.distances[0], features)
    assert torch.isfinite(gradient).all()


def test_shared_layers_are_swapped_once_and_prefixes_choose():
    norm = nn.BatchNorm2d(3)
    network = nn.ModuleDict({"a": nn.Sequential(norm, norm), "b": nn.BatchNorm2d(3), "c": nn.Conv2d(3, 3, 1)})
    layers = replace_batch_norms(network, ImageBatchNorm2d, ["a."])
    assert [layer.name for layer in layers] == ["a.0"]
    assert network["a"][0] is network["a"][1] is layers[0]
    assert isinstance(network["b"], nn.BatchNorm2d)
    with pytest.raises(ValueError, match=r"running statistics under 'z.' to adapt"):
        replace_batch_norms(network, ImageBatchNorm2d, ["z."])


def make_network():
    torch.manual_seed(0)
    return BasicUNet(2, 3, 2, features=(4, 4, 8, 8, 8, 4), norm="batch").eval()


@torch.no_grad()
def test_batch_norm_statistics_inferer():
    network, image = make_network(), torch.rand(1, 3, 32, 48)
    trained = copy.deepcopy(network).train()
    assert torch.allclose(BatchNormStatisticsInferer()(image, network), trained(image), atol=1e-5)
    assert torch.allclose(BatchNormStatisticsInferer(source_weight=1.0)(image, network), network(image), atol=1e-5)
    with pytest.raises(ValueError, match=r"source_weight must be in \[0, 1\], got 2"):
        BatchNormStatisticsInferer(source_weight=2)


def test_entropy_by_hand():
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1)
    expected = math.log(2) - 0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert bernoulli_entropy(logits).item() == pytest.approx(expected)
    assert bernoulli_entropy(torch.full((1, 1, 2, 2), 200.0)).item() == 0.0


def test_tent_is_adam_on_the_entropy():
    network = make_network()
    images = torch.rand(3, 3, 32, 48)
    plain = copy.deepcopy(network).train()
    parameters = [p for module in plain.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    inferer = TENTInferer(learning_rate=1e-2)
    entropies = []
    for image in images.repeat(4, 1, 1, 1).split(1):
        logits = plain(image)
        optimizer.zero_grad()
        loss = bernoulli_entropy(logits)
        loss.backward()
        optimizer.step()
        assert torch.allclose(inferer(image, network), logits, atol=2e-4)
        entropies.append(loss.item())
    assert entropies[-1] < entropies[0]


def test_networks_without_weights_to_train():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4, affine=False), nn.Conv2d(4, 2, 1))
    with pytest.raises(ValueError, match="weight and bias to train; those of Sequential have affine=False"):
        TENTInferer()(torch.rand(1, 3, 8, 8), network)
    assert BatchNormStatisticsInferer()(torch.rand(1, 3, 8, 8), network).shape == (1, 2, 8, 8)


def test_adam_settings_are_checked():
    with pytest.raises(ValueError, match="learning_rate must be above 0, got 0"):
        TENTInferer(learning_rate=0)
    with pytest.raises(ValueError, match=r"betas must be two numbers in \[0, 1\)"):
        TENTInferer(betas=(0.9, 1.0))
