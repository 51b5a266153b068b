"""Weights of SAM: every form that they come in, and what is refused."""

import json
from dataclasses import replace

import pytest
import torch

from common.networks import MedLAM, SamSegmenter
from common.networks.promptable import VARIANTS
from common.weights import convert_checkpoint, convert_state_dict, load_segmenter, load_weights
from common.weights.sam import POSITIONS, POSITIONS_AGAIN, find_architecture, published_modules

SMALL = replace(
    VARIANTS["tiny"], width=32, embedding_channels=32, depth=2, global_blocks=(1,), patch_size=16, window_size=3
)


@pytest.fixture(scope="module")
def segmenter():
    torch.manual_seed(0)
    return SamSegmenter(SMALL).eval()


def published(network):
    """The state dict of a network under the authors' names."""
    modules = {ours: theirs for theirs, ours in published_modules(network.architecture.depth).items()}
    state = {}
    for key, tensor in network.state_dict().items():
        module, _, parameter = key.rpartition(".")
        if key != POSITIONS_AGAIN:
            parameter = parameter.replace("positional_embedding", "positional_encoding_gaussian_matrix")
            state[f"{modules[module]}.{parameter}"] = tensor
    return state


def assert_same(network, other):
    state = other.state_dict()
    assert all(torch.equal(tensor, state[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("variant", ["vit_b", "vit_l", "vit_h"])
def test_published_networks_are_recognized_from_shapes(variant):
    with torch.device("meta"):
        network = SamSegmenter(variant)
    state = published(network)
    if variant == "vit_b":
        assert len(state) == 314
    converted = convert_state_dict("sam", state)
    assert not converted.dropped
    assert {key: tensor.shape for key, tensor in converted.state_dict.items()} == {
        key: tensor.shape for key, tensor in network.state_dict().items()
    }
    assert find_architecture(converted.state_dict) == VARIANTS[variant]


@pytest.mark.parametrize("form", ["bare", "model", "module", "both"])
def test_published_file(segmenter, tmp_path, form):
    state = published(segmenter)
    if form in ("module", "both"):
        state = {f"module.{key}": tensor for key, tensor in state.items()}
    torch.save({"model": state, "epoch": 3} if form in ("model", "both") else state, tmp_path / "sam.pth")
    loaded = load_segmenter(tmp_path / "sam.pth", "medsam")
    assert loaded.architecture == SMALL
    assert_same(loaded, segmenter)


def test_our_file_and_a_converted_one(segmenter, tmp_path):
    torch.save(segmenter.state_dict(), tmp_path / "model.pt")
    assert_same(load_segmenter(tmp_path / "model.pt", "medsam"), segmenter)
    torch.save(published(segmenter), tmp_path / "sam.pth")
    convert_checkpoint("sam", tmp_path / "sam.pth", tmp_path / "converted.pt")
    assert_same(load_segmenter(tmp_path / "converted.pt", "sam"), segmenter)


def test_local_hugging_face_folder(segmenter, tmp_path):
    segmenter.sam.save_pretrained(tmp_path)
    loaded = load_segmenter(tmp_path, "sam")
    assert loaded.preprocess == "sam"
    assert_same(loaded, segmenter)


class TestRefusals:
    def test_weights_of_medlam(self, tmp_path):
        (tmp_path / "layout.json").write_text("{}")
        key = "module.conv0_1.model.conv1_1.Conv.weight"
        torch.save({key: torch.zeros(1), "module.fc1.weight": torch.zeros(1)}, tmp_path / "medlam.pth")
        with pytest.raises(
            ValueError, match=r"medlam.pth holds the weights of 'medlam', not of SAM. Give a checkpoint"
        ):
            load_segmenter(tmp_path / "medlam.pth", "medsam")

    def test_weights_of_sam_where_medlam_belongs(self, segmenter, tmp_path):
        torch.save(published(segmenter), tmp_path / "sam.pth")
        with pytest.raises(ValueError, match="This is the authors' layout of 'sam'"):
            load_weights(MedLAM(), tmp_path / "sam.pth")

    def test_other_weights(self, tmp_path):
        torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=r"other.pt holds no weights of SAM: none of its 1 keys.*'stem.weight'"):
            load_segmenter(tmp_path / "other.pt", "medsam")

    def test_a_key_too_many_or_missing(self, segmenter, tmp_path):
        state = published(segmenter)
        with pytest.raises(ValueError, match=r"1 unknown key \(surprise.weight\)"):
            convert_state_dict("sam", {**state, "surprise.weight": torch.zeros(1)})
        ours = segmenter.state_dict()
        del ours["sam.mask_decoder.iou_token.weight"]
        torch.save(ours, tmp_path / "model.pt")
        with pytest.raises(ValueError, match=r"1 missing key \(sam.mask_decoder.iou_token.weight\)"):
            load_segmenter(tmp_path / "model.pt", "medsam")

    def test_positions_are_filled_from_either_place(self, segmenter, tmp_path):
        ours = segmenter.state_dict()
        del ours[POSITIONS]
        torch.save(ours, tmp_path / "model.pt")
        assert_same(load_segmenter(tmp_path / "model.pt", "medsam"), segmenter)

    def test_an_encoder_alone(self, segmenter, tmp_path):
        torch.save({k: v for k, v in segmenter.state_dict().items() if "mask_decoder" not in k}, tmp_path / "model.pt")
        with pytest.raises(ValueError, match=r"must hold sam.mask_decoder.*which these do not"):
            load_segmenter(tmp_path / "model.pt", "medsam")

    def test_resolution_mode(self, segmenter):
        with pytest.raises(ValueError, match="resolution_mode must be left out for 'sam'"):
            convert_state_dict("sam", published(segmenter), 1)

    def test_folders_and_files(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            load_segmenter(tmp_path / "nothing.pth", "medsam")
        (tmp_path / "config.json").write_text(json.dumps({}))
        with pytest.raises(FileNotFoundError, match=r"must hold model.safetensors or pytorch_model.bin.*config.json"):
            load_segmenter(tmp_path, "medsam")
        (tmp_path / "model.safetensors").write_bytes(b"not weights")
        with pytest.raises(ValueError, match=r"model.safetensors cannot be read"):
            load_segmenter(tmp_path, "medsam")
