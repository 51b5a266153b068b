"""What a file is: whose weights, sound or not, or none at all."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from common.networks import FMUNet, MedLAM, ResUNet
from common.weights import CATALOG, RELEASES, inspect_checkpoint
from common.weights.__main__ import main
from common.weights.catalog import describe_catalog

CHANNELS = [4, 4, 8, 8, 16]


@pytest.fixture
def save(tmp_path):
    def write(content):
        torch.save(content, tmp_path / "file.pt")
        return tmp_path / "file.pt"

    return write


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["weights", *map(str, arguments)])
    main()


class TestInspect:
    @pytest.mark.parametrize(
        ("network", "kind"),
        [
            (FMUNet(feature_channels=CHANNELS), "PCTNet or FMUNet of this project"),
            (MedLAM(base_channels=1, patch_size=(16, 16, 32)), "MedLAM of this project"),
            (ResUNet(3, 2, "resnet34"), "ResUNet of this project"),
        ],
        ids=["fmunet", "medlam", "res_unet"],
    )
    def test_own_networks(self, save, network, kind):
        report = inspect_checkpoint(save(network.state_dict()))
        assert report.kind.startswith(kind)
        assert report.usable
        assert report.num_tensors == len(network.state_dict())
        assert report.num_parameters == sum(t.numel() for t in network.state_dict().values())
        assert not report.doubts

    @pytest.mark.parametrize("name", RELEASES)
    def test_published_layouts_name_their_converter(self, save, name):
        report = inspect_checkpoint(save({RELEASES[name].marker: torch.zeros(1)}))
        assert "publish" in report.kind
        assert ("--sam_path" if name == "sam" else f"convert --name {name}") in report.advice

    def test_types_and_size(self, save):
        report = inspect_checkpoint(save({"heads.a": torch.ones(2, 3), "heads.b": torch.ones(4, dtype=torch.int64)}))
        assert report.dtypes == {"float32": 6, "int64": 4}
        assert (report.num_tensors, report.num_parameters) == (2, 10)
        assert report.largest[0] == "heads.a (2, 3)"

    @pytest.mark.parametrize(
        ("value", "doubt"),
        [
            (float("nan"), "NaN or infinity in 1 tensors, such as heads.a"),
            (1e7, "above 1e6"),
            (0.0, "nothing but zero"),
        ],
    )
    def test_doubtful_values(self, save, value, doubt):
        report = inspect_checkpoint(save({"heads.a": torch.full((2, 2), value), "heads.b": torch.ones(2, 2)}))
        assert len(report.doubts) == 1
        assert doubt in report.doubts[0]

    def test_training_state(self, save):
        state = {"network": {"heads.a": torch.ones(1)}, "objects": {}, "epoch": 1, "random": {}}
        report = inspect_checkpoint(save(state))
        assert report.kind.startswith("state of an interrupted training, with the weights of PCTNet or FMUNet")
        assert "--resume" in report.advice

    def test_optimizer_state(self, save):
        optimizer = torch.optim.Adam(nn.Linear(2, 2).parameters())
        report = inspect_checkpoint(save(optimizer.state_dict()))
        assert report.kind == "state of an optimizer, without weights"
        assert not report.usable

    def test_torchscript(self, tmp_path):
        torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "model.ts")
        report = inspect_checkpoint(tmp_path / "model.ts")
        assert report.kind.startswith("TorchScript")
        assert not report.usable

    def test_a_pickled_network_is_not_executed(self, save):
        report = inspect_checkpoint(save(nn.Linear(2, 2)))
        assert report.kind == "not weights"
        assert "save a bare state dict" in report.advice
        assert "weights_only` set to `False`" not in report.advice

    def test_wrapped_and_unknown(self, save):
        report = inspect_checkpoint(save({"state_dict": {"module.backbone": torch.ones(1)}, "epoch": 3}))
        assert report.kind == (
            "weights of a network that is not known here; the first tensor is 'backbone', under the key 'state_dict'"
        )
        assert not report.usable

    @pytest.mark.parametrize("content", [[1, 2], {"a": 1}, {}], ids=["list", "number", "empty"])
    def test_no_state_dict(self, save, content):
        assert inspect_checkpoint(save(content)).kind.startswith("not weights")

    def test_missing_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            inspect_checkpoint(tmp_path / "a.pt")


class TestCommands:
    def test_list_has_every_release(self, monkeypatch, caplog):
        with caplog.at_level("INFO"):
            run(monkeypatch, "list")
        assert all(f"convert --name {name} " in caplog.text for name in RELEASES if name != "sam")
        assert "medlam.pth" in caplog.text
        assert "contradictory" in caplog.text

    def test_the_catalog_leaves_no_field_empty(self):
        assert all(entry.files and entry.origin and entry.license and entry.remark for entry in CATALOG)
        assert max(len(line) for line in describe_catalog()) <= 120
        assert {entry.converter for entry in CATALOG} - {""} == set(RELEASES) - {"sam"}

    def test_inspect_ends_by_what_it_finds(self, monkeypatch, save, caplog):
        with caplog.at_level("INFO"):
            run(monkeypatch, "inspect", "--source", save({"heads.a": torch.ones(2)}))
        assert "1 tensors, 2 numbers (float32 2)" in caplog.text
        with pytest.raises(SystemExit, match="not known here"):
            run(monkeypatch, "inspect", "--source", save({"x": torch.ones(2)}))
        with pytest.raises(SystemExit, match="the training diverged"):
            run(monkeypatch, "inspect", "--source", save({"heads.a": torch.tensor([float("nan")])}))

    @pytest.mark.slow
    def test_as_a_program(self):
        command = [sys.executable, "-m", "common.weights", "list"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0
        assert "pctnet_ct10k_volf.pt" in done.stdout
