"""Hostile files of weights: nothing in them runs, nothing grows, and no value that is none gets into a network."""

import ast
import json
import pickle
import re
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from common.networks import FMUNet
from common.weights import load_weights, read_checkpoint
from common.weights.inspection import inspect_checkpoint
from common.weights.sam import read_sam_weights
from tests.faults.hostile import OverBudgetError, budget, mutate

REPOSITORY = Path(__file__).resolve().parents[2]


class Code:
    """Runs as soon as it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def make_network():
    return FMUNet(feature_channels=(2, 2, 4, 8, 16))


def saved(path, content, **options):
    torch.save(content, path, **options)
    return path


def calls(tree, name):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
            yield node


class TestSources:
    def test_every_load_takes_weights_only(self):
        found = 0
        for path in sorted([*REPOSITORY.glob("common/**/*.py"), *REPOSITORY.glob("bundles/**/*.py")]):
            for call in calls(ast.parse(path.read_text()), "torch.load"):
                options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
                assert options.get("weights_only") == "True", f"{path}:{call.lineno}"
                found += 1
        assert found >= 5

    def test_nothing_else_unpickles(self):
        words = re.compile(r"pickle\.loads?\(|\b(?:dill|joblib|shelve|marshal)\b|allow_pickle=True|yaml\.load\(")
        for path in sorted(REPOSITORY.glob("common/**/*.py")):
            assert not words.search(path.read_text()), path

    def test_configurations_load_through_us(self):
        words = re.compile(r"torch\.load|pickle|CheckpointLoader|weights_only")
        for path in sorted(REPOSITORY.glob("bundles/*/configs/*.json")):
            assert not words.search(path.read_text()), path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "make",
    [
        lambda trap: Code(exec, f"open({str(trap)!r}, 'w')"),
        lambda trap: {"weight": torch.zeros(2), "extra": Code(exec, f"open({str(trap)!r}, 'w')")},
        lambda trap: {"state_dict": {"weight": Code(open, str(trap), "w")}},
        lambda trap: {Code(open, str(trap), "w"): torch.zeros(2)},
        lambda trap: [torch.zeros(2), Code(Path.touch, trap)],
        lambda trap: torch.nn.Linear(2, 2),
    ],
)
def test_code_is_refused_and_does_not_run(tmp_path, make, legacy):
    trap = tmp_path / "executed"
    path = saved(tmp_path / "model.pt", make(trap), _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match=r"holds more than weights"):
        read_checkpoint(path)
    assert not inspect_checkpoint(path).usable
    with pytest.raises(ValueError, match=r"holds more than weights"):
        load_weights(make_network(), path)
    assert not trap.exists()


def test_bare_pickles_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Code(open, str(tmp_path / "executed"), "w"), protocol))
        with pytest.raises(ValueError, match="cannot be read"):
            read_checkpoint(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"w": torch.zeros(1).expand(10**12)}, r"has the shape \(1000000000000,\) on 4 bytes"),
        ({"w": torch.zeros(3).as_strided((1000, 1000), (0, 0))}, "on 12 bytes"),
        ({"w": torch.zeros(3, dtype=torch.complex64)}, "is complex"),
        ({"w": torch.eye(3).to_sparse()}, "torch.sparse_coo"),
        ({"w": torch.empty(5, device="meta")}, "on meta"),
        ({"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "quantized"),
        ({"w": 3}, "only tensors"),
        ({"w": {"v": torch.zeros(3)}}, "only tensors"),
        ([torch.zeros(3)], "must hold a state dict"),
        (torch.zeros(3), "must hold a state dict"),
        ({}, "must hold a state dict"),
        (None, "must hold a state dict"),
    ],
)
def test_what_is_no_weight(tmp_path, state, message):
    path = saved(tmp_path / "model.pt", state)
    with budget(), pytest.raises(ValueError, match=rf"{message}|cannot be read"):
        read_checkpoint(path)
    with budget():
        assert not inspect_checkpoint(path).usable


class TestValues:
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_weights_that_are_not_finite(self, tmp_path, value):
        state = make_network().state_dict()
        key = next(key for key, tensor in state.items() if tensor.dim() > 1)
        state[key].view(-1)[3] = value
        network = make_network()
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        path = saved(tmp_path / "model.pt", state)
        with pytest.raises(ValueError, match=rf"must be finite; 1 tensor with NaN or infinity \({key}\)"):
            load_weights(network, path)
        assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())

    def test_beyond_the_type_of_the_network(self):
        state = {
            key: tensor.double() for key, tensor in make_network().state_dict().items() if tensor.is_floating_point()
        }
        state = {**make_network().state_dict(), **state}
        key = next(key for key, tensor in state.items() if tensor.dim() > 1)
        state[key].view(-1)[0] = 1e300
        with pytest.raises(ValueError, match="must be finite"):
            load_weights(make_network(), state)

    def test_dropped_weights_may_be_anything(self):
        state = make_network().state_dict()
        state["heads.0.conv.weight"].fill_(float("nan"))
        load_weights(make_network(), state, drop_prefixes="heads.")


class TestArchives:
    def rewrite(self, path, compression=zipfile.ZIP_STORED, change=lambda name, content: content):
        with zipfile.ZipFile(path) as stream:
            entries = {name: stream.read(name) for name in stream.namelist()}
        with zipfile.ZipFile(path, "w", compression) as stream:
            for name, content in entries.items():
                stream.writestr(name, change(name, content))

    def test_a_bomb(self, tmp_path):
        path = saved(tmp_path / "model.pt", {"w": torch.zeros(100 * 2**20)})
        self.rewrite(path, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 2**20
        with budget(limit_bytes=100 * 2**20), pytest.raises(ValueError, match="is compressed"):
            read_checkpoint(path)

    def test_a_storage_that_is_shorter_than_announced(self, tmp_path):
        path = saved(tmp_path / "model.pt", {"w": torch.zeros(1000)})
        self.rewrite(path, change=lambda name, content: content[:40] if "/data/" in name else content)
        with pytest.raises(ValueError, match="cannot be read"):
            read_checkpoint(path)

    def test_an_announced_terabyte(self, tmp_path):
        path = saved(tmp_path / "model.pt", {"w": torch.zeros(1000)})
        whole = struct.pack("<H", 1000)
        huge = b"\x8a\x06" + (2**40).to_bytes(6, "little")

        def announce(name, content):
            return content.replace(b"M" + whole, huge) if name.endswith("data.pkl") else content

        self.rewrite(path, change=announce)
        with budget(), pytest.raises(ValueError, match="cannot be read"):
            read_checkpoint(path)


def damaged_checkpoints(seed, count):
    """Damaged copies of the files that programs write: new and old form, bare and wrapped, and safetensors."""
    import io

    from safetensors.torch import save

    state = {"vision_encoder.a": torch.randn(5, 4), "b": torch.arange(6), "c": torch.randn(3).half()}
    bases = {"new.pt": ({}, state), "old.pt": ({"_use_new_zipfile_serialization": False}, {"model": state, "epoch": 3})}
    contents = {"a.safetensors": save({key: value.clone() for key, value in state.items()})}
    for name, (options, content) in bases.items():
        stream = io.BytesIO()
        torch.save(content, stream, **options)
        contents[name] = stream.getvalue()
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        name = sorted(contents)[index % 3]
        yield f"{name} {seed}-{index}", name, mutate(contents[name], rng, 700)[1]


def safetensors_lies():
    """Headers of safetensors that announce what is not there."""
    sound = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    for change in (
        *({"shape": shape} for shape in ([2**62], [-1], [3], "x", [2**32, 2**32])),
        *({"data_offsets": offsets} for offsets in ([0, 2**62], [8, 0], [-8, 0], [])),
        *({"dtype": dtype} for dtype in ("Z9", "F64")),
    ):
        header = json.dumps({"w": {**sound["w"], **change}}).encode()
        yield f"safetensors {change}", "a.safetensors", struct.pack("<Q", len(header)) + header + bytes(8)
    for length in (0, 1, 2**31, 2**63, 2**64 - 1):
        yield f"safetensors header of {length}", "a.safetensors", struct.pack("<Q", length) + b"{}" + bytes(8)


def read_as_written(path):
    """Read a file of weights; return its tensors or the refusal."""
    try:
        return read_sam_weights(path) if path.suffix == ".safetensors" else read_checkpoint(path)
    except ValueError as error:
        return error


def judge(path):
    """Read a file; a refusal names it, and values that come back are tensors that can be looked at."""
    with budget(limit_bytes=100 * 2**20):
        found = read_as_written(path)
        if isinstance(found, ValueError):
            assert str(path) in str(found)
        elif path.suffix != ".safetensors":
            assert all(bool((t == t).shape == t.shape) for t in found.values())
        inspect_checkpoint(path)
    return not isinstance(found, ValueError)


def judge_all(contents, folder):
    """Judge each file; return how many checkpoints could be read."""
    wrong, read = [], 0
    for label, name, content in contents:
        path = folder / name
        path.write_bytes(content)
        try:
            read += judge(path) and path.suffix != ".safetensors"
        except (Exception, OverBudgetError) as error:
            wrong.append(f"{label}: {type(error).__name__}: {str(error)[:300]}")
    assert not wrong, "\n".join(wrong)
    return read


def test_some_damaged_checkpoints(tmp_path):
    judge_all([*safetensors_lies(), *damaged_checkpoints(1, 60)], tmp_path)


@pytest.mark.slow
def test_damaged_checkpoints(tmp_path):
    assert judge_all([*safetensors_lies(), *damaged_checkpoints(0, 2000)], tmp_path)
