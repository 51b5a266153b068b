"""The same run twice gives the same files, and neither workers nor batch sizes matter."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet

from common.data.phantoms import write_torso_phantoms
from common.networks import MedLAM
from tests.faults.inference_runs import (
    STREAMS,
    contents_of,
    heart_overrides,
    run_inference,
    segmenter_overrides,
    stream_overrides,
    volume_overrides,
    write_photographs,
    write_volumes,
)

# Of the label map of an untrained network, whose logits lie close together, when batches are cut differently.
MIN_AGREEMENT = 0.999
FEATURES = [4, 4, 8, 8, 8, 4]


@pytest.fixture(scope="session")
def volumes(tmp_path_factory):
    return write_volumes(tmp_path_factory.mktemp("volumes"), 3, (17, 20, 19))


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"), 6)


def network_overrides(make, spatial_dims, data, work, **options):
    """A real network of random weights instead of a threshold."""
    own = {"spatial_dims": spatial_dims, "in_channels": 1, "out_channels": 2, "features": FEATURES}
    torch.manual_seed(0)
    network = BasicUNet(**own, norm="batch").eval()
    with torch.no_grad():  # both classes should occur
        logits = network(torch.rand(1, 1, *[32] * spatial_dims))
        network.final_conv.bias -= logits.transpose(0, 1).flatten(1).median(dim=1).values
    torch.save(network.state_dict(), work / "model.pt")
    settings = make(data, work, **options)
    return {**settings, "network_def": {"_target_": "BasicUNet", **own, "norm": "batch"}}


def settings_of(bundle, volumes, photographs, tmp_path, **options):
    if bundle in STREAMS:
        return stream_overrides(photographs, tmp_path, **options)
    make, dims = (volume_overrides, 3) if bundle == "volume_fusion" else (heart_overrides, 2)
    size = [16, 16, 16] if bundle == "volume_fusion" else [32, 32]
    return {**network_overrides(make, dims, volumes, tmp_path, **options), "roi_size": size}


def agreement(one, other):
    shares = []
    for path in sorted(one.glob("*_seg.nii.gz")):
        first, second = (np.asarray(nib.load(folder / path.name).dataobj) for folder in (one, other))
        assert 0 < first.mean() < 1
        shares.append((first == second).mean())
    assert len(shares) == 3
    return min(shares)


@pytest.mark.parametrize("bundle", ["volume_fusion", "maco", *STREAMS])
def test_twice_and_with_workers(bundle, volumes, photographs, tmp_path):
    """Bit for bit."""
    contents = []
    for name, num_workers in (("1", 0), ("2", 0), ("3", 2)):
        options = {"output_dir": str(tmp_path / name), "num_workers": num_workers}
        run_inference(bundle, settings_of(bundle, volumes, photographs, tmp_path, **options))
        contents.append(contents_of(tmp_path / name))
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize("bundle", ["volume_fusion", "maco"])
def test_the_batch_of_windows(bundle, volumes, photographs, tmp_path):
    for name, size in (("1", 1), ("5", 5)):
        options = {"output_dir": str(tmp_path / name), "sw_batch_size": size}
        run_inference(bundle, settings_of(bundle, volumes, photographs, tmp_path, **options))
    assert agreement(tmp_path / "1", tmp_path / "5") >= MIN_AGREEMENT


def test_batches_of_slices_and_boxes(tmp_path):
    torso = {"num_unlabeled": 0, "num_validation": 0, "num_test": 1, "spacing_mm": 12.0, "field_of_view": "abdomen"}
    write_torso_phantoms(tmp_path / "torso", 2, seed=1, **torso)
    torch.save(MedLAM(base_channels=2, patch_size=(16, 16, 32)).state_dict(), tmp_path / "medlam.pt")
    sources = {"torso": tmp_path / "torso", "medlam.pt": tmp_path / "medlam.pt"}
    masks = []
    for slices, boxes in ((1, 1), (4, 16), (7, 3)):
        options = {"slice_batch_size": slices, "box_batch_size": boxes, "output_dir": str(tmp_path / str(slices))}
        settings = segmenter_overrides(sources, tmp_path, keys=["image", "label"], **options)
        names = {"prepare_batch#label_names": {"1": "liver", "2": "spleen"}, "boxes_from": "reference_organs"}
        labels = [
            {"_target_": "LoadImaged", "keys": ["image", "label"]},
            {"_target_": "EnsureChannelFirstd", "keys": ["image", "label"]},
        ]
        settings |= {**names, "preprocessing_transforms": labels}
        run_inference("medlsam", settings)
        (path,) = (tmp_path / str(slices)).glob("*_seg.nii.gz")
        masks.append(path.read_bytes())
    assert masks[0] == masks[1] == masks[2]
