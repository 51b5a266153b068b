"""A training that is interrupted anywhere ends, once resumed, like one that was not: the same weights, bit for bit."""

from __future__ import annotations

import functools
import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from monai.bundle import run

from tests.faults.training_runs import (
    EPOCHS,
    ITERATIONS,
    STATE_FILE,
    TRAININGS,
    WEIGHT_FILES,
    Processes,
    RaiseAt,
    assert_same_training,
    options_of,
    phantoms_in,
    uninterrupted_in,
    with_handler,
)

SIGNALS = (signal.SIGTERM, signal.SIGKILL)
# One a bundle: `grata` has the training of `vptta`, word by word, which tests/bundles/test_grata.py holds it to.
QUICK = ("vptta", "maco", "medlsam", "volume_fusion")
KILLS = {name: 30 if name in (*QUICK, "grata") else 8 for name in TRAININGS}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return phantoms_in(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def processes() -> Processes:
    return Processes()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Callable[[str], Path]:
    """Give the folder of a training that nothing has interrupted."""
    return functools.partial(uninterrupted_in, tmp_path_factory.getbasetemp())


def slow_unless_quick(names):
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", slow_unless_quick(TRAININGS))
def test_resumed_with_other_loader_processes_as_if_nothing_had_happened(name, data, uninterrupted, tmp_path):
    """Not at the end of an epoch, and with two loader processes where the uninterrupted run had none."""
    generator = random.Random(name)
    iteration = generator.randrange(ITERATIONS + 1, EPOCHS * ITERATIONS)
    options = options_of(TRAININGS[name], data, tmp_path, num_workers=generator.choice([0, 2]))
    stopped = with_handler(options, tmp_path, _target_=f"{RaiseAt.__module__}.RaiseAt", iteration=iteration)
    with pytest.raises(KeyboardInterrupt):
        run(**stopped)
    assert json.loads((tmp_path / "logs" / "run.json").read_text())["outcome"] == "started"
    run(**{**options, "num_workers": 2 - options["num_workers"], "resume": True})
    assert_same_training(tmp_path, uninterrupted(name))


def test_resuming_a_finished_training_changes_nothing(data, uninterrupted, tmp_path):
    folder = uninterrupted("vptta")
    before = {}
    for name in (*WEIGHT_FILES, STATE_FILE):
        shutil.copy2(folder / name, tmp_path / name)
        before[name] = ((tmp_path / name).read_bytes(), (tmp_path / name).stat().st_mtime_ns)
    run(**options_of(TRAININGS["vptta"], data, tmp_path, resume=True))
    for name, (content, changed) in before.items():
        assert (tmp_path / name).read_bytes() == content
        assert (tmp_path / name).stat().st_mtime_ns == changed
    assert json.loads((tmp_path / "logs" / "run.json").read_text())["outcome"] == "completed"


def kill_again_and_again(name, num_kills, processes, data, expected, folder):
    """Kill trainings until `num_kills` are dead, going on from the last checkpoint; each that ends must end alike."""
    generator = random.Random(f"{name} kills")
    record = json.loads((expected / "logs" / "run.json").read_text())
    epoch_s = record["seconds"] / record["epochs"]
    kills = 0
    while kills < num_kills:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        status = 1
        while status != 0:
            resume = (folder / STATE_FILE).is_file()
            number = generator.choice(SIGNALS)
            options = options_of(TRAININGS[name], data, folder, num_workers=generator.choice([0, 2]), resume=resume)
            # the more often it was killed, the more it is let do
            delay_s = epoch_s * generator.uniform(0.0, 2.0) if kills < num_kills else 3600.0
            status = processes.run_and_kill(options, folder, delay_s, number)
            assert status in (0, -number), (folder / "log.txt").read_text()[-3000:]
            kills += status != 0
        assert_same_training(folder, expected)
        assert not [path for path in folder.rglob(".*.tmp") if path.parent.name != "slices"]  # a cache clears up later
    return kills


def test_killed_twice(processes, data, uninterrupted, tmp_path):
    kill_again_and_again("vptta", 2, processes, data, uninterrupted("vptta"), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_killed_at_random_points(name, processes, data, uninterrupted, tmp_path):
    kills = kill_again_and_again(name, KILLS[name], processes, data, uninterrupted(name), tmp_path / "run")
    assert kills >= KILLS[name]
