"""SAM behind the promptable interface."""

import builtins
import math

import pytest
import torch

from common.networks import SamSegmenter
from common.networks.promptable import VARIANTS, SamArchitecture, resize_slices


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return SamSegmenter("tiny").eval()


BOXES = torch.tensor([[10.0, 20, 60, 70], [0, 0, 128, 128], [100, 5, 120, 30]])


@torch.inference_mode()
def test_shapes(segmenter):
    embedding = segmenter.encode(torch.rand(2, 1, 50, 37))
    assert embedding.shape == (2, 64, 16, 16)
    assert segmenter.decode(embedding, BOXES, torch.tensor([0, 1, 1])).shape == (3, 1, 64, 64)
    assert segmenter.logits_size == 64
    assert segmenter(torch.rand(2, 1, 50, 37)).shape == (2, 1, 64, 64)


@torch.inference_mode()
def test_a_batch_equals_its_slices_and_boxes(segmenter):
    slices = torch.rand(2, 1, 40, 60)
    index = torch.tensor([0, 1, 1])
    together = segmenter(slices, BOXES, index)
    for number in range(3):
        alone = segmenter(slices[index[number]][None], BOXES[number][None])
        torch.testing.assert_close(together[number], alone[0], rtol=0, atol=1e-5)


@torch.inference_mode()
def test_boxes_are_clipped_to_the_slice(segmenter):
    embedding = segmenter.encode(torch.rand(1, 1, 64, 64))
    inside, outside = torch.tensor([[0.0, 0, 128, 90]]), torch.tensor([[-30.0, -1, 400, 90]])
    torch.testing.assert_close(segmenter.decode(embedding, inside), segmenter.decode(embedding, outside))


def test_preprocessing_of_medsam_leaves_gray_values_as_they_are(segmenter):
    slices = torch.rand(1, 1, 128, 128)
    with torch.inference_mode():
        expected = segmenter.encoder(slices.expand(1, 3, 128, 128)).last_hidden_state
        torch.testing.assert_close(segmenter.encode(slices), expected)


def test_resizing_keeps_gray_values_and_their_range():
    slices = torch.full((1, 1, 30, 50), 0.3)
    torch.testing.assert_close(resize_slices(slices, 64), torch.full((1, 1, 64, 64), 0.3))
    edge = torch.zeros(1, 1, 32, 32)
    edge[..., 16:] = 1
    resized = resize_slices(edge, 128)
    assert (resized.min(), resized.max()) == (0, 1)  # cubic interpolation would overshoot


def test_frozen_encoder(segmenter):
    chosen = segmenter.trainable_parameters(train_encoder=False)
    assert sum(p.numel() for p in chosen) == sum(p.numel() for p in segmenter.sam.mask_decoder.parameters())
    assert not any(p.requires_grad for p in segmenter.encoder.parameters())
    everything = segmenter.trainable_parameters(train_encoder=True)
    assert len(everything) > len(chosen)
    assert not segmenter.sam.shared_image_embedding.positional_embedding.requires_grad


def test_gradients_reach_the_encoder_only_where_it_is_trained(segmenter):
    embedding = torch.rand(1, 64, 16, 16, requires_grad=True)
    segmenter.trainable_parameters(train_encoder=True)
    segmenter(torch.rand(1, 1, 32, 32), BOXES[:1]).sum().backward()
    assert next(segmenter.encoder.parameters()).grad is not None
    segmenter.zero_grad()
    segmenter(torch.rand(1, 1, 32, 32), BOXES[:1], embedding=embedding).sum().backward()
    assert next(segmenter.encoder.parameters()).grad is None
    segmenter.zero_grad()


def test_fingerprint_tells_weights_apart(segmenter):
    torch.manual_seed(1)
    other = SamSegmenter("tiny")
    assert segmenter.encoder_fingerprint() == segmenter.encoder_fingerprint()
    assert segmenter.encoder_fingerprint() != other.encoder_fingerprint()


@pytest.mark.parametrize(("variant", "millions"), [("vit_b", 93.735472), ("vit_l", 312.342832), ("vit_h", 641.090608)])
def test_published_sizes(variant, millions):
    """The numbers of parameters of the authors' models; transformers keeps the matrix of the positions twice."""
    with torch.device("meta"):
        network = SamSegmenter(variant)
    parameters = {id(p): p.numel() for p in network.state_dict(keep_vars=True).values()}
    positions = network.sam.shared_image_embedding.positional_embedding.numel()
    assert math.isclose(sum(parameters.values()) / 1e6, millions, abs_tol=2 * positions / 1e6)


class TestRefusals:
    def test_arguments(self):
        with pytest.raises(ValueError, match="preprocess must be one of sam, medsam, got 'vit'"):
            SamSegmenter("tiny", "vit")
        with pytest.raises(ValueError, match="architecture must be one of vit_b, vit_l, vit_h, tiny"):
            SamSegmenter("vit_t")
        with pytest.raises(ValueError, match="image_size of a SAM network must be a multiple of 16, got 100"):
            SamSegmenter(SamArchitecture(image_size=100))
        with pytest.raises(ValueError, match="embedding_channels of a SAM network must be a multiple of 16, got 40"):
            SamSegmenter({**vars(VARIANTS["tiny"]), "embedding_channels": 40})

    def test_inputs(self, segmenter):
        with pytest.raises(ValueError, match=r"slices must have shape \(B, 1, H, W\), got \(3, 64, 64\)"):
            segmenter.encode(torch.rand(3, 64, 64))
        embedding = torch.rand(2, 64, 16, 16)
        with pytest.raises(ValueError, match=r"boxes must have shape \(N, 4\).*got \(3, 2\)"):
            segmenter.decode(embedding, torch.rand(3, 2))
        with pytest.raises(ValueError, match=r"one box a slice.*got 3 boxes for 2 slices"):
            segmenter.decode(embedding, BOXES)

    def test_missing_transformers(self, monkeypatch):
        real = builtins.__import__

        def without_transformers(name, *args, **kwargs):
            if name == "transformers":
                raise ImportError(name)
            return real(name, *args, **kwargs)

        monkeypatch.setattr(builtins, "__import__", without_transformers)
        with pytest.raises(ImportError, match=r"SAM needs the package transformers.*pip install 'transformers>=5,<6'"):
            SamSegmenter("tiny")
