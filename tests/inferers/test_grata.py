"""GraTa against the slow oracle, and the strong view."""

import math

import pytest
import torch
from monai.networks.nets import BasicUNet

from common.inferers import GraTaInferer, StrongView
from common.inferers.grata import WEAK_VIEWS, cosine_of, published_entropy
from common.inferers.strong_view import change_contrast, change_gamma_of_negative
from tests.oracles import adaptation as oracle


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return BasicUNet(2, 3, 2, features=(4, 4, 8, 8, 8, 4), norm="batch").eval().double()


@pytest.mark.parametrize("size", [(32, 32), (48, 32)])
def test_stream_equals_the_oracle(network, size):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, *size, generator=generator, dtype=torch.float64)
    images = (images - images.amin((1, 2, 3), keepdim=True)) / (
        images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)
    )
    views = images**1.5 + 0.1
    slow = oracle.GraTaOracle(network, learning_rate=1e-3)
    given = iter(views)
    fast = GraTaInferer(learning_rate=1e-3, strong_view=lambda _image, _generator: next(given))
    for image, view in zip(images.split(1), views.split(1), strict=True):
        assert torch.allclose(fast(image, network), slow(image, view), atol=1e-7)
        assert fast.last_step.cosine == pytest.approx(slow.cosine, abs=1e-6)


def test_every_view_is_turned_back():
    image = torch.rand(1, 2, 3, 5)
    turned = [view(image) for view, _ in WEAK_VIEWS]
    assert all(torch.equal(back(view), image) for view, (_, back) in zip(turned, WEAK_VIEWS, strict=True))
    assert len({tuple(view.flatten().tolist()) for view in turned}) == 6


def test_entropy_and_cosine_by_hand():
    logits = torch.tensor([0.0, math.log(3.0)]).view(1, 2, 1, 1)
    assert published_entropy(logits).item() == pytest.approx(-0.5 * math.log(0.5) - 0.75 * math.log(0.75), abs=1e-5)
    first, second = [torch.tensor([3.0]), torch.tensor([4.0]), None], [torch.tensor([3.0]), torch.tensor([-4.0]), None]
    assert cosine_of(first, first).item() == pytest.approx(1)
    assert cosine_of(first, second).item() == pytest.approx(-7 / 25)
    assert cosine_of([torch.zeros(2)], [torch.zeros(2)]).item() == 0


def test_strong_view_is_seeded_and_leaves_the_image_alone():
    image = torch.rand(3, 24, 32)
    before = image.clone()
    views = [StrongView()(image, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert torch.equal(image, before)
    assert all(torch.isfinite(view).all() and view.shape == image.shape for view in views)


def test_strong_view_of_a_flat_channel_has_no_nan():
    image = torch.zeros(3, 16, 16)
    image[0, 0, 0] = 1
    generator = torch.Generator().manual_seed(0)
    assert all(torch.isfinite(StrongView()(image, generator)).all() for _ in range(20))


def test_how_often_the_strong_view_changes_an_image():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 16, 16, generator=generator)
    unchanged = sum(torch.allclose(StrongView()(image, generator), image, atol=1e-6) for _ in range(2000))
    # brightness, contrast, gamma 1/4 each; noise 1/2; blur 1 - 1/2 * 1/2
    assert unchanged / 2000 == pytest.approx(0.25**3 * 0.5 * 0.75, abs=0.005)


def test_contrast_and_gamma_by_hand():
    image = torch.tensor([[[0.0, 0.5], [0.5, 1.0]]])
    assert torch.allclose(change_contrast(image, torch.tensor([[[0.5]]])), 0.5 * image + 0.25)
    assert torch.allclose(change_contrast(image, torch.tensor([[[1.5]]])), image)  # 1.25 and -0.25 are clipped
    squared = change_gamma_of_negative(image, 2.0)
    assert torch.allclose(squared, torch.tensor([[[0.0, 0.75], [0.75, 1.0]]]), atol=1e-6)


def test_strong_view_comes_in_the_range_of_the_image(network):
    seen = []

    def double(image, _generator):
        seen.append(image)
        return 2 * image + 1

    inferer = GraTaInferer(strong_view=double)
    image = 4 * torch.rand(1, 3, 32, 32, dtype=torch.float64) - 2
    inferer(image, network)
    assert (seen[0].min(), seen[0].max()) == (0, 1)
    assert torch.allclose(inferer._strong(image), image)
