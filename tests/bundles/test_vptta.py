"""The bundles `vptta` and `grata` through their real JSON, on phantoms: what both share runs for both."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.bundle import create_workflow
from monai.networks.nets import UNet
from PIL import Image

from common.data.phantoms import write_fundus_phantoms
from common.networks import ResUNet
from common.tools.runs import bundle_command
from tests.bundles.conftest import BUNDLES
from tests.bundles.test_volume_fusion import scalars

PAIR = ["vptta", "grata"]
TRAIN = ["train.json", "small.json"]
INFER = ["inference.json", "small.json"]
EVALUATE = ["inference.json", "small.json", "evaluate.json"]
POLYP_TRAIN = ["train.json", "polyp.json"]
POLYP_INFER = ["inference.json", "polyp.json"]
POLYP_EVALUATE = ["inference.json", "polyp.json", "evaluate.json"]
# The published network takes minutes to train on a busy CPU; what is tested here does not depend on it.
NETWORK = {"spatial_dims": 2, "in_channels": 3, "out_channels": 2, "channels": [8, 16, 32, 32], "strides": [2, 2, 2]}
NETWORK |= {"norm": "batch"}
TINY = {"network_def": {"_target_": "monai.networks.nets.UNet", **NETWORK}, "image_size": 64, "num_workers": 0}
PHOTOGRAPHS = ("fundus_idrid/IDRiD_17.jpg", "fundus_wikimedia_cc0/600px-Fundus_photograph_of_normal_right_eye.jpg")


@pytest.fixture(scope="session")
def fundus(tmp_path_factory) -> Path:
    """Fundus phantoms of all domains: six photographs each."""
    folder = tmp_path_factory.mktemp("fundus")
    write_fundus_phantoms(folder, 6, seed=1, num_validation=2, num_test=1, image_size=96)
    return folder


@pytest.fixture(scope="session")
def source_model(run_config, fundus, tmp_path_factory) -> Path:
    """Folder of a small network trained on domain A."""
    folder = tmp_path_factory.mktemp("source")
    overrides = {**TINY, "dataset_dir": str(fundus / "domain_a"), "ckpt_dir": str(folder), "output_dir": str(folder)}
    run_config("vptta", TRAIN, {**overrides, "max_epochs": 4, "epoch_length": 25, "learning_rate": 0.05})
    return folder


@pytest.fixture
def infer(run_config, fundus, source_model, tmp_path):
    """Run inference or evaluation of a bundle on the phantoms; gives the folder of its output."""

    def run(bundle, configs=INFER, **overrides) -> Path:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shared = {**TINY, "dataset_dir": str(fundus), "ckpt_path": str(source_model / "model_last.pt")}
        run_config(bundle, configs, {**shared, "output_dir": str(folder), "section": ["test"], **overrides})
        return folder

    return run


def read_rows(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def read_picture(path):
    with Image.open(path) as image:
        return np.asarray(image)


def run_command(bundle, configs, overrides):
    """Run a bundle as a process; gives its exit status and what it wrote to stderr."""
    command = bundle_command(BUNDLES[bundle], configs, overrides)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stderr


@contextmanager
def refused(message):
    """Expect an error whose message, or that of what caused it, matches: MONAI wraps what a configuration raises."""
    with pytest.raises((ValueError, RuntimeError, OSError)) as caught:
        yield
    error, texts = caught.value, []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    assert re.search(message, "\n".join(texts)), texts


class TestTraining:
    def test_source_training_learns(self, source_model):
        losses = scalars(source_model, "train_loss")
        assert len(losses) == 100
        assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:10])
        assert scalars(source_model, "val_mean_dice")[-1] > 0.25
        UNet(**NETWORK).load_state_dict(torch.load(source_model / "model.pt", weights_only=True))

    @pytest.mark.parametrize("bundle", PAIR)
    def test_published_network_and_recipe(self, run_config, fundus, tmp_path, bundle):
        overrides = {"dataset_dir": str(fundus / "domain_a"), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        overrides |= {"image_size": 64, "max_epochs": 1, "epoch_length": 1, "batch_size": 2, "num_workers": 0}
        classifier = {
            f"{key}": value for key, value in ResUNet().encoder.state_dict().items() if "num_batches" not in key
        }
        torch.save(
            {**classifier, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, tmp_path / "r.pth"
        )
        overrides |= {"use_imagenet": True, "imagenet_path": str(tmp_path / "r.pth")}
        run_config(bundle, ["train.json"], overrides)
        ResUNet().load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
        configuration = json.loads((BUNDLES[bundle] / "configs" / "train.json").read_text())
        published = {"learning_rate": 0.001, "momentum": 0.99, "weight_decay": 0.0005, "lr_power": 0.9}
        assert published.items() <= configuration.items()

    def test_image_and_mask_move_together(self, fundus):
        """A photograph whose red channel is its own mask stays so under every random transform."""
        overrides = {"dataset_dir": str(fundus / "domain_a"), "image_size": 64, "spatial_prob": 1.0}
        overrides |= {"intensity_prob": 0.0, "cache_rate": 0.0, "num_workers": 0}
        workflow = create_workflow(
            config_file=str(BUNDLES["vptta"] / "configs" / "train.json"), workflow_type="train", **overrides
        )
        transform = workflow.parser.get_parsed_content("train#random_transforms")
        generator = np.random.default_rng(0)
        moved = 0
        for _ in range(20):
            blob = np.kron(generator.random((4, 4)) < 0.4, np.ones((16, 16)))[None].astype(np.float32)
            item = {"image": torch.from_numpy(np.repeat(blob, 3, 0)), "label": torch.from_numpy(blob)}
            for step in transform:
                item = step(item)
            moved += int(not np.array_equal(item["label"].numpy(), blob))
            assert ((item["image"][:1] > 0.5) != (item["label"] > 0.5)).float().mean() < 0.05
        assert moved > 15

    def test_several_processes_train_together(self, run_two_processes, fundus, tmp_path):
        overrides = {**TINY, "dataset_dir": str(fundus / "domain_a"), "ckpt_dir": str(tmp_path)}
        overrides |= {"output_dir": str(tmp_path), "max_epochs": 1, "epoch_length": 2, "batch_size": 2}
        run_two_processes("vptta", [*TRAIN, "multi_gpu_train.json"], overrides)
        UNet(**NETWORK).load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))


class TestStream:
    @pytest.mark.parametrize("method", ["vptta", "grata", "none", "batch_norm", "tent"])
    def test_every_method_scores_every_domain(self, infer, method):
        bundle = "grata" if method == "grata" else "vptta"
        folder = infer(bundle, EVALUATE, inferer=f"@methods#{method}")
        scores = json.loads((folder / "summary.json").read_text())
        assert list(scores["groups"]) == ["domain_b", "domain_c", "domain_d", "domain_e"]
        assert scores["distance_unit"] == "pixel"
        assert list(scores["structures"]) == ["disc", "cup"]
        summary = json.loads((folder / "domains.json").read_text())
        assert scores["mean_over_structures"]["dice"] == pytest.approx(summary["pooled"]["mean"]["dice"], abs=0.05)
        assert (folder / "report.html").is_file()
        assert list(summary["domains"]) == ["domain_b", "domain_c", "domain_d", "domain_e"]
        assert summary["num_cases"] == 4
        assert 0.05 < summary["pooled"]["mean"]["dice"] <= 1
        rows = read_rows(folder / "metrics.csv")
        assert [row["channel"] for row in rows] == ["disc", "cup"] * 4
        assert all(row["outcome"] == "done" for row in read_rows(folder / "cases.csv"))
        mask = read_picture(folder / "domain_c" / "test_000_mask.png")
        assert mask.shape == (96, 96)
        assert set(np.unique(mask)) <= {0, 128, 255}
        disc = read_picture(folder / "domain_c" / "test_000_disc.png")
        assert disc.dtype == np.uint16
        assert ((disc >= 32768) <= (mask < 255)).all()

    def test_labels_change_nothing(self, infer):
        plain, evaluated = infer("vptta"), infer("vptta", EVALUATE)
        for name in ("domain_b/test_000_disc.png", "domain_e/test_000_cup.png"):
            np.testing.assert_array_equal(read_picture(plain / name), read_picture(evaluated / name))

    @pytest.mark.parametrize(("bundle", "continual"), [("vptta", True), ("grata", False)])
    def test_protocol(self, infer, bundle, continual):
        """The second domain sees the first where the adaptation goes on, and starts anew where it is reset."""
        name = "domain_c/test_000_disc.png"
        learning = {"adaptation_learning_rate": 0.05, "section": ["test", "training"], "num_neighbors": 2}
        learning |= {"memory_size": 3} if bundle == "vptta" else {}
        learning = learning if bundle == "vptta" else {**learning, "num_neighbors": None}
        learning = {key: value for key, value in learning.items() if value is not None}
        alone = read_picture(infer(bundle, domains=["domain_c"], **learning) / name)
        both = ["domain_b", "domain_c"]
        default = read_picture(infer(bundle, domains=both, **learning) / name)
        switched = read_picture(infer(bundle, domains=both, **learning, reset_on_domain_change=continual) / name)
        fresh, ongoing = (switched, default) if continual else (default, switched)
        np.testing.assert_array_equal(fresh, alone)
        assert (ongoing != alone).any()

    @pytest.mark.parametrize("bundle", PAIR)
    def test_a_stream_in_two_runs_is_the_stream_in_one(self, infer, tmp_path, bundle):
        state = {"state_path": str(tmp_path / "state.pt"), "reset_on_domain_change": False}
        whole = infer(bundle, domains=["domain_b", "domain_c"], **state)
        assert not (tmp_path / "state.pt").exists()
        infer(bundle, domains=["domain_b"], save_state=True, **state)
        rest = infer(bundle, domains=["domain_c"], load_state=True, **state)
        name = "domain_c/test_000_disc.png"
        np.testing.assert_allclose(
            read_picture(rest / name).astype(int), read_picture(whole / name).astype(int), atol=20
        )

    def test_training_repeats_under_a_seed(self, infer):
        first, second = (infer("grata", domains=["domain_b"], save_probabilities=False) for _ in range(2))
        name = "domain_b/test_000_mask.png"
        np.testing.assert_array_equal(read_picture(first / name), read_picture(second / name))
        assert not (first / "domain_b" / "test_000_disc.png").exists()


class TestRealPhotographs:
    @pytest.mark.parametrize("bundle", PAIR)
    def test_fundus(self, run_config, source_model, shared_data, tmp_path, bundle):
        for name in PHOTOGRAPHS:
            shutil.copy(shared_data / name, tmp_path / f"photo_{Path(name).name[:5]}.jpg")
        overrides = {**TINY, "dataset_dirs": [str(tmp_path)], "ckpt_path": str(source_model / "model_last.pt")}
        run_config(bundle, INFER, {**overrides, "output_dir": str(tmp_path / "out")})
        folder = tmp_path / "out" / tmp_path.name
        shapes = {p.name: read_picture(p).shape for p in folder.glob("*.png")}
        assert len(shapes) == 6
        for kind in ("mask", "disc", "cup"):
            assert shapes[f"photo_IDRiD_{kind}.png"] == (2848, 4288)
            assert shapes[f"photo_600px_{kind}.png"] == (600, 600)

    @pytest.mark.parametrize("bundle", PAIR)
    def test_polyps(self, run_config, shared_data, tmp_path, bundle):
        """Train on five frames and score them: JPEG masks, 352x352 in the overlay, here smaller."""
        frames = sorted((shared_data / "polyp_hyperkvasir" / "images").iterdir())
        entries = [{"image": str(f), "label": str(f.parents[1] / "masks" / f.name)} for f in frames]
        (tmp_path / "dataset.json").write_text(json.dumps({"training": entries, "validation": entries[:1]}))
        base = {**TINY, "network_def": {**TINY["network_def"], "out_channels": 1}, "image_size": 96}
        train = {**base, "dataset_dir": str(tmp_path), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        run_config(bundle, POLYP_TRAIN, {**train, "max_epochs": 1, "epoch_length": 2, "batch_size": 2})
        score = {**base, "dataset_dirs": [str(tmp_path)], "ckpt_path": str(tmp_path / "model.pt")}
        score |= {"section": ["training"], "output_dir": str(tmp_path / "out")}
        run_config(bundle, POLYP_EVALUATE, score)
        summary = json.loads((tmp_path / "out" / "domains.json").read_text())
        assert summary["num_cases"] == 5
        assert list(summary["pooled"]["channels"]) == ["polyp"]
        for frame in frames:
            with Image.open(frame) as image:
                mask = read_picture(tmp_path / "out" / tmp_path.name / f"{frame.stem}_mask.png")
                assert mask.shape[::-1] == image.size
                assert set(np.unique(mask)) <= {0, 255}
        run_config(bundle, POLYP_INFER, {**score, "output_dir": str(tmp_path / "plain")})
        assert len(read_rows(tmp_path / "plain" / "cases.csv")) == 5


class TestBadInput:
    """Each ends with its message and exit status 1 (one in a process; the rest here, where errors are the same)."""

    def write_photograph(self, path, array):
        if path.suffix == ".tif":
            tifffile.imwrite(path, array)
        else:
            Image.fromarray(array).save(path)

    @pytest.mark.parametrize(
        ("name", "array", "message"),
        [
            ("gray.png", np.zeros((80, 80), np.uint8), r"3 channels, RGB; found 1 gray channel"),
            ("nan.tif", np.full((80, 80, 3), np.nan, np.float32), r"must be finite; found NaN"),
            ("tiny.png", np.zeros((32, 32, 3), np.uint8), r"64 x 64 pixels or more; found 32 x 32"),
        ],
    )
    def test_photographs_that_are_none(self, infer, tmp_path, name, array, message):
        (tmp_path / "photos").mkdir()
        self.write_photograph(tmp_path / "photos" / name, array)
        with refused(message):
            infer("vptta", dataset_dirs=[str(tmp_path / "photos")], section=["training", "test"])

    @pytest.mark.parametrize("bundle", PAIR)
    def test_image_size_that_leaves_one_pixel(self, run_config, fundus, tmp_path, bundle):
        torch.save(ResUNet().state_dict(), tmp_path / "model.pt")
        overrides = {"dataset_dir": str(fundus), "ckpt_path": str(tmp_path / "model.pt"), "num_workers": 0}
        with refused(r"(?i)one value per channel"):
            run_config(bundle, ["inference.json"], {**overrides, "image_size": 32, "output_dir": str(tmp_path / "out")})
        rows = read_rows(tmp_path / "out" / "cases.csv")
        assert {row["outcome"] for row in rows} == {"failed"}
        assert all("one value per channel" in row["reason"] for row in rows)

    def test_a_checkpoint_of_another_layout(self, infer, tmp_path):
        torch.save({"state_dict": ResUNet().state_dict()}, tmp_path / "other.pt")
        with refused(r"other\.pt do not fit UNet: .*missing key"):
            infer("vptta", ckpt_path=str(tmp_path / "other.pt"))

    def test_a_mask_as_image_fails_the_process(self, fundus, source_model, tmp_path):
        (tmp_path / "photos").mkdir()
        shutil.copy(fundus / "domain_b" / "labelsTs" / "test_000.png", tmp_path / "photos")
        (tmp_path / "photos" / "unreadable.jpg").write_bytes(b"\xff\xd8\xff and no more")
        overrides = {**TINY, "dataset_dirs": [str(tmp_path / "photos")], "output_dir": str(tmp_path / "out")}
        status, errors = run_command("vptta", INFER, {**overrides, "ckpt_path": str(source_model / "model.pt")})
        assert status != 0
        assert "2 of 2 cases failed" in errors
        assert "a mask belongs under label" in errors
        assert "unreadable.jpg: must open" in errors

    def test_a_constant_photograph_goes_through(self, infer, tmp_path, caplog):
        (tmp_path / "photos").mkdir()
        self.write_photograph(tmp_path / "photos" / "black.png", np.zeros((80, 100, 3), np.uint8))
        folder = infer("vptta", dataset_dirs=[str(tmp_path / "photos")], section=["training", "test"])
        assert read_picture(folder / "photos" / "black_mask.png").shape == (80, 100)
        assert "constant" in caplog.text

    def test_a_state_that_is_not_there_or_of_another_method(self, infer, tmp_path):
        state = {"state_path": str(tmp_path / "state.pt"), "domains": ["domain_b"]}
        with refused(r"state\.pt does not exist.*--save_state True"):
            infer("vptta", load_state=True, **state)
        infer("vptta", save_state=True, **state)
        with refused("must be one that TENTInferer"):
            infer("vptta", load_state=True, inferer="@methods#tent", **state)
