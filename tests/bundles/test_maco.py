"""The bundle `maco` through its real JSON, on phantoms."""

from __future__ import annotations

import csv
import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.networks.nets import BasicUNet
from monai.transforms import Compose
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.data import DatasetError
from common.data.phantoms import write_heart_phantoms
from tests.bundles.conftest import BUNDLES

BUNDLE = "maco"
CONFIGS = BUNDLES[BUNDLE] / "configs"
FEATURES = [8, 8, 16, 16, 16, 8]
TINY = {"roi_size": [64, 64], "features": FEATURES, "num_workers": 0}
TINY_TRAIN = {**TINY, "batch_size": 4, "patch_size": 8}
TRAIN = ["train.json", "small.json"]
INFER = ["inference.json", "small.json"]
EVALUATE = ["inference.json", "small.json", "evaluate.json"]
METHODS = sorted(json.loads((CONFIGS / "train.json").read_text())["methods"])


def make_network(spatial_dims=2):
    return BasicUNet(spatial_dims, 1, 4, FEATURES, norm="batch", upsample="nontrainable")


def scalars(folder, tag):
    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [event.value for event in accumulator.Scalars(tag)]


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    """Short-axis stacks: two patients to train, one to validate, one to test, two phases each."""
    folder = tmp_path_factory.mktemp("hearts")
    write_heart_phantoms(folder, 4, seed=1, num_validation=1, num_test=1, image_size=64, spacing_mm=3.0)
    return folder


@pytest.fixture(scope="module")
def trained(run_config, hearts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    overrides = {**TINY_TRAIN, "dataset_dir": str(hearts), "ckpt_dir": str(folder), "output_dir": str(folder / "logs")}
    run_config(BUNDLE, TRAIN, {**overrides, "max_epochs": 3, "epoch_length": 60, "learning_rate": 0.01})
    return folder


@pytest.fixture(scope="module")
def evaluated(run_config, hearts, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    overrides = {**TINY, "dataset_dir": str(hearts), "ckpt_path": str(trained / "model_last.pt")}
    run_config(BUNDLE, EVALUATE, {**overrides, "output_dir": str(folder)})
    return folder


def options(hearts, folder, **overrides):
    base = {**TINY_TRAIN, "dataset_dir": str(hearts), "ckpt_dir": str(folder), "output_dir": str(folder)}
    return {**base, "max_epochs": 1, "epoch_length": 1, **overrides}


class TestTraining:
    def test_it_learns(self, trained):
        supervised = scalars(trained / "logs", "supervised")
        assert len(supervised) == 180
        assert np.mean(supervised[-15:]) < 0.5 * np.mean(supervised[:5])
        parts = [scalars(trained / "logs", name) for name in ("pseudo_label", "masked_supervised", "consistency")]
        total = np.sum([supervised, *parts], axis=0)
        np.testing.assert_allclose(scalars(trained / "logs", "train_loss"), total, rtol=1e-5)
        assert parts[1][0] == parts[2][0] == 0.0  # the ramp begins at zero
        assert len(scalars(trained / "logs", "val_mean_dice")) == 3

    def test_checkpoints_are_bare_state_dicts_of_the_u_net(self, trained):
        for name in ("model.pt", "model_last.pt"):
            make_network().load_state_dict(torch.load(trained / name, weights_only=True))

    def test_resume_goes_on_behind_the_last_epoch(self, run_config, hearts, trained, tmp_path):
        for name in ("training_state.pt", "model.pt"):
            shutil.copy(trained / name, tmp_path)
        run_config(BUNDLE, TRAIN, options(hearts, tmp_path, max_epochs=4, epoch_length=2, resume=True))
        assert torch.load(tmp_path / "training_state.pt", weights_only=True)["epoch"] == 4

    @pytest.mark.parametrize("method", METHODS)
    def test_every_method_by_one_key(self, run_config, hearts, tmp_path, method):
        run_config(BUNDLE, TRAIN, options(hearts, tmp_path, method=f"@methods#{method}", crf_radius=2))
        make_network().load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))

    def test_the_second_decoder_is_resumed(self, run_config, hearts, tmp_path):
        overrides = options(hearts, tmp_path, method="@methods#dmpls")
        run_config(BUNDLE, TRAIN, overrides)
        first = torch.load(tmp_path / "training_state.pt", weights_only=True)
        run_config(BUNDLE, TRAIN, {**overrides, "max_epochs": 2, "resume": True, "learning_rate": 1e-9})
        second = torch.load(tmp_path / "training_state.pt", weights_only=True)
        name = "decoder.4.weight"
        before, after = (s["objects"]["extended_network"][name] for s in (first, second))
        torch.testing.assert_close(after, before, atol=1e-2, rtol=0)

    @pytest.mark.parametrize(
        "overrides",
        [
            {"distance": "euclidean", "tau_mm": [9.0, 5.0, 3.0, 5.0], "cpl_form": "weighted"},
            {"attention": "uncertainty", "cpl_form": "confidence", "mask_fill": "zero"},
            {"attention": "cpl", "consistency": "mse", "consistency_region": "masked", "annotated_only": False},
            {"attention": "uniform", "class_balance": True, "roi_size": [48, 80]},
        ],
        ids=["euclidean", "uncertainty", "cpl", "uniform"],
    )
    def test_options(self, run_config, hearts, tmp_path, overrides):
        run_config(BUNDLE, TRAIN, options(hearts, tmp_path, **overrides))
        assert (tmp_path / "model.pt").is_file()

    def test_validation_by_held_out_scribbles(self, run_config, hearts, tmp_path):
        """No label map is read where there is none."""
        content = json.loads((hearts / "dataset.json").read_text())
        for section in ("training", "validation"):
            content[section] = [
                {key: str(hearts / case[key]) for key in ("image", "scribble")} for case in content[section]
            ]
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        overrides = options(tmp_path, tmp_path / "run", output_dir=str(tmp_path / "logs"))
        run_config(BUNDLE, [*TRAIN, "scribble_validation.json"], overrides)
        (score,) = scalars(tmp_path / "logs", "val_scribble_log_likelihood")
        assert -10 < score < 0

    def test_volumes(self, run_config, hearts, tmp_path):
        overrides = {"roi_size": [32, 32, 16], "resize_to": [48, 48, -1], "batch_size": 1, "patch_size": [8, 8, 4]}
        configs = ["train.json", "small.json", "volumes.json"]
        run_config(BUNDLE, configs, options(hearts, tmp_path / "run", **overrides))
        make_network(3).load_state_dict(torch.load(tmp_path / "run" / "model.pt", weights_only=True))
        infer = {**TINY, "roi_size": [32, 32, 16], "resize_to": [48, 48, -1], "dataset_dir": str(hearts)}
        infer |= {"ckpt_path": str(tmp_path / "run" / "model.pt"), "output_dir": str(tmp_path / "out")}
        run_config(BUNDLE, [*EVALUATE, "volumes.json"], infer)
        assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 2

    def test_acceptance_vi_dense_labels_do_not_leak(self, run_config, hearts, tmp_path):
        """Training is the same, bit by bit, when the dense labels of the training cases are noise."""
        content = json.loads((hearts / "dataset.json").read_text())
        rng = np.random.default_rng(0)
        for section in ("training", "validation"):
            for case in content[section]:
                if section == "training":
                    image = nib.load(hearts / case["label"])
                    noise = rng.integers(0, 4, image.shape).astype(np.uint8)
                    nib.save(nib.Nifti1Image(noise, image.affine), tmp_path / f"{len(list(tmp_path.iterdir()))}.nii.gz")
                    case["label"] = str(sorted(tmp_path.glob("*.nii.gz"))[-1])
                for key in ("image", "scribble", *(("label",) if section == "validation" else ())):
                    case[key] = str(hearts / case[key])
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        weights = []
        for name, data in (("clean", hearts), ("noise", tmp_path)):
            run_config(BUNDLE, TRAIN, options(data, tmp_path / name, epoch_length=2))
            weights.append(torch.load(tmp_path / name / "model_last.pt", weights_only=True))
        for key, tensor in weights[0].items():
            assert torch.equal(tensor, weights[1][key]), key

    @pytest.mark.parametrize("size", [40, 56])
    def test_strokes_and_image_are_resized_alike(self, hearts, tmp_path, size):
        """PyTorch's mode `nearest` would shift labels against the image by up to half a pixel of the smaller grid."""
        block = np.zeros((96, 96, 3), np.uint8)
        block[31:62, 40:75] = 1
        for name, array in (("image", 100 * block), ("scribble", block)):
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
        parser = ConfigParser()
        parser.read_config([str(CONFIGS / name) for name in TRAIN])
        for key, value in options(hearts, tmp_path, roi_size=[size, size], percentile_range=[0, 100]).items():
            parser[key] = value
        chain = Compose(parser.get_parsed_content("deterministic_transforms"))
        out = chain({"case": "a", **{k: str(tmp_path / f"{k}.nii.gz") for k in ("image", "scribble")}})
        drawn = (out["scribble"] > 0).float()
        for axis in (1, 2):
            places = [
                (m * torch.arange(size).view(-1, 1, 1).movedim(0, axis - 1)).sum() / m.sum()
                for m in (out["image"][0], drawn[0])
            ]
            assert places[0].item() == pytest.approx(places[1].item(), abs=0.2)

    def test_acceptance_vii_scribble_values_survive_the_augmentation(self, hearts):
        """The real chain: no new value, least of all background, and none lost in an annotated slice."""
        parser = ConfigParser()
        parser.read_config([str(CONFIGS / name) for name in TRAIN])
        overrides = options(hearts, hearts, affine_prob=1.0, rotate_range=[0.8], zoom_range=[0.3, 0.3])
        for key, value in overrides.items():
            parser[key] = value
        chain = Compose(parser.get_parsed_content("random_transforms"))
        chain.set_random_state(0)
        scribble = torch.zeros(1, 64, 64)  # 0 is unlabelled in the chain, 1 the background
        scribble[:, :, :30], scribble[:, :12], scribble[:, 20:30, 40:50] = 2, 3, 4  # strokes up to the border
        item = {"image": torch.rand(1, 64, 64), "scribble": scribble, "distance": torch.rand(4, 64, 64)}
        for _ in range(10):
            out = chain({key: MetaTensor(value, affine=torch.eye(3)) for key, value in item.items()})["scribble"]
            assert set(out.unique().tolist()) == {1, 2, 3, 255}

    def test_geodesic_maps_go_through_the_augmentation(self, hearts):
        """Measured before it, they are low on the turned strokes, and a class has a map where it had strokes."""
        parser = ConfigParser()
        parser.read_config([str(CONFIGS / name) for name in TRAIN])
        for key, value in options(hearts, hearts, affine_prob=1.0, rot90_prob=1.0, cache_rate=0.0).items():
            parser[key] = value
        slices = parser.get_parsed_content("train#dataset")
        volumes = parser.get_parsed_content("train#volumes")
        counted = 0
        for place, item in zip(slices.data, slices, strict=True):
            before = volumes[place["volume"]]["distance"][..., place["slice"]]
            assert item["distance"].shape == (4, *item["scribble"].shape[1:])
            for c in range(4):
                distance, strokes = item["distance"][c], item["scribble"][0] == c
                if not torch.isfinite(before[c]).any():
                    assert torch.isinf(distance).all()
                    continue
                assert torch.isfinite(distance).all()
                if strokes.sum() > 5:
                    assert distance[strokes].median() < 0.2 * distance.median()
                    counted += 1
        assert counted > 20


class TestSegmentation:
    def test_training_beats_the_untrained_network(self, run_config, hearts, evaluated, tmp_path):
        torch.manual_seed(0)
        torch.save(make_network().state_dict(), tmp_path / "untrained.pt")
        overrides = {**TINY, "dataset_dir": str(hearts), "ckpt_path": str(tmp_path / "untrained.pt")}
        run_config(BUNDLE, EVALUATE, {**overrides, "output_dir": str(tmp_path)})
        trained, untrained = (
            json.loads((folder / "summary.json").read_text())["mean_over_structures"]["dice"]
            for folder in (evaluated, tmp_path)
        )
        assert trained > untrained + 0.2

    def test_every_case_and_structure_is_scored(self, evaluated):
        with (evaluated / "scores.csv").open() as stream:
            rows = [row for row in csv.DictReader(stream) if row["metric"] == "nsd"]
        assert len(rows) == 6
        assert {row["structure"] for row in rows} == {"right_ventricle", "myocardium", "left_ventricle"}
        with (evaluated / "cases.csv").open() as stream:
            assert [row["outcome"] for row in csv.DictReader(stream)] == ["done"] * 2

    def test_predictions_lie_in_the_geometry_of_the_input(self, run_config, hearts, trained, tmp_path):
        image = nib.load(next((hearts / "imagesTs").iterdir()))
        data = tmp_path / "data"
        data.mkdir()
        array = np.asarray(image.dataobj)
        nib.save(nib.Nifti1Image(array[3:, :-9, 1:], image.affine), data / "odd.nii.gz")
        nib.save(nib.Nifti1Image(array[:, :, 4:6], image.affine), data / "two slices.nii")
        overrides = {**TINY, "dataset_dir": str(data), "ckpt_path": str(trained / "model.pt")}
        run_config(BUNDLE, INFER, {**overrides, "output_dir": str(tmp_path / "out")})
        for path in data.iterdir():
            given, found = nib.load(path), nib.load(tmp_path / "out" / f"{path.name.split('.')[0]}_seg.nii.gz")
            assert found.shape == given.shape
            assert found.get_data_dtype() == np.uint8
            np.testing.assert_allclose(found.affine, given.affine, atol=1e-4)


class TestBadInput:
    def break_scribble(self, hearts, folder, change):
        content = json.loads((hearts / "dataset.json").read_text())
        for section in ("training", "validation", "test"):
            for case in content[section]:
                case |= {key: str(hearts / case[key]) for key in case}
        case = content["training"][0]
        scribble = nib.load(case["scribble"])
        array, affine = change(np.asarray(scribble.dataobj).astype(np.float32), scribble.affine.copy())
        case["scribble"] = str(folder / "scribble.nii.gz")
        nib.save(nib.Nifti1Image(array, affine), case["scribble"])
        (folder / "dataset.json").write_text(json.dumps(content))
        return options(folder, folder / "run")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda a, m: (a[:-2], m), "must have the size of training_000_ed.nii.gz"),
            (lambda a, m: (a, m + 20 * np.eye(4)), "must lie where training_000_ed.nii.gz lies, within"),
            (lambda a, m: (a * 0.5, m), "must hold whole numbers; found fractions such as 0.5"),
            (lambda a, m: (np.where(a == 3, 7, a), m), "must hold"),
            (lambda a, m: (np.where(a == 4, 0, a), m), "must have a background stroke"),
            (lambda a, m: (a * 0, m), "must have strokes"),
            (lambda a, m: (np.where(a == 0, 4, a), m), "must be strokes, not a mask"),
        ],
        ids=["size", "grid", "fractions", "classes", "background", "empty", "mask"],
    )
    def test_refusals(self, run_config, hearts, tmp_path, change, message):
        with pytest.raises(RuntimeError, match=r"common\.data\.check_datalist") as caught:
            run_config(BUNDLE, TRAIN, self.break_scribble(hearts, tmp_path, change))
        cause = caught.value.__cause__
        assert isinstance(cause, DatasetError)
        assert len(cause.problems) == 1
        assert message in str(cause)

    def test_a_slice_without_strokes_is_left_out_or_kept(self, run_config, hearts, tmp_path, capsys):
        def erase(array, affine):
            array[..., 2:4] = 0
            return array, affine

        overrides = self.break_scribble(hearts, tmp_path, erase)
        run_config(BUNDLE, TRAIN, overrides)
        used, total = map(int, re.search(r"(\d+) of (\d+) slices are used", capsys.readouterr().out).groups())
        assert total - used == 2
        run_config(BUNDLE, TRAIN, {**overrides, "annotated_only": False})
        weights = torch.load(tmp_path / "run" / "model_last.pt", weights_only=True)
        assert all(torch.isfinite(tensor).all() for tensor in weights.values())


class TestSeveralProcesses:
    @pytest.mark.parametrize("method", ["maco", "dmpls"])
    def test_several_processes_train_together(self, run_two_processes, hearts, tmp_path, method):
        overrides = options(hearts, tmp_path, epoch_length=2, method=f"@methods#{method}")
        run_two_processes(BUNDLE, [*TRAIN, "multi_gpu_train.json"], overrides)
        make_network().load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
