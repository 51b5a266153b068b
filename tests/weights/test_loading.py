"""Loading of weights: in full, in part by name, or not at all."""

import logging
import pickle

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from common.networks import FMUNet, PCTNet
from common.weights import load_weights, read_checkpoint

CHANNELS = (2, 2, 4, 8, 16)


def make_network(**arguments):
    return FMUNet(**{"feature_channels": CHANNELS, **arguments})


@pytest.fixture
def source():
    torch.manual_seed(1)
    return make_network()


def test_everything(source, tmp_path, caplog):
    torch.save(source.state_dict(), tmp_path / "model.pt")
    network = make_network()
    with caplog.at_level(logging.INFO):
        report = load_weights(network, tmp_path / "model.pt")
    assert len(caplog.records) == 1
    assert "Loaded 146 of 146 tensors of FMUNet from" in caplog.text
    assert report.loaded == tuple(source.state_dict())
    for key, tensor in source.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor)


def test_heads_are_dropped_by_name(source, caplog):
    network = make_network(out_channels=3)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    with caplog.at_level(logging.INFO):
        report = load_weights(network, source.state_dict(), drop_prefixes=["heads."])
    assert "dropped 16 of the file and kept 16 of the network under heads." in caplog.text
    assert set(report.dropped) == set(report.kept) == {key for key in before if key.startswith("heads.")}
    for key, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[key] if key in report.kept else source.state_dict()[key])


def test_heads_are_dropped_even_where_they_would_fit(source):
    network = make_network()
    head = network.heads[0].conv.weight.clone()
    load_weights(network, source.state_dict(), drop_prefixes="heads.")
    assert torch.equal(network.heads[0].conv.weight, head)


@pytest.mark.parametrize("key", ["model_state_dict", "state_dict", "network", "model"])
def test_wrapped_and_data_parallel(source, tmp_path, key):
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
    torch.save({key: state, "valid_pred": np.float32(0.9), "epoch": 3}, tmp_path / "model.pt")
    assert len(load_weights(make_network(), tmp_path / "model.pt").loaded) == 146


def test_half_precision_is_widened(source):
    half = {key: tensor.half() for key, tensor in source.state_dict().items()}
    network = make_network()
    load_weights(network, half)
    assert network.project.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("project.bias"), r"1 missing key \(project.bias\); no unexpected key"),
        (lambda state: state.update(extra=torch.zeros(1)), r"no missing key; 1 unexpected key \(extra\)"),
        (
            lambda state: state.update({"project.bias": torch.zeros(3)}),
            r"1 misshapen key \(project.bias \(3,\) for \(2,\)\). Build the network with the arguments",
        ),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_loaded(source, tmp_path, change, message):
    state = dict(source.state_dict())
    change(state)
    torch.save(state, tmp_path / "model.pt")
    network = make_network()
    before = network.project.weight.clone()
    with pytest.raises(ValueError, match=rf"Weights of {tmp_path / 'model.pt'} do not fit FMUNet: .*{message}"):
        load_weights(network, tmp_path / "model.pt")
    assert torch.equal(network.project.weight, before)


def test_other_classes_get_the_remedy(source):
    with pytest.raises(ValueError, match=r"8 misshapen keys .*drop_prefixes=\['heads.'\]"):
        load_weights(make_network(out_channels=2), source.state_dict())


def test_another_network(source):
    with pytest.raises(ValueError, match=r"do not fit PCTNet: .*missing keys"):
        load_weights(PCTNet(feature_channels=(4, 8, 16, 32, 64)), source.state_dict())


def test_a_published_layout_is_recognized(tmp_path):
    torch.save({"model_state_dict": {"pyramid_ct.down3.conv.0.weight": torch.zeros(2)}}, tmp_path / "authors.pt")
    command = f"python -m common.weights convert --name pctnet --source {tmp_path / 'authors.pt'} --output FILE"
    with pytest.raises(ValueError, match=command):
        load_weights(make_network(), tmp_path / "authors.pt")


@pytest.mark.parametrize("prefix", ["head.", ""])
def test_a_prefix_that_means_nothing_is_refused(source, prefix):
    with pytest.raises(ValueError, match=f"drop_prefixes must be starts of keys of FMUNet, .*heads.*got '{prefix}'"):
        load_weights(make_network(), source.state_dict(), drop_prefixes=[prefix])


class Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


def write_damaged(path, kind):
    torch.save(make_network().state_dict(), path)
    content = path.read_bytes()
    {
        "truncated": lambda: path.write_bytes(content[: len(content) // 2]),
        "empty": lambda: path.write_bytes(b""),
        "text": lambda: path.write_text("<!DOCTYPE html><html>quota exceeded</html>"),
        "noise": lambda: path.write_bytes(np.random.default_rng(0).bytes(500)),
        "pickle": lambda: path.write_bytes(pickle.dumps([1, 2, 3])),
        "code": lambda: torch.save(Malicious(), path),
        "zip": lambda: path.write_bytes(b"PK\x03\x04" + content[4:100]),
        "number": lambda: torch.save(3, path),
        "nothing": lambda: torch.save({}, path),
        "module": lambda: torch.save(torch.nn.Linear(1, 1), path),
    }[kind]()


@pytest.mark.parametrize(
    "kind", ["truncated", "empty", "text", "noise", "pickle", "code", "zip", "number", "nothing", "module"]
)
def test_what_is_not_a_checkpoint(tmp_path, kind):
    path = tmp_path / "model.pt"
    write_damaged(path, kind)
    with pytest.raises(ValueError, match=str(path)):
        read_checkpoint(path)


@pytest.mark.parametrize("seed", range(60))
def test_noise_of_any_kind_is_refused(tmp_path, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "model.pt"
    path.write_bytes((b"\x80\x02" if seed % 2 else b"") + rng.bytes(int(rng.integers(1, 60))))
    with pytest.raises(ValueError, match=r"cannot be read|must hold"):
        read_checkpoint(path)


def test_values_that_are_no_tensors(tmp_path):
    torch.save({"weight": torch.zeros(1), "epoch": 3}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="1 of 2 values are not, the first under 'epoch'"):
        read_checkpoint(tmp_path / "model.pt")


def test_absent_file_and_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"Checkpoint {tmp_path / 'model.pt'} does not exist"):
        read_checkpoint(tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match=f"Checkpoint {tmp_path} is a folder"):
        read_checkpoint(tmp_path)


def test_from_a_monai_config(source, tmp_path):
    torch.save(source.state_dict(), tmp_path / "model.pt")
    parser = ConfigParser(
        {
            "network_def": {"_target_": "common.networks.FMUNet", "feature_channels": list(CHANNELS)},
            "load": {
                "_target_": "common.weights.load_weights",
                "network": "@network_def",
                "path_or_state_dict": str(tmp_path / "model.pt"),
                "drop_prefixes": ["heads."],
            },
        }
    )
    import common.weights  # noqa: F401

    report = parser.get_parsed_content("load")
    assert len(report.loaded) == 130
    assert torch.equal(parser.get_parsed_content("network_def").project.weight, source.project.weight)
