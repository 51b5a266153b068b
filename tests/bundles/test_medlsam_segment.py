"""The promptable half of the bundle `medlsam` through its real JSON, on phantoms: boxes to masks."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.data.boxes import boxes_file, boxes_of_labels, read_boxes, write_boxes
from common.networks import MedLAM, SamSegmenter
from common.networks.promptable import VARIANTS
from common.weights import load_segmenter
from tests.bundles.conftest import BUNDLES

BUNDLE = "medlsam"
CONFIGS = BUNDLES[BUNDLE] / "configs"
FINETUNE = ["finetune_sam.json"]
TINY_SAM = ["finetune_sam.json", "tiny_sam.json"]
INFER = ["inference.json"]
EVALUATE = ["inference.json", "evaluate.json"]
SMALL = vars(
    replace(
        VARIANTS["tiny"], image_size=64, width=48, depth=2, global_blocks=(1,), window_size=4, embedding_channels=32
    )
)
NAMES = {1: "liver", 2: "spleen", 12: "lungs"}


@pytest.fixture(scope="module")
def trained(run_config, torso, tmp_path_factory):
    """A small SAM, trained wholly."""
    folder = tmp_path_factory.mktemp("sam")
    overrides = {"dataset_dir": str(torso), "ckpt_dir": str(folder), "output_dir": str(folder / "logs")}
    overrides |= {"architecture": SMALL, "num_workers": 0, "max_epochs": 2, "epoch_length": 75, "val_interval": 2}
    # tight boxes, which a network learns to fill soonest
    overrides |= {"box_probs": [1.0, 0.0, 0.0], "max_overshoot": 0, "jitter_px": [0.0, 20.0]}
    run_config(BUNDLE, TINY_SAM, {**overrides, "learning_rate": 0.003, "val_boxes": "reference_slices"})
    return folder


def evaluate(run_config, torso, weights, folder, **overrides):
    base = {"dataset_dir": str(torso), "sam_path": str(weights), "output_dir": str(folder), "num_workers": 0}
    run_config(BUNDLE, EVALUATE, {**base, "boxes_from": "reference_slices", **overrides})
    return json.loads((folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def evaluated(run_config, torso, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    return folder, evaluate(run_config, torso, trained / "model_last.pt", folder)


def first_test_case(torso):
    entry = json.loads((torso / "dataset.json").read_text())["test"][0]
    return torso / entry["image"], torso / entry["label"]


def write_reference_boxes(torso, folder, case, **options):
    label = nib.load(first_test_case(torso)[1])
    boxes = boxes_of_labels(np.asarray(label.dataobj), label.affine, NAMES, case, **options)
    write_boxes(boxes, boxes_file(folder, case))


class TestTraining:
    def test_loss_falls(self, trained):
        accumulator = EventAccumulator(str(trained / "logs"))
        accumulator.Reload()
        losses = [event.value for event in accumulator.Scalars("train_loss")]
        assert len(losses) == 150
        assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 0.3

    def test_the_checkpoint_tells_its_network(self, trained):
        segmenter = load_segmenter(trained / "model.pt", "medsam")
        assert segmenter.architecture.width == 48
        assert segmenter.image_size == 64

    def test_resume_and_a_frozen_encoder_whose_slices_are_encoded_once(self, run_config, torso, trained, tmp_path):
        """Fine-tuning of the decoder of given weights, as for the published ones."""
        overrides = {"dataset_dir": str(torso), "sam_path": str(trained / "model.pt"), "num_workers": 0}
        overrides |= {"ckpt_dir": str(tmp_path), "output_dir": str(tmp_path), "cache_dir": str(tmp_path / "slices")}
        overrides |= {"max_epochs": 1, "epoch_length": 4, "val_boxes": "reference_organs"}
        run_config(BUNDLE, FINETUNE, overrides)
        old, new = (load_segmenter(f / "model.pt", "medsam").state_dict() for f in (trained, tmp_path))
        changed = {key.split(".")[1] for key in old if not torch.equal(old[key], new[key])}
        assert changed == {"mask_decoder"}
        num_slices = len(list((tmp_path / "slices").glob("*.pt")))
        label = [nib.load(path).shape[2] for path in (torso / "labelsTr").iterdir()]
        assert 0 < num_slices <= sum(label)
        run_config(BUNDLE, FINETUNE, {**overrides, "max_epochs": 2, "resume": True})
        state = torch.load(tmp_path / "training_state.pt", weights_only=True)
        assert state["epoch"] == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("overlay", ["tiny_sam.json", None])
    def test_several_processes_train_together(self, run_two_processes, torso, trained, tmp_path, overlay):
        """The whole network, and the decoder of given weights alone."""
        overrides = {"dataset_dir": str(torso), "ckpt_dir": str(tmp_path), "output_dir": str(tmp_path)}
        overrides |= {"num_workers": 0, "max_epochs": 1, "epoch_length": 2, "cache_dir": str(tmp_path / "slices")}
        overrides |= {"architecture": SMALL} if overlay else {"sam_path": str(trained / "model.pt")}
        configs = ["finetune_sam.json", *([overlay] if overlay else []), "multi_gpu_finetune_sam.json"]
        run_two_processes(BUNDLE, configs, overrides)
        new = load_segmenter(tmp_path / "model.pt", "medsam").state_dict()
        old = load_segmenter(trained / "model.pt", "medsam").state_dict()
        assert old.keys() == new.keys()
        if overlay is None:
            assert {key.split(".")[1] for key in old if not torch.equal(old[key], new[key])} == {"mask_decoder"}


class TestSegmentation:
    def test_training_beats_the_untrained_network(self, run_config, torso, evaluated, tmp_path):
        torch.manual_seed(0)
        torch.save(SamSegmenter(SMALL).state_dict(), tmp_path / "untrained.pt")
        untrained = evaluate(run_config, torso, tmp_path / "untrained.pt", tmp_path)
        dice = "mean_over_structures"
        assert evaluated[1][dice]["dice"] > untrained[dice]["dice"] + 0.2

    def test_every_case_and_structure_is_scored(self, evaluated):
        folder, summary = evaluated
        with (folder / "scores.csv").open() as stream:
            rows = list(csv.DictReader(stream))
        assert len([row for row in rows if row["metric"] == "dice"]) == 12
        assert {"dice", "hd95_mm", "nsd"} <= {row["metric"] for row in rows}
        assert summary["num_cases"] == 1
        with (folder / "cases.csv").open() as stream:
            assert [row["outcome"] for row in csv.DictReader(stream)] == ["done"]

    def test_boxes_of_whole_organs_ask_for_more(self, run_config, torso, trained, evaluated, tmp_path):
        summary = evaluate(
            run_config, torso, trained / "model_last.pt", tmp_path, boxes_from="reference_organs", margin_px=0.0
        )
        dice = "mean_over_structures"
        assert 0 < summary[dice]["dice"] < evaluated[1][dice]["dice"]

    def test_masks_lie_in_the_geometry_of_the_input(self, run_config, torso, trained, tmp_path):
        image_path, _ = first_test_case(torso)
        data, boxes_dir = tmp_path / "data", tmp_path / "boxes"
        data.mkdir()
        turned = nib.as_closest_canonical(nib.load(image_path))
        for code in ("RAS", "LPI", "SAR", "AIL"):
            target = nib.orientations.axcodes2ornt(code)
            change = nib.orientations.ornt_transform(nib.io_orientation(turned.affine), target)
            nib.save(turned.as_reoriented(change), data / f"{code}.nii.gz")
            # one file of boxes for all: the boxes are those of the stored label map, whatever its orientation
            write_reference_boxes(torso, boxes_dir, code)
        overrides = {"dataset_dir": str(data), "sam_path": str(trained / "model_last.pt"), "num_workers": 0}
        overrides |= {"boxes_from": "files", "boxes_dir": str(boxes_dir), "output_dir": str(tmp_path / "out")}
        run_config(BUNDLE, INFER, overrides)
        reference = None
        for path in sorted(data.iterdir()):
            image = nib.load(path)
            mask = nib.load(tmp_path / "out" / f"{path.name.split('.')[0]}_seg.nii.gz")
            assert mask.shape == image.shape
            assert mask.get_data_dtype() == np.uint8
            np.testing.assert_allclose(mask.affine, image.affine, atol=1e-4)
            canonical = np.asarray(nib.as_closest_canonical(mask).dataobj)
            reference = canonical if reference is None else reference
            np.testing.assert_array_equal(canonical, reference)
        assert set(np.unique(reference)) <= {0, *NAMES}
        assert len(np.unique(reference)) > 1

    def test_boxes_come_from_the_localization_that_runs_first(self, run_config, torso, trained, tmp_path):
        """`localize.json` is replaced by a configuration that only copies boxes to where masks look for them."""
        image_path, _ = first_test_case(torso)
        write_reference_boxes(torso, tmp_path / "found", image_path.name.removesuffix(".nii.gz"))
        content = {
            "imports": ["$import shutil"],
            "source": str(tmp_path / "found"),
            "run": ["$shutil.copytree(@source, @output_dir)"],
        }
        (tmp_path / "stub.json").write_text(json.dumps(content))
        overrides = {"dataset_dir": str(torso), "sam_path": str(trained / "model_last.pt"), "num_workers": 0}
        overrides |= {"localize_files": [str(tmp_path / "stub.json")], "output_dir": str(tmp_path / "out")}
        run_config(BUNDLE, INFER, overrides)
        assert (tmp_path / "out" / "boxes" / "test_000_boxes.json").is_file()
        assert np.asarray(nib.load(tmp_path / "out" / "test_000_seg.nii.gz").dataobj).any()

    @pytest.mark.slow
    def test_localization_masks_and_scores_in_one_run(self, run_config, torso, trained, tmp_path):
        """An untrained MedLAM that takes every box as found: nothing is right, everything is there."""
        torch.manual_seed(0)
        torch.save(MedLAM(base_channels=4, patch_size=(32, 32, 32)).state_dict(), tmp_path / "medlam.pt")
        overrides = {"boxes_from": "localization", "medlam_path": str(tmp_path / "medlam.pt"), "num_supports": 1}
        overrides |= {"localize_files": [str(CONFIGS / name) for name in ("localize.json", "small.json")]}
        overrides |= {"localization#cache_templates": False, "localization#min_inside": 0.0}
        overrides |= {"localization#min_similarity": -10.0, "localization#num_starts": 2}
        summary = evaluate(run_config, torso, trained / "model_last.pt", tmp_path / "out", **overrides)
        assert summary["num_cases"] == 1
        assert read_boxes(tmp_path / "out" / "boxes" / "test_000_boxes.json").organs
        scores = json.loads((tmp_path / "out" / "boxes" / "boxes.json").read_text())
        assert scores["num_cases"] == 1
        mask = nib.load(tmp_path / "out" / "test_000_seg.nii.gz")
        assert mask.shape == nib.load(first_test_case(torso)[0]).shape

    def test_embeddings_on_disk_serve_the_next_run(self, run_config, torso, trained, evaluated, tmp_path):
        overrides = {"cache_embeddings": True, "cache_dir": str(tmp_path / "slices")}
        times = {}
        for number in range(2):
            summary = evaluate(run_config, torso, trained / "model_last.pt", tmp_path / f"{number}", **overrides)
            times[number] = {path.name: path.stat().st_ctime_ns for path in (tmp_path / "slices").iterdir()}
            assert summary["mean_over_structures"] == evaluated[1]["mean_over_structures"]
        assert times[0].keys() == times[1].keys()


class TestRefusals:
    def test_weights_of_medlam_where_sam_is_asked_for(self, run_config, torso, tmp_path):
        torch.save({"conv0_1.model.conv1_1.Conv.weight": torch.zeros(1)}, tmp_path / "medlam.pth")
        with pytest.raises(Exception, match="Failed to") as caught:
            evaluate(run_config, torso, tmp_path / "medlam.pth", tmp_path / "out")
        assert "holds the weights of 'medlam', not of SAM" in messages_of(caught.value)

    def test_a_missing_file_of_boxes(self, run_config, torso, trained, tmp_path):
        with pytest.raises(Exception, match="Failed to") as caught:
            evaluate(run_config, torso, trained / "model.pt", tmp_path, boxes_from="files", boxes_dir=str(tmp_path))
        assert "test_000_boxes.json: must be a file of boxes; found nothing" in messages_of(caught.value)
        with (tmp_path / "cases.csv").open() as stream:
            assert [row["outcome"] for row in csv.DictReader(stream)] == ["failed"]
        summary = json.loads((tmp_path / "summary.json").read_text())
        assert summary["mean_over_structures"]["dice"] == 0

    def test_boxes_from_the_reference_without_it(self, run_config, torso, trained, tmp_path):
        overrides = {"dataset_dir": str(torso), "sam_path": str(trained / "model.pt"), "num_workers": 0}
        with pytest.raises(Exception, match="Failed to") as caught:
            run_config(BUNDLE, INFER, {**overrides, "boxes_from": "reference_organs", "output_dir": str(tmp_path)})
        assert "need label_names" in messages_of(caught.value)


def messages_of(error):
    texts = []
    while error is not None:
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(texts)
