"""Conversion of published checkpoints: what is dropped and what is refused. The full layouts are in tests/parity."""

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch

from common.networks import FMUNet, PCTNet
from common.networks.pct_net import relative_position_index
from common.weights import convert_checkpoint, convert_state_dict, fmunet, load_weights, pctnet

CHANNELS = (4, 8, 16, 32, 64)


def published(network, modules):
    """The state dict of `network` under the published names."""
    ours_to_published = {ours: name for name, ours in modules.items()}
    state = {}
    for key, tensor in network.state_dict().items():
        module, _, parameter = key.rpartition(".")
        parameter = parameter.replace("bias_table", "relative_position_bias_table")
        state[f"{ours_to_published[module]}.{parameter}"] = tensor
    return state


@pytest.fixture
def pct_state():
    torch.manual_seed(0)
    state = published(PCTNet(feature_channels=CHANNELS, resolution_mode=1), pctnet.published_modules(1))
    index_key = "pyramid_ct.convtrans_e4.trans.blocks.1.attn.relative_position_index"
    return {**state, index_key: relative_position_index()}


@pytest.fixture
def fm_state():
    torch.manual_seed(0)
    return published(FMUNet(feature_channels=CHANNELS, resolution_mode=1), fmunet.published_modules())


def test_round_trip(pct_state):
    converted = convert_state_dict("pctnet", pct_state)
    torch.manual_seed(0)
    original = PCTNet(feature_channels=CHANNELS, resolution_mode=1).state_dict()
    assert converted.state_dict.keys() == original.keys()
    assert all(torch.equal(converted.state_dict[key], original[key]) for key in original)
    assert list(converted.dropped.values()) == ["a constant that the network recomputes"]


def test_every_dropped_key_has_its_reason(pct_state):
    extra = {
        "embeddings.0.proj.weight": "stem or head of resolution mode 0, and mode 1 is built",
        "pred_heads.2.out_conv0.conv.2.bias": "stem or head of resolution mode 2, and mode 1 is built",
        "pyramid_ct.convtrans_e2.norm_layer.weight": "a normalization that the published forward never calls",
    }
    dropped = convert_state_dict("pctnet", {**pct_state, **dict.fromkeys(extra, torch.zeros(1))}).dropped
    assert extra.items() <= dropped.items()


def test_whole_checkpoint_dictionary_and_data_parallel_prefix(fm_state):
    wrapped = {
        "iteration": 3,
        "valid_pred": 0.5,
        "model_state_dict": {f"module.{key}": tensor for key, tensor in fm_state.items()},
        "optimizer_state_dict": {"state": {}},
    }
    assert convert_state_dict("fmunet", wrapped).state_dict.keys() == convert_state_dict("fmunet", fm_state)[0].keys()


def test_unknown_and_missing_keys_are_named(pct_state, fm_state):
    with pytest.raises(ValueError, match=r"1 unknown key \(surprise.weight\); no missing module"):
        convert_state_dict("pctnet", {**pct_state, "surprise.weight": torch.zeros(1)})
    del fm_state["project.weight"], fm_state["project.bias"]
    with pytest.raises(ValueError, match=r"no unknown key; 1 missing module \(project\)"):
        convert_state_dict("fmunet", fm_state)
    with pytest.raises(ValueError, match=r"not the published layout of 'fmunet': \d+ unknown keys"):
        convert_state_dict("fmunet", pct_state)
    with pytest.raises(ValueError, match="missing modules"):
        convert_state_dict("pctnet", pct_state, resolution_mode=0)


def test_shrunken_windows_are_refused(pct_state):
    key = "pyramid_ct.convtrans_e4.trans.blocks.0.attn.relative_position_bias_table"
    pct_state[key] = torch.zeros(7**3, 16)
    with pytest.raises(ValueError, match=rf"1 relative position bias tables .*1331 rows.*{key} has shape \(343, 16\)"):
        convert_state_dict("pctnet", pct_state)


def test_another_index_is_refused_and_a_blank_one_is_not(pct_state):
    key = next(key for key in pct_state if key.endswith("relative_position_index"))
    pct_state[key] = relative_position_index(legacy=False)
    with pytest.raises(ValueError, match=f"{key} .*is not the relative position index"):
        convert_state_dict("pctnet", pct_state)
    pct_state[key] = torch.zeros(216, 216, dtype=torch.int64)
    assert key in convert_state_dict("pctnet", pct_state).dropped


def test_mode_of_fmunet_is_read_from_its_kernels(fm_state):
    convert_state_dict("fmunet", fm_state, resolution_mode=1)
    with pytest.raises(ValueError, match="resolution_mode is 0, but 1 of the two finest levels"):
        convert_state_dict("fmunet", fm_state, resolution_mode=0)


def test_names_and_modes_are_checked(fm_state):
    with pytest.raises(ValueError, match=r"name must be one of pctnet, fmunet, .*got 'unet'"):
        convert_state_dict("unet", fm_state)
    with pytest.raises(ValueError, match="resolution_mode must be 0, 1 or 2, or be left out, got 3"):
        convert_state_dict("fmunet", fm_state, resolution_mode=3)


def test_file_to_file(pct_state, tmp_path, caplog):
    source, output = tmp_path / "authors.pt", tmp_path / "new" / "ours.pt"
    content = {"model_state_dict": pct_state, "valid_pred": np.float64(0.8), "iteration": np.int64(7)}
    torch.save(content, source)
    with caplog.at_level(logging.INFO):
        convert_checkpoint("pctnet", source, output)
    assert "a constant that the network recomputes" in caplog.text
    assert "404 tensors of 'pctnet'" in caplog.text
    assert [file.name for file in output.parent.iterdir()] == ["ours.pt"]
    load_weights(PCTNet(feature_channels=CHANNELS), output)


def test_a_bad_source_leaves_no_output(fm_state, tmp_path):
    source, output = tmp_path / "authors.pt", tmp_path / "ours.pt"
    torch.save(fm_state, source)
    with pytest.raises(ValueError, match=f"{source}: The state dict is not the published layout of 'pctnet'"):
        convert_checkpoint("pctnet", source, output)
    assert not output.exists()


def test_command_line(fm_state, tmp_path):
    source, output = tmp_path / "authors.pt", tmp_path / "ours.pt"
    torch.save({"model_state_dict": fm_state}, source)

    def run(*options):
        command = [sys.executable, "-m", "common.weights", "convert", *options]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    good = run("--name", "fmunet", "--source", str(source), "--output", str(output))
    assert good.returncode == 0, good.stderr
    assert "Wrote" in good.stdout
    assert len(torch.load(output, weights_only=True)) == 146
    bad = run("--name", "fmunet", "--source", str(tmp_path / "absent.pt"), "--output", str(output))
    assert bad.returncode == 1
    assert bad.stderr.splitlines()[-1].startswith(f"error: Checkpoint {tmp_path / 'absent.pt'} does not exist")
    assert "Traceback" not in bad.stderr
