"""The preflight on every configuration of every bundle, and everything that it refuses."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from common.data.phantoms import write_fundus_phantoms, write_heart_phantoms, write_torso_phantoms
from common.networks import FMUNet, MedLAM, ResUNet, SamSegmenter
from common.networks.promptable import VARIANTS
from common.tools.preflight import check
from common.tools.preflight.device import Capacity
from common.tools.preflight.live_memory import _imitated_loss, _LiveBytes, inference_bytes, training_bytes
from common.tools.preflight.overrides import check_overrides
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

CONFIGS = [BUNDLES["volume_fusion"] / "configs" / name for name in ("train.json", "small.json")]
QUICK = [("train", "small"), ("inference", "small"), ("localize", "small"), ("inference",)]


def marked(stack):
    """Two configurations of each bundle are enough for every day."""
    return pytest.param(stack, id="-".join(stack), marks=[] if stack[1:] in QUICK else [pytest.mark.slow])


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
    @pytest.mark.parametrize("stack", [marked(stack) for stack in STACKS])
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


class TestKeys:
    def section(self, tracking=None, **overrides):
        return check_overrides(RunConfig(CONFIGS, overrides), tracking)

    @pytest.mark.parametrize(
        ("key", "words"),
        [
            ("max_epoch", "--max_epoch is no key of this configuration. Did you mean --max_epochs"),
            ("train#trainer#max_epoch", "Did you mean --train#trainer#max_epochs?"),
            ("train::trainer::max_epoch", "Did you mean --train#trainer#max_epochs?"),
            ("trainer#max_epochs", "there is no trainer. Did you mean --train#trainer#max_epochs"),
            ("optimizer#lrr", "is neither in optimizer nor an argument of its class. Did you mean --optimizer#lr?"),
            ("roi_size#3#4", "there is no roi_size#3"),
            ("roi_size#first", "has no parts that could be set by name"),
            ("+train#handlers", "`+` appends in configuration files only"),
            ("zzzz", "Look into the configuration for the keys that there are."),
        ],
    )
    def test_keys_that_mean_nothing(self, key, words):
        (problem,) = self.section(**{key: 1}).problems
        assert words in problem

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("max_epochs", 3),
            ("train#trainer#max_epochs", 3),
            ("train::trainer::max_epochs", 3),
            ("optimizer#amsgrad", True),
            ("optimizer#_disabled_", False),
            ("roi_size", [32, 32, 32]),
            ("spacing_mm", [1, 1, 1]),
            ("learning_rate", "$1 / 100"),
            ("resume", True),
            ("section", "training"),
        ],
    )
    def test_keys_that_are_read(self, key, value):
        section = self.section(**{key: value})
        assert not section.problems
        assert not section.warnings

    @pytest.mark.parametrize(
        ("key", "value", "words"),
        [
            ("resume", "false", "must be True or False"),
            ("resume", 2, "must be True or False"),
            ("max_epochs", "many", "must be a number, as the default"),
            ("roi_size", 64, "must be a list of numbers"),
        ],
    )
    def test_values_of_another_kind(self, key, value, words):
        (problem,) = self.section(**{key: value}).problems
        assert words in problem
        assert f"found {value!r}" in problem

    def test_a_new_key_that_another_override_reads(self):
        assert not self.section(own_rate=0.1, learning_rate="@own_rate").problems

    def test_a_key_that_this_run_does_not_read(self):
        finetune = RunConfig([*CONFIGS, CONFIGS[0].with_name("finetune.json")], {"variant": "patches"})
        (warning,) = check_overrides(finetune).warnings
        assert warning == "--variant has no effect: nothing that this run does reads it."

    def test_options_of_the_run_and_its_file_of_arguments(self, torso_check, tmp_path):
        arguments = tmp_path / "arguments.json"
        arguments.write_text(json.dumps({"max_epoch": 3}))
        with pytest.raises(ValueError, match="--max_epoch is no key"):
            torso_check(args_file=str(arguments))
        assert "no problem found" in torso_check(run_id="run", logging_file=False)


class TestMemory:
    def test_bytes_by_hand(self):
        """Weights 10 x 20, four inputs of 10: 800 bytes, 160 bytes, and 320 of output."""
        linear = nn.Linear(10, 20, bias=False)
        assert inference_bytes(linear, [torch.empty(4, 10)]) == (800 + 160 + 320, 800)
        assert training_bytes(linear, [torch.empty(4, 10)])[1] == 800 * 4  # weights, gradient, two states of Adam
        assert training_bytes(linear, [torch.empty(4, 10)], states_per_parameter=0)[1] == 800 * 2

    def test_imitation_counts_what_real_tensors_take(self):
        network = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
        image = torch.rand(2, 1, 32, 32)
        with _LiveBytes([*network.parameters(), *network.buffers(), image]) as live:
            _imitated_loss(network(image)).backward()
        estimated = training_bytes(network, [image], states_per_parameter=0)[0]
        weights = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
        assert estimated - weights - image.nbytes == pytest.approx(live.peak, rel=0.1)

    def test_it_grows_with_the_batch_and_leaves_the_network_alone(self):
        network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 3))
        before = [parameter.clone() for parameter in network.parameters()]
        one, two = (training_bytes(network, [torch.empty(n, 1, 64, 64)])[0] for n in (1, 2))
        assert 1.5 * one < two < 2.1 * one
        assert training_bytes(network, [torch.empty(1, 1, 64, 64)], num_passes=2)[0] > 1.3 * one
        assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
        assert next(network.parameters()).device.type == "cpu"

    def test_a_gradient_of_the_input_needs_the_activations(self):
        network = nn.Sequential(*[nn.Conv2d(4, 4, 3, padding=1) for _ in range(6)])
        image = torch.empty(1, 4, 64, 64)
        assert inference_bytes(network, [image], with_gradient=True)[0] > 1.5 * inference_bytes(network, [image])[0]

    def test_what_does_not_fit_is_refused_with_advice(self, torso_check, monkeypatch):
        small = Capacity("CPU", 100 << 20, 110 << 20)
        monkeypatch.setattr("common.tools.preflight.memory.device_capacity", lambda device: small)
        with pytest.raises(ValueError, match=r"100 MiB are free on CPU. Lower batch_size \(now 2\) or roi_size"):
            torso_check()

    def test_what_hardly_fits_is_a_warning(self, torso_check, monkeypatch):
        tight = Capacity("CPU", 170 << 20, 8 << 30)
        monkeypatch.setattr("common.tools.preflight.memory.device_capacity", lambda device: tight)
        assert "WARNING: a training step needs about" in torso_check()

    def test_a_size_that_the_network_refuses(self, torso_check):
        with pytest.raises(ValueError, match="The network cannot take one iteration of this size"):
            torso_check(roi_size=[24, 48])

    def test_scans_that_are_kept(self, torso_check, monkeypatch):
        tiny = Capacity("CPU", 1 << 10, 1 << 34)
        monkeypatch.setattr("common.tools.preflight.memory.host_capacity", lambda: tiny)
        assert "--cache_rate 0.0" in torso_check()


class TestFiles:
    def test_a_file_that_is_missing_is_named(self, torso_check, data, tmp_path):
        folder = tmp_path / "torso"
        shutil.copytree(data["torso"], folder)
        gone = sorted((folder / "imagesUn").iterdir())[0]
        gone.unlink()
        with pytest.raises(ValueError, match=f"{gone}: must exist"):
            torso_check(dataset_dir=str(folder))

    def test_weights_of_an_earlier_run(self, torso_check, tmp_path):
        (tmp_path / "ckpt_dir").mkdir()
        (tmp_path / "ckpt_dir" / "model.pt").touch()
        assert "holds model.pt of an earlier run, which this one writes over" in torso_check()

    def test_an_output_folder_that_is_a_file(self, torso_check, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="is a file"):
            torso_check(output_dir=str(tmp_path / "file" / "logs"))

    def test_weights_that_are_not_finite(self, torso_check, weights, tmp_path):
        state = torch.load(weights / "finetuned.pt", weights_only=True)
        state[next(iter(state))].fill_(float("nan"))
        torch.save(state, tmp_path / "bad.pt")
        with pytest.raises(ValueError, match="1 tensor with NaN or infinity"):
            torso_check("inference", "small", ckpt_path=str(tmp_path / "bad.pt"))

    def test_how_many_cases_are_read(self, torso_check):
        assert "(1 read, the run reads all)" in torso_check(check_cases=1)
        with pytest.raises(ValueError, match="check_cases must be a number of cases"):
            torso_check(check_cases=0)


@pytest.mark.slow
def test_as_a_program(data):
    files = repr([str(BUNDLES["volume_fusion"] / "configs" / name) for name in ("train.json", "small.json")])
    command = [sys.executable, "-m", "common.tools", "check", "--config_file", files]
    for options, status in ((["--dataset_dir", str(data["torso"])], 0), (["--dataset_dir", "nowhere"], 1)):
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
