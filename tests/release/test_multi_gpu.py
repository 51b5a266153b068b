"""Every `multi_gpu_train.json` with torchrun: two processes on the CPU, three validation cases.

Slow; tests/bundles has a shorter run in two processes for every bundle.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
from monai.bundle import create_workflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from common.tools.demo import PHANTOMS
from common.tools.runs import bundle_command
from tests.release.conftest import BUNDLES, read_plan

CASES = {"num_cases": 5, "num_validation": 3, "num_test": 0}
# Enough for a score that differs from case to case.
ITERATIONS = 40


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_two_processes_train_as_one(name, tmp_path):
    """Process 0 alone writes, the score is that of all cases, and the weights load in one process."""
    plan = read_plan(name)
    options = {**plan["phantoms"], **CASES}
    kind = options.pop("kind")
    options |= {"domains": "a"} if kind == "fundus" else {}
    PHANTOMS[kind][0](tmp_path / "data", **{key: value for key, value in options.items() if key != "num_unlabeled"})
    (description,) = (tmp_path / "data").rglob("dataset.json")
    content = json.loads(description.read_text())
    description.write_text(json.dumps({**content, "validation": content["validation"][:3]}))
    step = next(step for step in plan["steps"] if step["configs"][0] == "train.json")
    keys = json.loads((BUNDLES[name] / "configs" / "train.json").read_text())
    shared = {**step["overrides"], "max_epochs": 1, "epoch_length": ITERATIONS, "num_workers": 0, "val_interval": 1}
    shared |= {"num_val_samples": 3} if "num_val_samples" in keys else {}
    shared["dataset_dir"] = str(description.parent)
    folder = f"$'{tmp_path}/rank' + str(@rank)"
    overrides = {**shared, "ckpt_dir": folder, "output_dir": f"{folder} + '/logs'"}
    command = bundle_command(BUNDLES[name], [*step["configs"], "multi_gpu_train.json"], overrides)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        launcher + command[1:], env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]

    assert {path.name for path in tmp_path.iterdir()} == {"data", "rank0"}
    written = {path.name for path in (tmp_path / "rank0").iterdir()}
    assert written == {"model.pt", "model_last.pt", "training_state.pt", "logs"}

    alone = {**shared, "ckpt_dir": str(tmp_path / "alone"), "output_dir": str(tmp_path / "alone")}
    workflow = create_workflow(
        config_file=[str(BUNDLES[name] / "configs" / config) for config in step["configs"]], **alone, initialize=[]
    )
    weights = torch.load(tmp_path / "rank0" / "model_last.pt", weights_only=True)
    workflow.parser.get_parsed_content("network_def").load_state_dict(weights)
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    evaluator.run()
    cases = workflow.parser.get_parsed_content("validate#dataset")
    assert len(cases) % 2 == 1  # two processes cannot share them evenly
    accumulator = EventAccumulator(str(tmp_path / "rank0" / "logs"))
    accumulator.Reload()
    metric = evaluator.state.key_metric_name
    (logged,) = accumulator.Scalars(metric)
    assert logged.value != 0
    assert logged.value == pytest.approx(evaluator.state.metrics[metric], abs=1e-5)
