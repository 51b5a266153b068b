"""What all adaptations promise: the caller's network, the stream, state, refusals. Two MONAI networks, not square."""

import inspect
import io
import logging

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.networks.nets import BasicUNet, UNet

from common.inferers import (
    BatchNormStatisticsInferer,
    GraTaInferer,
    NoAdaptationInferer,
    TENTInferer,
    VPTTAInferer,
)

METHODS = {
    "none": NoAdaptationInferer,
    "batch_norm": BatchNormStatisticsInferer,
    "tent": TENTInferer,
    "vptta": lambda: VPTTAInferer(memory_size=3, num_neighbors=2, prompt_fraction=0.1),
    "grata": lambda: GraTaInferer(learning_rate=1e-2),
}
ADAPTING = ["batch_norm", "tent", "vptta", "grata"]
STATEFUL = ["tent", "vptta", "grata"]
NETWORKS = {
    "BasicUNet": lambda: BasicUNet(2, 3, 2, features=(4, 4, 8, 8, 8, 4), norm="batch"),
    "UNet": lambda: UNet(2, 3, 2, channels=(4, 8, 8), strides=(2, 2), num_res_units=1, norm="batch"),
}


def make_network(name="BasicUNet"):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for _ in range(3):  # running statistics that are not 0 and 1
        network(torch.rand(4, 3, 32, 32))
    return network.eval()


def make_images(count, size=(32, 48)):
    generator = torch.Generator().manual_seed(1)
    return 0.6 * torch.rand(count, 3, *size, generator=generator) + 0.3 * torch.rand(
        count, 3, 1, 1, generator=generator
    )


@pytest.mark.parametrize("network_name", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_network_of_the_caller_stays_as_it_is(method, network_name):
    network = make_network(network_name).train()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    logits = METHODS[method]()(make_images(2), network)
    assert logits.shape == (2, 2, 32, 48)
    assert torch.isfinite(logits).all()
    assert not logits.requires_grad
    assert network.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_batch_equals_its_images_one_by_one(method):
    network, images = make_network(), make_images(4)
    one_by_one = METHODS[method]()
    expected = torch.cat([one_by_one(image, network) for image in images.split(1)])
    assert torch.allclose(METHODS[method]()(images, network), expected, atol=1e-5)
    assert one_by_one.num_images == 4


@pytest.mark.parametrize("method", STATEFUL)
def test_the_stream_leaves_a_trace_and_reset_takes_it_back(method):
    network, images = make_network(), make_images(4)
    inferer = METHODS[method]()
    first = inferer(images, network)
    second = inferer(images, network)
    assert not torch.allclose(first, second, atol=1e-5)
    inferer.reset()
    assert inferer.num_images == 0
    assert torch.equal(inferer(images, network), first)


@pytest.mark.parametrize("method", METHODS)
def test_a_stream_goes_on_from_a_saved_state(method):
    network, images = make_network(), make_images(6)
    inferer = METHODS[method]()
    inferer(images[:4], network)
    file = io.BytesIO()
    torch.save(inferer.state_dict(), file)
    expected = inferer(images[4:], network)
    file.seek(0)
    resumed = METHODS[method]()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.state_dict()["num_images"] == 4  # also before the network is known
    assert torch.equal(resumed(images[4:], network), expected)


def test_a_state_is_a_copy_and_belongs_to_its_method():
    network, images = make_network(), make_images(2)
    inferer = METHODS["vptta"]()
    inferer(images[:1], network)
    state = inferer.state_dict()
    keys = state["state"]["keys"].clone()
    inferer(images[1:], network)
    assert torch.equal(state["state"]["keys"], keys)
    with pytest.raises(ValueError, match=r"TENTInferer.state_dict.* of 'VPTTAInferer'"):
        TENTInferer().load_state_dict(state)
    tent = TENTInferer()
    tent(images, network)
    other = TENTInferer()
    other.load_state_dict(tent.state_dict())
    with pytest.raises(ValueError, match="under other names"):
        other(images, make_network("UNet"))


@pytest.mark.parametrize("method", ADAPTING)
def test_channels_last_changes_rounding_only(method):
    network, images = make_network(), make_images(1)
    expected = METHODS[method]()(images, network)
    inferer = METHODS[method]()
    inferer.channels_last, inferer._memory_format = False, torch.contiguous_format
    assert torch.allclose(inferer(images, network), expected, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_no_signature_takes_a_label(method):
    inferer, network, images = METHODS[method](), make_network(), make_images(1)
    label = torch.zeros(1, 2, 32, 48)
    assert list(inspect.signature(type(inferer).__call__).parameters) == ["self", "inputs", "network"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'label'"):
        inferer(images, network, label=label)
    with pytest.raises(TypeError, match="positional arguments"):
        inferer(images, network, label)
    with pytest.raises(TypeError, match="takes images only: no dictionary, no label"):
        inferer({"image": images, "label": label}, network)
    with pytest.raises(ValueError, match=r"floating point, got torch.int64.*is this a label"):
        inferer(label.long(), network)


@pytest.mark.parametrize("method", METHODS)
def test_bad_images_are_refused_before_they_touch_the_state(method):
    inferer, network, images = METHODS[method](), make_network(), make_images(2)
    spoilt = images.clone()
    spoilt[1, 0, 3, 4] = float("nan")
    with pytest.raises(ValueError, match="1 of 9216 values are NaN or infinite"):
        inferer(spoilt, network)
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\).*\(3, 32, 48\)"):
        inferer(images[0], network)
    assert inferer.num_images == 0


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_image_is_predicted_as_given_and_leaves_the_state(method, caplog):
    network, images = make_network(), make_images(3)
    expected = METHODS[method]()(images, network)
    inferer = METHODS[method]()
    inferer(images[:1], network)
    state = str(inferer.state_dict()["state"])
    with caplog.at_level(logging.WARNING):
        constant = inferer(torch.zeros(1, 3, 32, 48), network)
    assert "Image 2 of the stream is constant" in caplog.text
    with torch.no_grad():
        assert torch.equal(constant, network(torch.zeros(1, 3, 32, 48)))
    assert str(inferer.state_dict()["state"]) == state
    assert torch.allclose(inferer(images[1:], network), expected[1:], atol=1e-6)


@pytest.mark.parametrize("method", ADAPTING)
def test_networks_and_sizes_that_cannot_adapt_are_refused(method):
    inferer = METHODS[method]()
    with pytest.raises(ValueError, match=r"must have BatchNorm2d layers with running statistics.* BasicUNet has none"):
        inferer(make_images(1), BasicUNet(2, 3, 2, features=(4, 4, 8, 8, 8, 4), norm="instance"))
    network = make_network()
    with pytest.raises(ValueError, match=r"BatchNorm layer 'down_4.*\(1, 8, 1, 1\)\), which has no variance"):
        inferer(make_images(1, (16, 16)), network)
    inferer.reset()
    inferer(make_images(1), network)
    with pytest.raises(ValueError, match=r"got another network now. Call reset"):
        inferer(make_images(1), make_network())


@pytest.mark.parametrize("method", METHODS)
def test_in_a_stock_evaluator_and_in_inference_mode(method):
    network, images = make_network(), make_images(2)
    expected = METHODS[method]()(images, network)
    outputs = []
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        [{"image": image} for image in images.split(1)],
        network,
        inferer=METHODS[method](),
        decollate=False,
        postprocessing=lambda data: outputs.append(data["pred"]) or data,
    )
    evaluator.run()
    assert torch.allclose(torch.cat(outputs), expected, atol=1e-6)
    with torch.inference_mode():
        assert torch.allclose(METHODS[method]()(images + 0, network), expected, atol=1e-6)


def test_metadata_of_the_images_is_kept():
    images = MetaTensor(make_images(1), meta={"filename_or_obj": "a.png"})
    logits = NoAdaptationInferer()(images, make_network())
    assert isinstance(logits, MetaTensor)
    assert logits.meta["filename_or_obj"] == "a.png"
    assert type(NoAdaptationInferer()(make_images(1), make_network())) is torch.Tensor


def test_state_does_not_grow_with_the_stream():
    network, images = make_network(), make_images(12)
    for method in STATEFUL:
        inferer, sizes = METHODS[method](), []
        for image in images.split(1):
            inferer(image, network)
            file = io.BytesIO()
            torch.save(inferer.state_dict(), file)
            sizes.append(file.tell())
        assert max(sizes[4:]) - min(sizes[4:]) <= 64, method
