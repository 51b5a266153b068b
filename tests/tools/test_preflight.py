"""The preflight on every configuration of every bundle, and everything that it refuses."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from common.data.phantoms import write_fundus_phantoms, write_heart_phantoms, write_torso_phantoms
from common.networks import FMUNet, MedLAM, ResUNet, SamSegmenter
from common.networks.promptable import VARIANTS
from common.tools.preflight import check
from common.tools.preflight.run_config import RunConfig
from common.tools.runs import find_bundles

BUNDLES = {path.name: path for path in find_bundles()}
SAM = vars(replace(VARIANTS["tiny"], image_size=64, width=48, depth=2, global_blocks=(1,), window_size=4))
DATA = {"volume_fusion": "torso", "medlsam": "torso", "maco": "heart", "vptta": "fundus", "grata": "fundus"}
# Configurations that are run, with the overlays that make them small, and options that name what the test wrote.
MEDLAM = {"dataset_dir": "{data}", "ckpt_path": "{weights}/medlam.pt"}
STACKS = {
    ("volume_fusion", "train", "small"): {},
    ("volume_fusion", "train", "small", "finetune"): {"pretrained_path": "{weights}/pretrained.pt"},
    ("volume_fusion", "train", "fmunet"): {"roi_size": [16, 32, 32], "block_size_max": [6, 9, 9]},
    ("volume_fusion", "inference", "small"): {"ckpt_path": "{weights}/finetuned.pt"},
    ("volume_fusion", "inference", "small", "evaluate"): {"ckpt_path": "{weights}/finetuned.pt"},
    ("maco", "train", "small"): {},
    ("maco", "train", "small", "volumes"): {},
    ("maco", "train", "small", "scribble_validation"): {},
    ("maco", "inference", "small"): {"ckpt_path": "{weights}/maco.pt"},
    ("maco", "inference", "small", "evaluate"): {"ckpt_path": "{weights}/maco.pt"},
    ("medlsam", "train", "small"): {},
    ("medlsam", "localize", "small"): MEDLAM,
    ("medlsam", "localize", "small", "evaluate_boxes"): MEDLAM,
    ("medlsam", "finetune_sam"): {"sam_path": "{weights}/sam.pt"},
    ("medlsam", "finetune_sam", "tiny_sam"): {"architecture": SAM},
    ("medlsam", "inference"): {
        "sam_path": "{weights}/sam.pt",
        "medlam_path": "{weights}/medlam.pt",
        "localize_files": [str(BUNDLES["medlsam"] / "configs" / f"{name}.json") for name in ("localize", "small")],
    },
    ("medlsam", "inference", "evaluate"): {"sam_path": "{weights}/sam.pt", "boxes_from": "reference_slices"},
}
for pair in ("vptta", "grata"):
    STACKS[pair, "train", "small"] = {"dataset_dir": "{data}/domain_a"}
    STACKS[pair, "inference", "small"] = {"ckpt_path": "{weights}/res_unet.pt"}
    STACKS[pair, "inference", "small", "evaluate"] = {"ckpt_path": "{weights}/res_unet.pt"}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    torso = {"num_validation": 1, "num_test": 1, "num_unlabeled": 1, "spacing_mm": 12.0, "field_of_view": "abdomen"}
    write_torso_phantoms(folder / "torso", 4, seed=1, **torso)
    write_heart_phantoms(folder / "heart", 4, seed=1, num_validation=1, num_test=1, image_size=48, spacing_mm=4.0)
    write_fundus_phantoms(folder / "fundus", 3, seed=1, num_validation=1, num_test=1, image_size=64)
    return {name: folder / name for name in ("torso", "heart", "fundus")}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    channels = [8, 16, 32, 64, 128]
    networks = {
        "pretrained": FMUNet(out_channels=5, feature_channels=channels, resolution_mode=1),
        "finetuned": FMUNet(out_channels=13, feature_channels=channels, resolution_mode=1),
        "medlam": MedLAM(base_channels=4, patch_size=(32, 32, 32)),
        "res_unet": ResUNet(3, 2, "resnet34"),
        "sam": SamSegmenter(SAM, "medsam"),
    }
    parser = ConfigParser()
    parser.read_config([str(BUNDLES["maco"] / "configs" / name) for name in ("inference.json", "small.json")])
    networks["maco"] = parser.get_parsed_content("network_def")
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pt")
    return folder


def run_check(bundle, names, folder, caplog, **overrides):
    """Give what is printed; every output goes to `folder`."""
    files = [str(BUNDLES[bundle] / "configs" / f"{name}.json") for name in names]
    own = {key: str(folder / key) for key in ("output_dir", "ckpt_dir") if key in RunConfig(files, {}).parser}
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="common.tools.preflight"):
        check(files, **{**own, **overrides})
    return caplog.text


def filled(options, data, weights):
    return {k: v.format(data=data, weights=weights) if isinstance(v, str) else v for k, v in options.items()}


@pytest.fixture
def torso_check(data, tmp_path, caplog):
    def run(*names, **overrides):
        options = {"dataset_dir": str(data["torso"]), **overrides}
        return run_check("volume_fusion", names or ("train", "small"), tmp_path, caplog, **options)

    return run


class TestEveryConfiguration:
    @pytest.mark.parametrize("stack", STACKS, ids="-".join)
    def test_it_would_run(self, stack, data, weights, tmp_path, caplog):
        bundle, *names = stack
        folder = data[DATA[bundle]]
        options = {"dataset_dir": str(folder), **filled(STACKS[stack], folder, weights)}
        text = run_check(bundle, names, tmp_path, caplog, **options)
        assert "no problem found" in text
        assert "estimate: sizes of all tensors" in text
        assert str(tmp_path) in text
        assert not [path for path in tmp_path.rglob("*") if path.is_file()]
        assert len(text.splitlines()) < 40

    def test_none_is_left_out(self):
        """What is not a run of its own, or needs several processes, is known by its name."""
        overlays = {"multi_gpu_train", "multi_gpu_finetune_sam", "metadata", "polyp"}
        for name, path in BUNDLES.items():
            tested = {part for stack in STACKS if stack[0] == name for part in stack[1:]}
            assert {file.stem for file in (path / "configs").glob("*.json")} - tested <= overlays

    def test_localization_inside_of_segmentation_is_checked_too(self, data, weights, tmp_path, caplog):
        options = filled(STACKS["medlsam", "inference"], data["torso"], weights)
        options |= {"dataset_dir": str(data["torso"]), "medlam_path": "nowhere.pt"}
        with pytest.raises(ValueError, match=r"nowhere\.pt does not exist"):
            run_check("medlsam", ["inference"], tmp_path, caplog, **options)
        with pytest.raises(ValueError, match=r"--searching is no key of this configuration\. Did you mean --search"):
            run_check("medlsam", ["inference"], tmp_path, caplog, **{**options, "localization#searching": "fast"})
