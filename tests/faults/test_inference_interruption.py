"""An inference that is killed anywhere and started again gives the files of one that was not, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from common.data.phantoms import write_torso_phantoms
from common.networks import MedLAM
from tests.faults.inference_runs import (
    STREAMS,
    contents_of,
    heart_overrides,
    outcomes_of,
    run_inference,
    segmenter_overrides,
    stream_overrides,
    volume_overrides,
    write_photographs,
    write_volumes,
)
from tests.faults.killing import kill_until_done, run_and_kill

NUM_CASES = 8
INFER = ("inference.json",)
EVALUATE = ("inference.json", "evaluate.json")
# Points at which the inference of each bundle is killed: in all tests, and in the quick ones.
NUM_KILLS, NUM_QUICK = 32, 3
BUNDLES = ("volume_fusion", "maco", "vptta", "grata", "medlsam")


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    write_volumes(folder / "volumes", NUM_CASES)
    write_photographs(folder / "photographs", NUM_CASES)
    torso = {"num_unlabeled": 0, "num_validation": 0, "num_test": 4, "spacing_mm": 12.0, "field_of_view": "abdomen"}
    write_torso_phantoms(folder / "torso", 5, seed=1, **torso)
    torch.manual_seed(0)
    torch.save(MedLAM(base_channels=2, patch_size=(16, 16, 32)).state_dict(), folder / "medlam.pt")
    return {name: folder / name for name in ("volumes", "photographs", "torso", "medlam.pt")}


@pytest.fixture
def run_to(sources, tmp_path):
    """A function that gives the run of a bundle to a folder, with scores."""

    def prepare(bundle, output, configs=EVALUATE, **options):
        if bundle in STREAMS:
            settings = stream_overrides(sources["photographs"], tmp_path, output_dir=str(output), **options)
        elif bundle == "medlsam":
            settings = segmenter_overrides(sources, tmp_path, output_dir=str(output), **options)
        else:
            make = volume_overrides if bundle == "volume_fusion" else heart_overrides
            settings = make(sources["volumes"], tmp_path, output_dir=str(output), **options)
        return lambda: run_inference(bundle, settings, configs)

    return prepare


def check_kills(bundle, run_to, tmp_path, num_kills, seed, configs=EVALUATE):
    start = time.perf_counter()
    run_to(bundle, tmp_path / "whole", configs)()
    seconds = time.perf_counter() - start
    expected = contents_of(tmp_path / "whole")
    assert len([name for name in expected if name.endswith(("_seg.nii.gz", "_mask.png"))]) >= 4
    generator, kills = random.Random(seed), 0
    while kills < num_kills:
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        action = run_to(bundle, tmp_path / "killed", configs)
        kills += kill_until_done(action, tmp_path / "killed", generator, 25, seconds, num_kills - kills)
        found = contents_of(tmp_path / "killed")
        assert found.keys() == expected.keys()
        assert {name for name in expected if found[name] != expected[name]} == set()


@pytest.mark.parametrize("bundle", BUNDLES)
def test_killed_a_few_times(bundle, run_to, tmp_path):
    configs = EVALUATE if bundle in STREAMS else INFER
    check_kills(bundle, run_to, tmp_path, 1 if bundle == "medlsam" else NUM_QUICK, seed=1, configs=configs)


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES)
def test_killed_at_random_points(bundle, run_to, tmp_path):
    check_kills(bundle, run_to, tmp_path, NUM_KILLS, seed=2)


@pytest.mark.slow
@pytest.mark.parametrize(("bundle", "reset"), [("vptta", False), ("grata", True)])
def test_streams_killed_everywhere(bundle, reset, run_to, tmp_path):
    """Between two images and at the border of two domains, with and without a fresh start there; one kill a run."""
    run_to(bundle, tmp_path / "whole", INFER, reset_on_domain_change=reset)()
    expected = contents_of(tmp_path / "whole")
    action = run_to(bundle, tmp_path / "killed", INFER, reset_on_domain_change=reset)
    events, kills = 1, 0
    while not run_and_kill(action, tmp_path / "killed", after_events=events):
        assert run_and_kill(action, tmp_path / "killed")
        assert contents_of(tmp_path / "killed") == expected
        shutil.rmtree(tmp_path / "killed")
        events += random.Random(events).randint(2, 6)
        kills += 1
    assert kills >= 20


class TestSkipping:
    """What is finished is skipped, and nothing else."""

    def times(self, folder):
        return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*_seg.nii.gz")}

    def test_nothing_is_done_twice(self, run_to, tmp_path):
        out = tmp_path / "out"
        run_to("volume_fusion", out, INFER)()
        before, times = contents_of(out), self.times(out)
        run_to("volume_fusion", out, INFER, num_workers=1)()
        assert contents_of(out) == before
        assert self.times(out) == times
        run_to("volume_fusion", out, INFER, skip_finished=False)()
        assert contents_of(out) == before
        assert not set(self.times(out).items()) & set(times.items())

    @pytest.mark.parametrize("change", ["setting", "weights", "image", "output", "output removed", "journal"])
    def test_what_changed_is_done_again(self, change, run_to, sources, tmp_path):
        out = tmp_path / "out"
        run_to("volume_fusion", out, INFER)()
        times, expected, options = self.times(out), NUM_CASES, {}
        one = out / "case_003_seg.nii.gz"
        if change == "setting":
            options = {"overlap": 0.25}
        elif change == "weights":
            torch.save({"threshold": torch.tensor(0.45)}, tmp_path / "model.pt")
        elif change == "image":
            os.utime(sources["volumes"] / "imagesTs" / "case_003.nii.gz")
            expected = 1
        elif change == "output":
            one.write_bytes(one.read_bytes()[:-5])
            expected = 1
        elif change == "output removed":
            one.unlink()
            expected = 1
        else:  # its last line torn
            journal = out / "cases.jsonl"
            journal.write_bytes(journal.read_bytes()[:-40])
            expected = 1
        run_to("volume_fusion", out, INFER, **options)()
        changed = {name for name, when in self.times(out).items() if times.get(name) != when}
        assert len(changed) == expected
        assert set(outcomes_of(out).values()) == {"done"}

    def test_a_folder_that_grows(self, run_to, sources, tmp_path):
        """Run every night over what has come in."""
        data = tmp_path / "data"
        shutil.copytree(sources["volumes"], data)
        late = [path for path in (data / "imagesTs").iterdir() if path.name > "case_005"]
        for path in late:
            path.rename(tmp_path / path.name)
        out = tmp_path / "out"
        run_to("volume_fusion", out, INFER, dataset_dir=str(data))()
        times = self.times(out)
        assert len(times) == NUM_CASES - len(late)
        for path in late:
            (tmp_path / path.name).rename(path)
        run_to("volume_fusion", out, INFER, dataset_dir=str(data))()
        assert times.items() <= self.times(out).items()
        assert len(outcomes_of(out)) == NUM_CASES

    @pytest.mark.parametrize("bundle", STREAMS)
    def test_a_stream_begins_anew_where_an_early_image_changed(self, bundle, run_to, sources, tmp_path):
        data = tmp_path / "data"
        shutil.copytree(sources["photographs"], data)
        out = tmp_path / "out"
        run_to(bundle, out, INFER, dataset_dir=str(data))()
        before = {path: path.stat().st_mtime_ns for path in out.rglob("*_mask.png")}
        os.utime(data / "b" / "imagesTs" / "p001.png")
        run_to(bundle, out, INFER, dataset_dir=str(data))()
        assert not [path for path, when in before.items() if path.stat().st_mtime_ns == when]

    def test_a_state_that_is_torn_is_not_used(self, run_to, tmp_path):
        out = tmp_path / "out"
        run_to("grata", out, INFER)()
        before = contents_of(out)
        state = out / "stream_state.pt"
        state.write_bytes(state.read_bytes()[:-100])
        run_to("grata", out, INFER)()
        assert contents_of(out) == before

    def test_leftovers_of_killed_processes_are_removed(self, run_to, tmp_path):
        out = tmp_path / "out"
        out.mkdir()
        for name in (".case_000_seg.nii.gz.123.tmp.nii.gz", ".cases.jsonl.77.tmp"):
            (out / name).write_bytes(b"half")
        run_to("volume_fusion", out, INFER)()
        assert not list(out.rglob(".*"))

    def test_the_journal_tells_scores_exactly(self, run_to, tmp_path):
        out = tmp_path / "out"
        run_to("vptta", out)()
        entries = [json.loads(line) for line in (out / "cases.jsonl").read_text().splitlines()]
        kept = [score for entry in entries for channel in entry["notes"]["metrics.csv"] for score in channel]
        summary = json.loads((out / "domains.json").read_text())
        assert np.mean(kept[0::5]) == pytest.approx(summary["pooled"]["mean"]["dice"], abs=1e-12)
