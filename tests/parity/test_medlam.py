"""MedLAM and its losses compute what the authors' code computes with the same weights."""

import numpy as np
import pytest
import torch

from common.losses import MultiScaleSimilarityLoss, PairedPatchLoss, RelativeDistanceLoss
from common.losses.relative_distance import offset_mm
from common.networks import MedLAM, PairedMedLAM
from common.weights import convert_state_dict, load_weights

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def make_network(make_checkpoint):
    def make(seed):
        network = MedLAM(base_channels=6, patch_size=(32, 32, 32))
        load_weights(network, convert_state_dict("medlam", make_checkpoint("medlam_small", seed)).state_dict)
        return network.eval()

    return make


def test_position_and_features(load_case, make_network):
    case = load_case("medlam")
    network = make_network(case["seed"])
    shape = (case["batch"], 1, *case["patch_size"])
    image = torch.from_numpy(np.random.RandomState(case["seed"]).random_sample(shape)).float()
    with torch.no_grad():
        encoded = network.encode(image)
        ours = {"fc_position": network(image)}
        ours |= {f"feature{scale}": features for scale, features in enumerate(network.decode(encoded))}
    for name, tensor in ours.items():
        published, deviation = case["outputs"][name], case["outputs"][f"{name}_std"]
        step = [ours_size // size for ours_size, size in zip(tensor.shape[2:], published.shape[2:], strict=True)]
        strided = tensor[(..., *[slice(None, None, s) for s in step])]
        assert (strided - published).abs().max() < TOLERANCE * deviation, name
        assert tensor.mean().item() == pytest.approx(case["outputs"][f"{name}_mean"], abs=TOLERANCE * deviation)
        assert tensor.std().item() == pytest.approx(deviation, rel=TOLERANCE)


def test_released_layout_fills_the_default_network(make_checkpoint):
    checkpoint = make_checkpoint("medlam_published", 0)
    converted = convert_state_dict("medlam", checkpoint)
    assert set(converted.dropped) == {"classification.0.weight", "classification.0.bias"}
    assert len(converted.state_dict) + len(converted.dropped) == len(checkpoint)
    network = MedLAM()
    report = load_weights(network, converted.state_dict)
    assert set(report.loaded) == set(network.state_dict())
    assert sum(p.numel() for p in network.parameters()) == 15_067_878 - 291  # without the unused classification


def test_training_loss(load_case, make_network):
    case = load_case("medlam_loss")
    images = np.random.RandomState(case["seed"]).random_sample((4, 2, 1, 32, 32, 32))
    grid = 3.0 * torch.stack(torch.meshgrid(*[torch.arange(32.0)] * 3, indexing="ij")).expand(2, -1, -1, -1, -1)
    offset = case["offset_mm"]
    far = offset[..., None, None, None]
    points = case["points"].movedim(1, 0)
    target = {
        "center_mm": torch.cat([case["label_mm"][None], torch.zeros(3, 2, 3)]),
        "points": points,
        "points_mm": torch.stack([3.0 * points[0].expand(2, -1, -1), 3.0 * points[1] + offset[:, None]]),
        "coordinates_mm": torch.stack([grid + 1.5, grid + far - 2.0]),
    }
    with torch.no_grad():
        prediction = PairedMedLAM(make_network(case["seed"]))(torch.from_numpy(images).float())
    predicted_mm = offset_mm(*prediction["position"][:2])
    torch.testing.assert_close(predicted_mm, case["predicted_mm"], rtol=1e-5, atol=1e-2)
    loss = PairedPatchLoss(RelativeDistanceLoss(), MultiScaleSimilarityLoss())
    assert loss(prediction, target).item() == pytest.approx(case["total"], rel=1e-5)
    loss.distance_weight = 0.0
    assert loss(prediction, target).item() == pytest.approx(case["multi_scale_similarity"], rel=1e-5)
