"""SAM computes what the authors' code computes with the same weights."""

from dataclasses import replace

import pytest
import torch

from common.networks import SamSegmenter
from common.weights import convert_state_dict, load_weights
from common.weights.sam import find_architecture

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def case(load_case):
    return load_case("sam_vit")


@pytest.fixture(scope="module")
def segmenter(case):
    state = convert_state_dict("sam", case["orig_state"]).state_dict
    # the case was made with two heads in the decoder, which shapes do not tell; all releases have eight
    network = SamSegmenter(replace(find_architecture(state), decoder_heads=2), "sam").eval()
    report = load_weights(network, state)
    assert set(report.loaded) == set(network.state_dict())
    return network


def test_embedding_logits_and_quality(case, segmenter):
    with torch.inference_mode():
        embedding = segmenter.encoder(case["x"]).last_hidden_state
        output = segmenter.sam(image_embeddings=embedding, input_boxes=case["boxes"][None], multimask_output=False)
    torch.testing.assert_close(embedding, case["embedding"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(output.pred_masks[0], case["low_res_logits"], rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(output.iou_scores[0], case["iou"], rtol=0, atol=TOLERANCE)


def test_decode_takes_faces_half_a_pixel_from_the_authors_pixel_indices(case, segmenter):
    with torch.inference_mode():
        logits = segmenter.decode(case["embedding"], case["boxes"] + 0.5, torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(logits, case["low_res_logits"], rtol=0, atol=TOLERANCE)


def test_normalization_is_that_of_sam(segmenter):
    """Gray values in [0, 255] minus the published mean, divided by the published deviation."""
    gray = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    pixels = (255 * gray - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1)
    with torch.inference_mode():
        published = segmenter.encoder(pixels).last_hidden_state
        torch.testing.assert_close(segmenter.encode(gray), published, rtol=0, atol=TOLERANCE)
