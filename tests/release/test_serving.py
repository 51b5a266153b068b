"""What MONAI Label and MONAI Deploy read of a bundle is there, and does what they expect (docs/serving.md)."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from monai.data import decollate_batch, list_data_collate
from monai.transforms import LoadImaged, SaveImaged

from common.data.phantoms import write_heart_phantoms, write_torso_phantoms
from tests.release.conftest import BUNDLES

# MONAI Label 0.8.5, monailabel/tasks/infer/bundle.py; MONAI Deploy App SDK 4.0.0,
# monai/deploy/operators/monai_bundle_inference_operator.py.
INFERENCE_IDS = ("bundle_root", "device", "network_def", "network", "preprocessing", "inferer", "postprocessing")
# Bundles that docs/serving.md calls servable, and how to make them small.
SERVED = {
    "volume_fusion": (
        write_torso_phantoms,
        {"spacing_mm": 10.0, "field_of_view": "abdomen"},
        {
            "roi_size": [16, 32, 32],
            "feature_channels": [8, 8, 16, 16, 32],
            "network_def": {
                "_target_": "common.networks.FMUNet",
                "out_channels": "@num_classes",
                "feature_channels": "@feature_channels",
                "resolution_mode": "@resolution_mode",
            },
        },
    ),
    "maco": (
        write_heart_phantoms,
        {"image_size": 64, "spacing_mm": 3.0},
        {"roi_size": [64, 64], "features": [8, 8, 16, 16, 16, 8]},
    ),
}


def read(bundle, name):
    parser = ConfigParser()
    parser.read_config(str(BUNDLES[bundle] / "configs" / name))
    parser.config["bundle_root"] = str(BUNDLES[bundle])
    return parser


@pytest.mark.parametrize("bundle", sorted(BUNDLES))
class TestIds:
    def test_inference(self, bundle):
        parser = read(bundle, "inference.json")
        assert [name for name in INFERENCE_IDS if parser.get(name) is None] == []

    def test_metadata(self, bundle):
        metadata = json.loads((BUNDLES[bundle] / "configs" / "metadata.json").read_text())
        formats = metadata["network_data_format"]
        assert next(iter(formats["inputs"])) == "image"
        assert next(iter(formats["outputs"])) == "pred"
        channels = formats["outputs"]["pred"]["channel_def"]
        assert sorted(int(key) for key in channels) == list(range(len(channels)))
        assert metadata["description"]
        assert metadata["version"]


@pytest.mark.parametrize("bundle", sorted(SERVED))
def test_an_image_alone_goes_through_as_they_do_it(bundle, tmp_path):
    """Loading, preprocessing, inferer, postprocessing without `SaveImaged`: a label map in the image's geometry."""
    write, options, small = SERVED[bundle]
    write(tmp_path, 2, num_validation=0, num_test=1, **options)
    path = next((tmp_path / "imagesTs").iterdir())
    parser = read(bundle, "inference.json")
    parser.config.update({**small, "device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    preprocessing = parser.get_parsed_content("preprocessing")
    assert isinstance(preprocessing.transforms[0], LoadImaged)
    data = preprocessing({"image": str(path)})
    batch = list_data_collate([data])
    batch["pred"] = parser.get_parsed_content("inferer")(batch["image"], network)
    (result,) = decollate_batch(batch)
    for transform in parser.get_parsed_content("postprocessing").transforms:
        if not isinstance(transform, SaveImaged):
            result = transform(result)
    image = nib.load(path)
    assert tuple(result["pred"].shape[1:]) == image.shape
    np.testing.assert_allclose(result["pred"].affine.numpy(), image.affine, atol=1e-3)
    assert np.isin(np.unique(result["pred"].numpy()), range(13)).all()
