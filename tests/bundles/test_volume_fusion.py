"""The bundle `volume_fusion` through its real JSON, on phantoms."""

from __future__ import annotations

import csv
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.networks import FMUNet, PCTNet
from tests.bundles.conftest import BUNDLES

BUNDLE = "volume_fusion"
CONFIGS = BUNDLES[BUNDLE] / "configs"
CHANNELS = [8, 8, 16, 16, 32]
TINY = {"roi_size": [16, 32, 32], "feature_channels": CHANNELS, "dropout": [0.0] * 5, "num_workers": 0}
TINY_TRAIN = {**TINY, "block_size_min": [2, 2, 2], "block_size_max": [5, 8, 8], "val_fraction": 0.3, "batch_size": 2}
TINY_TUNE = {**TINY, "batch_size": 1}
PRETRAIN = ["train.json", "small.json"]
FINETUNE = ["train.json", "small.json", "finetune.json"]
INFER = ["inference.json", "small.json"]
EVALUATE = ["inference.json", "small.json", "evaluate.json"]


def scalars(folder, tag):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [event.value for event in accumulator.Scalars(tag)]


def write_untrained(path, **options):
    torch.manual_seed(0)
    torch.save(FMUNet(out_channels=13, feature_channels=CHANNELS, resolution_mode=1, **options).state_dict(), path)


@pytest.fixture(scope="module")
def pretrained(run_config, torso, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    overrides = {**TINY_TRAIN, "dataset_dir": str(torso), "ckpt_dir": str(folder), "output_dir": str(folder / "logs")}
    run_config(BUNDLE, PRETRAIN, {**overrides, "max_epochs": 3, "epoch_length": 8})
    return folder


@pytest.fixture(scope="module")
def finetuned(run_config, torso, pretrained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetuned")
    overrides = {**TINY_TUNE, "dataset_dir": str(torso), "ckpt_dir": str(folder), "output_dir": str(folder / "logs")}
    overrides |= {"pretrained_path": str(pretrained / "model.pt"), "max_epochs": 4, "epoch_length": 40}
    run_config(BUNDLE, FINETUNE, {**overrides, "learning_rate": 0.003})
    return folder


@pytest.fixture(scope="module")
def evaluated(run_config, torso, finetuned, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    overrides = {**TINY, "dataset_dir": str(torso), "ckpt_path": str(finetuned / "model_last.pt")}
    run_config(BUNDLE, EVALUATE, {**overrides, "output_dir": str(folder)})
    return folder


class TestTraining:
    def test_pretraining_learns(self, pretrained):
        losses = scalars(pretrained / "logs", "train_loss")
        assert len(losses) == 24
        assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.02
        assert len(scalars(pretrained / "logs", "val_mean_dice")) == 3

    def test_checkpoints_are_bare_state_dicts(self, pretrained):
        network = FMUNet(out_channels=5, feature_channels=CHANNELS, resolution_mode=1)
        for name in ("model.pt", "model_last.pt"):
            network.load_state_dict(torch.load(pretrained / name, weights_only=True))

    def test_resume_goes_on_behind_the_last_epoch(self, run_config, torso, pretrained, tmp_path):
        for name in ("training_state.pt", "model.pt"):
            (tmp_path / name).write_bytes((pretrained / name).read_bytes())
        overrides = {**TINY_TRAIN, "dataset_dir": str(torso), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        run_config(BUNDLE, PRETRAIN, {**overrides, "max_epochs": 4, "epoch_length": 2, "resume": True})
        state = torch.load(tmp_path / "training_state.pt", weights_only=True)
        assert state["epoch"] == 4

    @pytest.mark.parametrize(
        "overrides",
        [
            {"variant": "patches"},
            {"augmentation": "none"},
            {"spacing_mm": [12.0, 12.0, 12.0]},
        ],
        ids=["patches", "no augmentation", "resampled"],
    )
    def test_options(self, run_config, torso, tmp_path, overrides):
        base = {**TINY_TRAIN, "dataset_dir": str(torso), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        run_config(BUNDLE, PRETRAIN, {**base, "max_epochs": 1, "epoch_length": 1, "num_val_samples": 1, **overrides})
        assert (tmp_path / "model.pt").is_file()

    def test_pct_net_with_deep_supervision(self, run_config, torso, tmp_path):
        base = {**TINY_TRAIN, "dataset_dir": str(torso), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        base |= {"network_def#_target_": "common.networks.PCTNet", "deep_supervision": True, "num_val_samples": 1}
        run_config(BUNDLE, PRETRAIN, {**base, "max_epochs": 1, "epoch_length": 1})
        weights = torch.load(tmp_path / "model.pt", weights_only=True)
        PCTNet(out_channels=5, feature_channels=CHANNELS, resolution_mode=1).load_state_dict(weights)

    def test_a_folder_of_volumes_is_enough(self, run_config, torso, tmp_path):
        base = {**TINY_TRAIN, "dataset_dir": str(torso / "imagesUn"), "ckpt_dir": str(tmp_path)}
        base |= {"output_dir": str(tmp_path), "num_val_samples": 1, "max_epochs": 1, "epoch_length": 1}
        run_config(BUNDLE, PRETRAIN, base)
        assert (tmp_path / "model.pt").is_file()


class TestSegmentation:
    def test_finetuning_beats_the_untrained_network(self, run_config, torso, evaluated, tmp_path):
        write_untrained(tmp_path / "untrained.pt")
        overrides = {**TINY, "dataset_dir": str(torso), "ckpt_path": str(tmp_path / "untrained.pt")}
        run_config(BUNDLE, EVALUATE, {**overrides, "output_dir": str(tmp_path)})
        trained = json.loads((evaluated / "summary.json").read_text())["mean_over_structures"]["dice"]
        untrained = json.loads((tmp_path / "summary.json").read_text())["mean_over_structures"]["dice"]
        assert trained > untrained + 0.1

    def test_every_case_and_structure_is_scored(self, evaluated, torso):
        with (evaluated / "scores.csv").open() as stream:
            rows = [row for row in csv.DictReader(stream) if row["metric"] == "nsd"]
        assert len(rows) == 12
        assert {row["structure"] for row in rows} >= {"liver", "spleen", "left_kidney"}
        with (evaluated / "cases.csv").open() as stream:
            assert [row["outcome"] for row in csv.DictReader(stream)] == ["done"]

    def test_predictions_lie_in_the_geometry_of_the_input(self, run_config, torso, finetuned, tmp_path):
        source = nib.load(next((torso / "imagesTs").iterdir()))
        data = tmp_path / "data"
        data.mkdir()
        # every axis order and direction, one oblique affine, one odd size
        turned = nib.as_closest_canonical(source)
        for code in ("RAS", "LPI", "SAR", "AIL"):
            target = nib.orientations.axcodes2ornt(code)
            nib.save(
                turned.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(turned.affine), target)),
                data / f"{code}.nii.gz",
            )
        angle = np.deg2rad(12)
        rotation = np.eye(4)
        rotation[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        nib.save(
            nib.Nifti1Image(np.asarray(turned.dataobj)[:-1, :, :-2], rotation @ turned.affine), data / "oblique.nii"
        )
        overrides = {**TINY, "dataset_dir": str(data), "ckpt_path": str(finetuned / "model_last.pt")}
        run_config(BUNDLE, INFER, {**overrides, "output_dir": str(tmp_path / "out")})
        reference = None
        for path in sorted(data.iterdir()):
            image = nib.load(path)
            prediction = nib.load(tmp_path / "out" / f"{path.name.split('.')[0]}_seg.nii.gz")
            assert prediction.shape == image.shape
            assert prediction.get_data_dtype() == np.uint8
            np.testing.assert_allclose(prediction.affine, image.affine, atol=1e-4)
            if path.stem == "oblique":
                continue
            canonical = np.asarray(nib.as_closest_canonical(prediction).dataobj)
            reference = canonical if reference is None else reference
            np.testing.assert_array_equal(canonical, reference)  # the orientation in memory changes nothing
        assert len(np.unique(reference)) > 3

    def test_one_scan_in_a_folder_is_enough(self, run_config, torso, finetuned, tmp_path):
        (tmp_path / "data").mkdir()
        shutil.copy(next((torso / "imagesTs").iterdir()), tmp_path / "data" / "Müller 1.nii.gz")
        overrides = {**TINY, "dataset_dir": str(tmp_path / "data"), "ckpt_path": str(finetuned / "model.pt")}
        run_config(BUNDLE, INFER, {**overrides, "output_dir": str(tmp_path / "out")})
        assert (tmp_path / "out" / "Müller 1_seg.nii.gz").is_file()

    def test_resampled_inference_returns_to_the_input(self, run_config, torso, finetuned, tmp_path):
        overrides = {**TINY, "dataset_dir": str(torso), "ckpt_path": str(finetuned / "model_last.pt")}
        run_config(BUNDLE, INFER, {**overrides, "spacing_mm": [14.0, 9.0, 9.0], "output_dir": str(tmp_path)})
        image = nib.load(next((torso / "imagesTs").iterdir()))
        (prediction,) = (nib.load(path) for path in tmp_path.glob("*_seg.nii.gz"))
        assert prediction.shape == image.shape
        np.testing.assert_allclose(prediction.affine, image.affine, atol=1e-3)


class TestRealScans:
    """Every CT beside the repository, NIfTI and MHA, from 3 mm to 0.8 x 0.8 x 5 mm."""

    def test_pretrain_finetune_and_segment(self, run_config, shared_data, tmp_path):
        names = [
            "ct_crlm_1004/ct.nii.gz",
            "ct_lidc_0314/ct_1p5mm.nii.gz",
            "ct_elastix_lung_small/3DCT_lung_baseline_small.mha",
            "ct_totalsegmentator/abdomen_pelvis.nii.gz",
            "ct_totalsegmentator/heart_a.nii.gz",
            "ct_totalsegmentator/heart_b.nii.gz",
        ]
        heart = {
            key: str(shared_data / "ct_totalsegmentator" / name)
            for key, name in (("image", "heart_a.nii.gz"), ("label", "heart_a_aorta.nii.gz"))
        }
        scans = [{"image": str(shared_data / name)} for name in names]
        (tmp_path / "dataset.json").write_text(
            json.dumps({"unlabeled": scans, "training": [heart], "validation": [heart], "test": scans})
        )
        base = {"dataset_dir": str(tmp_path), "output_dir": str(tmp_path / "logs"), "max_epochs": 1}
        pretrain = {**TINY_TRAIN, **base, "ckpt_dir": str(tmp_path), "epoch_length": 3, "num_val_samples": 1}
        run_config(BUNDLE, PRETRAIN, pretrain)
        tune = {**TINY_TUNE, **base, "ckpt_dir": str(tmp_path / "tuned"), "epoch_length": 2, "num_classes": 2}
        run_config(BUNDLE, FINETUNE, {**tune, "pretrained_path": str(tmp_path / "model.pt"), "spacing_mm": [3, 3, 3]})
        infer = {**TINY, "dataset_dir": str(tmp_path), "num_classes": 2, "output_dir": str(tmp_path / "out")}
        infer |= {"ckpt_path": str(tmp_path / "tuned" / "model.pt"), "spacing_mm": [6, 6, 6]}
        run_config(BUNDLE, INFER, infer)
        with (tmp_path / "out" / "cases.csv").open() as stream:
            assert [row["outcome"] for row in csv.DictReader(stream)] == ["done"] * 6
        for name in names:
            image = LoadImage(image_only=True)(shared_data / name)
            prediction = nib.load(tmp_path / "out" / f"{(shared_data / name).name.split('.')[0]}_seg.nii.gz")
            assert prediction.shape == image.shape
            np.testing.assert_allclose(prediction.affine, image.affine.numpy(), atol=1e-3)


class TestSeveralProcesses:
    @pytest.mark.parametrize("phase", ["pretrain", "finetune"])
    def test_several_processes_train_together(self, run_two_processes, torso, pretrained, tmp_path, phase):
        overrides = {"dataset_dir": str(torso), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        overrides |= {"max_epochs": 1, "epoch_length": 2, "batch_size": 1}
        if phase == "pretrain":
            configs, overrides = PRETRAIN, {**TINY_TRAIN, **overrides, "num_val_samples": 3}
        else:  # one validation case for two processes
            configs, overrides = FINETUNE, {**TINY_TUNE, **overrides, "pretrained_path": str(pretrained / "model.pt")}
        printed = run_two_processes(BUNDLE, [*configs, "multi_gpu_train.json"], overrides)
        assert bool(re.search(r"Loaded \d+ of 146 tensors of FMUNet", printed)) == (phase == "finetune")
        network = FMUNet(out_channels=5 if phase == "pretrain" else 13, feature_channels=CHANNELS, resolution_mode=1)
        network.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
