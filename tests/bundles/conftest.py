"""Phantoms and runs that the tests of the bundles share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import run

from common.data.phantoms import write_torso_phantoms
from common.tools.runs import bundle_command, find_bundles

BUNDLES = {path.name: path for path in find_bundles()}


@pytest.fixture(scope="session")
def torso(tmp_path_factory) -> Path:
    """A small data set of torso phantoms with unlabelled scans."""
    folder = tmp_path_factory.mktemp("torso")
    write_torso_phantoms(
        folder, 4, seed=1, num_unlabeled=2, num_validation=1, num_test=1, spacing_mm=10.0, field_of_view="abdomen"
    )
    return folder


@pytest.fixture(scope="session")
def run_config() -> Callable[..., None]:
    """Run configurations of a bundle in this process, as `python -m monai.bundle run` does."""

    def run_in_process(bundle: str, configs: Sequence[str], overrides: dict[str, Any]) -> None:
        folder = BUNDLES[bundle] / "configs"
        run(config_file=[str(folder / name) for name in configs], **overrides)

    return run_in_process


@pytest.fixture(scope="session")
def run_two_processes() -> Callable[..., str]:
    """Run configurations of a bundle in two processes by torchrun, and give back what they printed."""

    def run_by_torchrun(bundle: str, configs: Sequence[str], overrides: dict[str, Any]) -> str:
        command = bundle_command(BUNDLES[bundle], configs, overrides)
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(launcher + command[1:], capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    return run_by_torchrun
