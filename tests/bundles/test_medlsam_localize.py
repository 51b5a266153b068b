"""The localization half of the bundle `medlsam` through its real JSON, on phantoms."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data import load_datalist
from common.data.boxes import boxes_file, read_boxes
from common.data.extreme_points import extreme_points_of_mask, write_extreme_points
from common.data.phantoms.torso_anatomy import TORSO_LABELS
from common.networks import MedLAM
from tests.bundles.conftest import BUNDLES

BUNDLE = "medlsam"
CONFIGS = BUNDLES[BUNDLE] / "configs"
TINY = {"spacing_mm": [12.0] * 3, "patch_size": [16, 16, 32], "base_channels": 2, "num_workers": 0}
TRAIN = ["train.json", "small.json"]
LOCALIZE = ["localize.json", "small.json"]
EVALUATE = [*LOCALIZE, "evaluate_boxes.json"]


def network():
    torch.manual_seed(0)
    return MedLAM(base_channels=2, patch_size=(16, 16, 32))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    torch.save(network().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def localized(run_config, torso, weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("localized")
    run_config(BUNDLE, EVALUATE, overrides(torso, weights, folder))
    return folder


def overrides(data, weights, folder):
    options = {"dataset_dir": str(data), "ckpt_path": str(weights), "output_dir": str(folder / "out")}
    # an untrained network finds nothing similar
    return {**TINY, **options, "cache_dir": str(folder / "cache"), "min_similarity": 0.0, "min_inside": 0.0}


class TestTraining:
    def test_trains_resumes_and_writes_bare_weights(self, run_config, torso, tmp_path):
        options = {**TINY, "dataset_dir": str(torso), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path / "logs")}
        options |= {"max_epochs": 1, "epoch_length": 3, "num_val_samples": 2, "val_fraction": 0.3}
        run_config(BUNDLE, TRAIN, options)
        for name in ("model.pt", "model_last.pt"):
            network().load_state_dict(torch.load(tmp_path / name, weights_only=True))
        run_config(BUNDLE, TRAIN, {**options, "max_epochs": 2, "resume": True})
        state = torch.load(tmp_path / "training_state.pt", weights_only=True)
        assert state["epoch"] == 2

    @pytest.mark.slow
    def test_several_processes_train_together(self, run_two_processes, torso, tmp_path):
        options = {**TINY, "dataset_dir": str(torso), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        options |= {"max_epochs": 1, "epoch_length": 2, "num_val_samples": 2, "val_fraction": 0.3}
        run_two_processes(BUNDLE, [*TRAIN, "multi_gpu_train.json"], options)
        network().load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))


class TestLocalization:
    def test_files_of_a_case(self, localized, torso):
        (case,) = load_datalist(torso, "test", ["image"])
        image = nib.load(case["image"])
        boxes = read_boxes(boxes_file(localized / "out", case["case"]))
        assert boxes.spatial_shape == image.shape
        np.testing.assert_allclose(boxes.affine, image.affine, atol=1e-4)
        present = [organ for organ in boxes.organs if organ.present]
        assert {organ.organ for organ in present} >= {"liver", "spleen", "left_kidney"}
        for organ in present:
            assert all(
                0 <= low < high <= n
                for low, high, n in zip(organ.whole.lower, organ.whole.upper, image.shape, strict=True)
            )
            (region,) = json.loads((localized / "out" / f"{case['case']}_{organ.organ}.mrk.json").read_text())[
                "markups"
            ]
            assert region["type"] == "ROI"
        drawn = nib.load(localized / "out" / f"{case['case']}_boxes.nii.gz")
        assert drawn.shape == image.shape
        points = read_points(localized / "out" / f"{case['case']}_points.mrk.json")
        assert set(points) == {organ.organ for organ in present}

    def test_every_organ_is_scored(self, localized):
        with (localized / "out" / "boxes.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len(rows) == 12
        summary = json.loads((localized / "out" / "boxes.json").read_text())
        assert 0 <= summary["mean_over_organs"]["iou"] < 1
        with (localized / "out" / "cases.csv").open() as stream:
            assert [row["outcome"] for row in csv.DictReader(stream)] == ["done"]

    def test_supports_as_points_give_the_same_boxes(self, run_config, torso, weights, localized, tmp_path):
        supports = []
        for support in load_datalist(torso, "training", ["image", "label"]):
            label = nib.load(support["label"])
            array = np.asarray(label.dataobj)
            points = {
                name: extreme_points_of_mask(array == value, label.affine)
                for value, name in TORSO_LABELS.items()
                if value and (array == value).any()
            }
            path = tmp_path / f"{support['case']}.json"
            write_extreme_points(points, path)
            supports.append({"image": support["image"], "points": str(path)})
        (case,) = load_datalist(torso, "test", ["image"])
        listed = {"training": supports, "test": [{"image": case["image"]}]}
        (tmp_path / "dataset.json").write_text(
            json.dumps({"labels": {str(k): v for k, v in TORSO_LABELS.items()}, **listed})
        )
        options = {**overrides(tmp_path, weights, tmp_path), "support_keys": ["image", "points"]}
        run_config(BUNDLE, LOCALIZE, options)
        ours, expected = (
            {o.organ: o for o in read_boxes(boxes_file(folder / "out", case["case"])).organs}
            for folder in (tmp_path, localized)
        )
        # that an organ is cut off is told from a label map alone, so that its supports differ
        same = [ours[o].whole == expected[o].whole for o in ("spleen", "left_kidney", "gallbladder")]
        assert sum(same) >= 2

    @pytest.mark.slow
    def test_slabs_fast_search_and_several_steps(self, run_config, torso, weights, tmp_path):
        options = {**overrides(torso, weights, tmp_path), "slab_mm": 30.0, "search": "fast", "num_steps": 2}
        run_config(BUNDLE, LOCALIZE, options)
        (case,) = load_datalist(torso, "test", ["image"])
        boxes = read_boxes(boxes_file(tmp_path / "out", case["case"]))
        assert max(len(organ.parts) for organ in boxes.organs) > 1


class TestBadInput:
    @pytest.mark.slow
    def test_grids_of_any_kind(self, run_config, torso, weights, tmp_path):
        """Exactly the network's spacing, oblique, flipped, smaller than a patch: boxes in the scan as stored."""
        rng = np.random.default_rng(0)
        angle = np.deg2rad(20)
        oblique = np.diag([10.0, 10.0, 10.0, 1.0])
        oblique[:2, :2] = 10 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        grids = {
            "spacing": (np.diag([12.0, 12.0, 12.0, 1.0]), (20, 20, 24)),
            "oblique": (oblique, (24, 20, 22)),
            "flipped": (np.diag([-10.0, 10.0, -10.0, 1.0]), (24, 20, 22)),
            "small": (np.diag([12.0, 12.0, 12.0, 1.0]), (6, 5, 4)),
        }
        data = tmp_path / "data"
        data.mkdir()
        for name, (affine, shape) in grids.items():
            nib.save(nib.Nifti1Image(rng.integers(-200, 200, shape).astype(np.int16), affine), data / f"{name}.nii.gz")
        options = {**overrides(data, weights, tmp_path), "support_dir": str(torso)}
        run_config(BUNDLE, LOCALIZE, options)
        for name, (affine, shape) in grids.items():
            boxes = read_boxes(boxes_file(tmp_path / "out", name))
            assert boxes.spatial_shape == shape
            np.testing.assert_allclose(boxes.affine, affine, atol=1e-4)

    def test_refusals(self, run_config, torso, weights, tmp_path):
        data = tmp_path / "data"
        data.mkdir()
        nib.save(nib.Nifti1Image(np.zeros((8, 8, 8, 2), np.int16), np.eye(4)), data / "time.nii.gz")
        options = {**overrides(data, weights, tmp_path), "support_dir": str(torso)}
        assert "must have 1 channel; found 2 channels or time points" in refusal(run_config, options)
        (data / "time.nii.gz").unlink()
        nib.save(nib.Nifti1Image(np.full((8, 8, 8), -1000, np.int16), np.eye(4)), data / "air.nii.gz")
        assert "The scan holds nothing but air" in refusal(run_config, options)

    def test_a_sam_checkpoint_is_not_medlams(self, run_config, torso, tmp_path):
        keys = ["image_encoder.pos_embed", "image_encoder.patch_embed.proj.weight", "mask_decoder.iou_token.weight"]
        torch.save({key: torch.zeros(1) for key in keys}, tmp_path / "sam.pth")
        message = refusal(run_config, overrides(torso, tmp_path / "sam.pth", tmp_path))
        assert "sam.pth" in message
        assert "MedLAM" in message


def refusal(run_config, options):
    """The messages of a run that must fail; MONAI wraps the first of them."""
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run_config(BUNDLE, LOCALIZE, options)
    messages, error = [], caught.value
    while error is not None:
        messages.append(str(error))
        error = error.__cause__
    return " ".join(messages)


def read_points(path):
    """Organs of a point list; an untrained network's points need not be in order."""
    (markup,) = json.loads(path.read_text())["markups"]
    labels = [control["label"] for control in markup["controlPoints"]]
    return {label.rpartition(" ")[0] for label in labels}
