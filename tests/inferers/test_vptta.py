"""VPTTA against the slow oracle, the prompt's window and the memory."""

import math

import pytest
import torch
from monai.networks.nets import BasicUNet

from common.inferers import VPTTAInferer
from common.inferers.prompt import FrequencyWindow, PromptMemory
from tests.oracles import adaptation as oracle


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = BasicUNet(2, 3, 2, features=(4, 4, 8, 8, 8, 4), norm="batch")
    for _ in range(3):
        network(torch.rand(4, 3, 32, 32))
    return network.eval().double()


def make_images(count, size):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, *size, generator=generator, dtype=torch.float64) * torch.linspace(
        0.5, 1, count, dtype=torch.float64
    ).view(-1, 1, 1, 1)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (48, 34)])
def test_stream_equals_the_oracle(network, size, published):
    slow = oracle.VPTTAOracle(network, 0.05, 5.0, 0.16, 2, 3, published)
    fast = VPTTAInferer(
        prompt_fraction=0.16, memory_size=3, num_neighbors=2, published=published, learning_rate=0.05, warm_up=5.0
    )
    for image in make_images(7, size).split(1):
        assert torch.allclose(fast(image, network), slow(image), atol=1e-5)
        assert torch.allclose(fast.last_step.trained_prompt, slow.prompt.detach(), atol=1e-5)
        assert torch.allclose(fast.last_step.key, slow.bank[-1][0])
    assert len(fast.state_dict()["state"]["keys"]) == 3 + published == len(slow.bank)


def test_window_positions():
    cpu = torch.device("cpu")
    published = FrequencyWindow.of_image(512, 512, 0.01, published=True)
    centered = FrequencyWindow.of_image(512, 400, 0.01, published=False)
    assert published.frequencies(512, 0, cpu).tolist() == [-3, -2, -1, 0, 1]  # rows 253 to 257, the mean is at 256
    assert centered.size == (5, 5)  # 4 columns become 5
    assert centered.frequencies(512, 0, cpu).tolist() == [-2, -1, 0, 1, 2]
    assert FrequencyWindow.of_image(64, 64, 0.01, published=False).size == (1, 1)
    with pytest.raises(ValueError, match=r"window of the prompt \(5x5.* got a side of 4. Call reset"):
        centered.frequencies(4, 0, cpu)


def test_prompt_by_hand():
    window = FrequencyWindow((3, 3), published=False)
    rows, columns = torch.arange(8.0) / 8, torch.arange(10.0) / 10
    wave = torch.cos(2 * math.pi * rows)[:, None].expand(8, 10)
    fast_wave = torch.cos(2 * math.pi * 3 * columns)[None].expand(8, 10)
    image = (0.5 + 0.25 * wave + 0.125 * fast_wave)[None, None]
    low = window.read(image)
    amplitudes = window.amplitudes(low)[0] / 80
    expected = torch.zeros(3, 3)
    expected[1, 1], expected[0, 1], expected[2, 1] = 0.5, 0.125, 0.125
    assert torch.allclose(amplitudes, expected, atol=1e-6)
    prompt = torch.ones(1, 3, 3)
    assert torch.allclose(window.apply(low, prompt), image, atol=1e-6)
    prompt[0, 1, 1], prompt[0, 0, 1], prompt[0, 2, 1] = 2.0, 3.0, 3.0
    scaled = (1.0 + 0.75 * wave + 0.125 * fast_wave)[None, None]
    assert torch.allclose(window.apply(low, prompt), scaled, atol=1e-6)


def test_published_channels_are_rolled():
    window = FrequencyWindow((1, 1), published=True)
    image = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 3, 3)
    low = window.read(image.contiguous())
    assert torch.allclose(window.amplitudes(low).flatten(), torch.tensor([27.0, 9.0, 18.0]))
    changed = window.apply(low, torch.tensor([1.0, 2.0, 1.0]).view(3, 1, 1))
    assert torch.allclose(changed[0, :, 0, 0], torch.tensor([2.0, 2.0, 3.0]))


def test_memory():
    memory = PromptMemory(capacity=3, num_neighbors=2, temperature=0.2)
    keys = [torch.tensor(values).view(1, 1, 2) for values in ([1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, 0.1])]
    prompts = [torch.full((1, 1, 2), float(value)) for value in range(4)]
    memory.remember(keys[0], prompts[0])
    assert torch.equal(memory.recall(keys[1]), torch.ones(1, 1, 2))  # too few entries
    memory.remember(keys[1], prompts[1])
    memory.remember(keys[2], prompts[2])
    weights = torch.softmax(torch.tensor([1.0, math.sqrt(0.5)]) / 0.2, dim=0)  # keys 0 and 2 are nearest to key 0
    assert torch.allclose(memory.recall(3 * keys[0]), (weights[1] * 2).expand(1, 1, 2))
    memory.remember(keys[1], prompts[3])  # an equal key: overwritten in its place
    assert memory.prompts[:, 0, 0, 0].tolist() == [0, 3, 2]
    memory.remember(keys[3], prompts[1])  # full: the oldest leaves
    assert memory.prompts[:, 0, 0, 0].tolist() == [3, 2, 1]
    prompts[1].fill_(9)
    assert memory.prompts[2, 0, 0, 0] == 1  # a copy


def test_sizes_may_change_and_channels_may_not(network):
    inferer = VPTTAInferer(prompt_fraction=0.1, memory_size=3, num_neighbors=1)
    inferer(make_images(1, (40, 40)), network)
    assert inferer(make_images(1, (64, 48)), network).shape == (1, 2, 64, 48)
    assert inferer.last_step.trained_prompt.shape == (3, 5, 5)  # 4 of 40 pixels, made odd
    with pytest.raises(ValueError, match=r"must have the 3 channels of the images before them.* got 1"):
        inferer(make_images(1, (40, 40))[:, :1], network)
    assert inferer.num_images == 2


def test_only_chosen_layers_take_part(network):
    image = make_images(1, (32, 32))
    some = VPTTAInferer(adapted_prefixes=["down_", "conv_0"])
    some(image, network)
    every = VPTTAInferer()
    every(image, network)
    assert some.last_step.loss != every.last_step.loss


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps must be at least 1, got 0"),
        ({"warm_up": 0}, "warm_up and temperature must be above 0, got 0"),
        ({"prompt_fraction": 1.5}, r"prompt_fraction must be in \(0, 1\], got 1.5"),
        ({"num_neighbors": 41}, r"from 1 to memory_size \(40\), got 41"),
        ({"learning_rate": -1}, "learning_rate must be above 0"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        VPTTAInferer(**arguments)
