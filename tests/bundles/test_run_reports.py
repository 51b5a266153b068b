"""Every bundle's real JSON leaves what a report needs, and the report draws what belongs to its method."""

from __future__ import annotations

import json
import re

import pytest
import torch

from common.data.phantoms import write_fundus_phantoms, write_heart_phantoms
from common.networks import MedLAM, ResUNet
from common.tools.report import find_runs, report
from tests.bundles.conftest import BUNDLES

RECORD = "common.handlers.RunRecord"


def record_handlers(config):
    """Handlers that write run.json, wherever they stand."""
    if isinstance(config, dict):
        own = [config] if config.get("_target_") == RECORD else []
        return own + [found for value in config.values() for found in record_handlers(value)]
    if isinstance(config, list):
        return [found for value in config for found in record_handlers(value)]
    return []


@pytest.mark.parametrize("bundle", BUNDLES)
def test_every_configuration_that_runs_writes_one_record(bundle):
    for path in sorted((BUNDLES[bundle] / "configs").glob("*.json")):
        config = json.loads(path.read_text())
        if "imports" not in config:
            continue  # an overlay, or the metadata
        (handler,) = record_handlers(config)
        assert handler["output_dir"] == "@output_dir", path
        assert handler.get("_disabled_") == ("$@rank > 0" if "rank" in config else None), path


def page_of(folder):
    """The page of a run, which must not warn of anything."""
    report(str(folder))
    (run,) = find_runs(folder)
    assert run.is_completed
    page = (folder / "run_report.html").read_text()
    assert re.findall('<p class="warning">(.*?)</p>', page) == []
    return page


def captions(page):
    return re.findall("<figcaption>(.*?)</figcaption>", page)


@pytest.fixture(scope="module")
def fundus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fundus")
    write_fundus_phantoms(folder, 4, seed=1, num_validation=1, num_test=1, image_size=64)
    return folder


@pytest.mark.slow
class TestMethods:
    def test_fused_volumes_of_pretraining(self, run_config, torso, tmp_path):
        options = {"dataset_dir": str(torso), "ckpt_dir": str(tmp_path / "model"), "output_dir": str(tmp_path / "run")}
        small = {"max_epochs": 1, "epoch_length": 2, "num_workers": 0, "num_val_samples": 1}
        run_config("volume_fusion", ["train.json", "small.json"], {**options, **small})
        page = page_of(tmp_path / "run")
        assert captions(page).count("fused volume") == 4
        assert captions(page).count("classes to be found") == 4
        assert "train loss" in captions(page)

    @pytest.mark.parametrize("method", ["maco", "full_supervision"])
    def test_what_training_from_scribbles_sees(self, run_config, tmp_path, method):
        write_heart_phantoms(tmp_path / "data", 4, seed=1, num_validation=1, num_test=1, image_size=64, spacing_mm=3.0)
        options = {"dataset_dir": str(tmp_path / "data"), "output_dir": str(tmp_path / "run")}
        options |= {"ckpt_dir": str(tmp_path / "model"), "method": f"@methods#{method}"}
        small = {"roi_size": [64, 64], "patch_size": 8, "features": [8, 8, 8, 8, 8, 8], "num_workers": 0}
        steps = {"max_epochs": 1, "epoch_length": 2, "batch_size": 2}
        run_config("maco", ["train.json", "small.json"], {**options, **small, **steps})
        page = page_of(tmp_path / "run")
        of_all = ("image with its annotation", "segmented")
        of_maco = ("continuous pseudo label", "masked view", "segmented from it")
        assert {captions(page).count(caption) for caption in of_all} == {3}
        assert {captions(page).count(caption) for caption in of_maco} == {3 if method == "maco" else 0}

    def test_prompts_in_the_image_and_the_spectrum(self, run_config, fundus, tmp_path):
        page = page_of(self.adapt(run_config, "vptta", fundus, tmp_path))
        assert captions(page).count("image with its prompt") == 3
        assert captions(page).count("low frequencies of the image") == 3
        assert "loss of each image; a line where the domain changes" in captions(page)

    def test_steps_of_grata_over_the_stream(self, run_config, fundus, tmp_path):
        folder = self.adapt(run_config, "grata", fundus, tmp_path)
        page = page_of(folder)
        for name in ("cosine", "learning rate", "entropy", "consistency"):
            assert f"{name} of each image; a line where the domain changes" in captions(page)
        (run,) = find_runs(folder)
        steps = run.steps()
        assert [step["case"] for step in steps] == [case["case"] for case in run.settings["datalist"]]
        rates = [1e-4 * (float(step["cosine"]) + 1) ** 2 / 4 for step in steps]
        assert [float(step["learning_rate"]) for step in steps] == pytest.approx(rates, rel=1e-5)

    def adapt(self, run_config, bundle, fundus, tmp_path):
        torch.manual_seed(0)
        torch.save(ResUNet(in_channels=3, out_channels=2).state_dict(), tmp_path / "model.pt")
        options = {"dataset_dir": str(fundus), "ckpt_path": str(tmp_path / "model.pt"), "section": ["test"]}
        small = {"num_workers": 0, "image_size": 64, "output_dir": str(tmp_path / "run")}
        run_config(bundle, ["inference.json", "small.json", "evaluate.json"], {**options, **small})
        return tmp_path / "run"

    def test_path_and_boxes_of_a_localization(self, run_config, torso, tmp_path):
        torch.manual_seed(0)
        torch.save(MedLAM(base_channels=2, patch_size=(16, 16, 32)).state_dict(), tmp_path / "model.pt")
        options = {"dataset_dir": str(torso), "ckpt_path": str(tmp_path / "model.pt"), "num_workers": 0}
        options |= {"output_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache"), "base_channels": 2}
        options |= {"spacing_mm": [12.0] * 3, "patch_size": [16, 16, 32], "min_similarity": 0.0, "min_inside": 0.0}
        run_config("medlsam", ["localize.json", "small.json", "evaluate_boxes.json"], options)
        page = page_of(tmp_path / "run")
        assert captions(page) == ["axial", "coronal", "sagittal"] * 3
        assert "path: from the start to what is expected" in page
        assert 'aria-label="Every case and organ' in page
