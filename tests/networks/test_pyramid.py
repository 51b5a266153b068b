"""What PCT-Net and FMUNet share: sizes, scales, heads, export."""

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.utils import convert_to_torchscript
from torch.nn.functional import pad

from common.networks import FMUNet, PCTNet

CHANNELS = (4, 8, 16, 32, 64)


@pytest.fixture(params=[PCTNet, FMUNet], ids=lambda network: network.__name__)
def network_class(request):
    torch.manual_seed(0)
    return request.param


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 17, 33), (16, 16, 16), (3, 48, 20)])
def test_any_size_in_eval_and_training(network_class, size, mode):
    network = network_class(feature_channels=CHANNELS, resolution_mode=mode, deep_supervision=True)
    image = torch.randn(1, 1, *size)
    scales = network.train()(image)
    strides = [[1, 1, 1]]
    for level in range(3):
        depth_stride = 1 if level < mode else 2
        strides.append([strides[-1][0] * depth_stride, 2 * strides[-1][1], 2 * strides[-1][2]])
    for logits, stride in zip(scales, strides, strict=True):
        expected = tuple(-(-extent // step) for extent, step in zip(size, stride, strict=True))
        assert logits.shape == (1, 5, *expected)
        assert logits.isfinite().all()
    sum(logits.sum() for logits in scales).backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    logits = network.eval()(image)
    assert logits.shape == (1, 5, *size)
    assert logits.isfinite().all()


def test_padding_repeats_the_far_border(network_class):
    network = network_class(feature_channels=CHANNELS, resolution_mode=1).eval()
    image = torch.randn(1, 1, 13, 18, 33)
    with torch.no_grad():
        by_hand = network(pad(image, (0, 15, 0, 14, 0, 3), mode="replicate"))[:, :, :13, :18, :33]
        torch.testing.assert_close(network(image), by_hand)


def test_a_single_coarse_voxel_is_avoided(network_class):
    network = network_class(feature_channels=CHANNELS, resolution_mode=0)
    assert network.pad(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 1, 32, 32, 32)
    assert network.pad(torch.zeros(1, 1, 16, 16, 17)).shape == (1, 1, 16, 16, 32)


def test_a_batch_equals_its_samples(network_class):
    network = network_class(feature_channels=CHANNELS).eval()
    images = torch.randn(3, 1, 16, 40, 48)
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-3 * alone.std()


def test_training_is_determined_by_the_seed(network_class):
    network = network_class(feature_channels=CHANNELS).train()
    image = torch.randn(2, 1, 16, 32, 32)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(network(image).detach())
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_one_tensor_unless_deep_supervision_in_training(network_class):
    network = network_class(feature_channels=CHANNELS, deep_supervision=False)
    image = torch.randn(1, 1, 16, 32, 32)
    calls = []
    for level, head in enumerate(network.heads):
        head.register_forward_hook(lambda *_, level=level: calls.append(level))
    assert isinstance(network.train()(image), torch.Tensor)
    assert isinstance(network.eval()(image), torch.Tensor)
    assert calls == [0, 0]
    network.deep_supervision = True
    assert isinstance(network(image), torch.Tensor)
    assert len(network.train()(image)) == 4


def test_one_state_dict_with_and_without_deep_supervision(network_class):
    supervised, plain = (network_class(feature_channels=CHANNELS, deep_supervision=flag) for flag in (True, False))
    assert list(supervised.state_dict()) == list(plain.state_dict())


def test_what_depends_on_the_classes_is_under_heads(network_class):
    networks = (network_class(out_channels=number, feature_channels=CHANNELS) for number in (5, 2))
    five, two = ({key: tensor.shape for key, tensor in network.state_dict().items()} for network in networks)
    differing = {key for key in five if five[key] != two[key]}
    assert differing == {f"heads.{level}.conv.{name}" for level in range(4) for name in ("weight", "bias")}
    assert five.keys() == two.keys()


def test_top_level_names(network_class):
    names = {key.partition(".")[0] for key in network_class(feature_channels=CHANNELS).state_dict()}
    assert names == {"project", "encoder", "down", "decoder", "up", "heads"}


def test_torchscript_of_another_size(network_class, tmp_path):
    network = network_class(feature_channels=CHANNELS, deep_supervision=True).eval()
    with torch.no_grad():
        network(torch.randn(1, 1, 16, 32, 32))  # something in the caches
        image = torch.randn(1, 1, 19, 40, 33)
        script = convert_to_torchscript(network, filename_or_obj=tmp_path / "network.ts", inputs=[image], verify=True)
        other = torch.randn(2, 1, 60, 17, 112)
        torch.testing.assert_close(script(other), network(other))
        loaded = torch.jit.load(tmp_path / "network.ts")
        torch.testing.assert_close(loaded(other), network(other))
    assert len(script.train()(image)) == 4


@pytest.mark.slow
def test_torch_export_with_dynamic_sizes(network_class):
    network = network_class(feature_channels=CHANNELS).eval()
    image = torch.randn(1, 1, 19, 40, 33)
    auto = torch.export.Dim.AUTO
    with torch.no_grad():
        program = torch.export.export(network, (image,), dynamic_shapes=({2: auto, 3: auto, 4: auto},))
        torch.testing.assert_close(program.module()(image), network(image))


def test_autocast(network_class):
    # Forward only: on a CPU, PyTorch 2.13 gives a bfloat16 convolution over fewer slices than its kernel a weight
    # gradient of uninitialized memory.
    network = network_class(feature_channels=CHANNELS, deep_supervision=True)
    image = torch.randn(2, 1, 16, 112, 112)
    with torch.no_grad():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scales = network.train()(image)
            half = network.eval()(image)
        full = network(image)
    assert {logits.dtype for logits in scales} == {torch.bfloat16}
    assert all(logits.isfinite().all() for logits in scales)
    assert (half.float() - full).abs().mean() < 0.05 * full.std()


def test_meta_tensor_keeps_its_affine(network_class):
    network = network_class(feature_channels=CHANNELS).eval()
    image = MetaTensor(torch.randn(1, 1, 16, 32, 32), affine=torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0])))
    with torch.no_grad():
        logits = network(image)
        torch.testing.assert_close(logits.as_tensor(), network(image.as_tensor()))
    assert torch.equal(logits.affine, image.affine)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0}, "in_channels and out_channels must be at least 1, got 0 and 5"),
        ({"out_channels": 0}, "in_channels and out_channels must be at least 1, got 1 and 0"),
        ({"feature_channels": (8, 16, 32)}, r"feature_channels must be 5 positive numbers.*got \(8, 16, 32\)"),
        ({"resolution_mode": 3}, "resolution_mode must be 0 .* got 3"),
        ({"dropout": (0.0, 0.0, 0.2, 0.2)}, r"dropout must be 5 probabilities.*got \(0.0, 0.0, 0.2, 0.2\)"),
        ({"dropout": (0.0, 0.0, 0.2, 0.2, 1.0)}, "dropout must be 5 probabilities"),
    ],
)
def test_constructor_refuses(network_class, arguments, message):
    with pytest.raises(ValueError, match=f"{network_class.__name__}: {message}"):
        network_class(**arguments)


@pytest.mark.parametrize("shape", [(1, 32, 32, 32), (1, 1, 0, 32, 32)])
def test_forward_refuses(network_class, shape):
    network = network_class(feature_channels=CHANNELS)
    with pytest.raises(ValueError, match=rf"image must have shape \(B, C, D, H, W\).*got .*{shape[-3]}"):
        network(torch.zeros(shape))
