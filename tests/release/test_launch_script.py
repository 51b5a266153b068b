"""`docs/launch_training.sh` with stand-ins for torchrun, Slurm and Kubernetes, and with two real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPT = DOCS / "launch_training.sh"
CONFIGS = "['train.json','multi_gpu_train.json']"


@pytest.fixture
def launch(tmp_path):
    """Run the script with an interpreter that only tells how it was called, and a stand-in for Slurm's `scontrol`."""
    for name, text in {
        "python": '#!/bin/sh\necho "rank=${RANK-none} world=${WORLD_SIZE-none}"\nprintf "%s\\n" "$@"\n',
        "scontrol": '#!/bin/sh\n[ "$*" = "show hostnames node[3-4]" ] && printf "node3\\nnode4\\n"\n',
        "nvidia-smi": '#!/bin/sh\n[ "$1" = --list-gpus ] && printf "GPU 0\\nGPU 1\\nGPU 2\\n"\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(*arguments, **variables):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **variables}
        return subprocess.run(
            ["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True, check=False
        )

    return run


def options(done):
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()[2:]
    return {word: words[place + 1] for place, word in enumerate(words) if word.startswith("--")}


def test_alone(launch):
    done = launch(CONFIGS, "--dataset_dir", "/data with space")
    found = options(done)
    assert found["--nnodes"] == "1"
    assert found["--node_rank"] == "0"
    assert found["--nproc_per_node"] == "3"
    assert found["--master_addr"] == "127.0.0.1"
    assert found["--config_file"] == CONFIGS
    assert found["--dataset_dir"] == "/data with space"
    assert done.stdout.splitlines()[0] == "machine 0 of 1, 3 processes, meeting at 127.0.0.1:29500"


def test_slurm(launch):
    job = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "SLURM_GPUS_ON_NODE": "8", "SLURM_JOB_NODELIST": "node[3-4]"}
    found = options(launch(CONFIGS, **job))
    assert (found["--nnodes"], found["--node_rank"], found["--nproc_per_node"]) == ("2", "1", "8")
    assert found["--master_addr"] == "node3"


def test_kubernetes(launch):
    pod = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "maco-master-0", "MASTER_PORT": "23456", "GPUS_PER_NODE": "4"}
    done = launch(CONFIGS, **pod)
    found = options(done)
    assert (found["--nnodes"], found["--node_rank"], found["--nproc_per_node"]) == ("2", "1", "4")
    assert (found["--master_addr"], found["--master_port"]) == ("maco-master-0", "23456")
    assert done.stdout.splitlines()[1] == "rank=none world=none"  # torchrun gives each process its own


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        ((), {}, "give the configurations"),
        (("['train.json']",), {}, "lacks multi_gpu_train.json"),
        ((CONFIGS,), {"NNODES": "2"}, "2 machines need MASTER_ADDR"),
    ],
)
def test_refusals(launch, arguments, variables, message):
    done = launch(*arguments, **variables)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.slow
def test_two_machines_meet(tmp_path):
    """Two launches as on two machines, here on one: each starts its process, and they share one group."""
    (tmp_path / "configs").mkdir()
    config = {
        "imports": ["$import torch", "$import pathlib"],
        "initialize": ["$torch.distributed.init_process_group('gloo')"],
        "world": "$str(torch.distributed.get_world_size())",
        "rank": "$str(torch.distributed.get_rank())",
        "run": ["$pathlib.Path(@folder, @rank).write_text(@world)"],
        "finalize": ["$torch.distributed.destroy_process_group()"],
    }
    for name, content in {"train.json": config, "multi_gpu_train.json": {"folder": "."}, "metadata.json": {}}.items():
        (tmp_path / "configs" / name).write_text(json.dumps(content))
    files = [str(tmp_path / "configs" / name) for name in ("train.json", "multi_gpu_train.json")]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"NNODES": "2", "GPUS_PER_NODE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **shared, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    launched = [
        subprocess.Popen(
            ["bash", str(SCRIPT), repr(files), "--folder", str(tmp_path)],
            env={**environment, "NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in launched]
    assert [process.returncode for process in launched] == [0, 0], outputs
    assert [(tmp_path / str(rank)).read_text() for rank in range(2)] == ["2", "2"]


def test_the_job_of_the_page_is_what_kubernetes_reads():
    page = (DOCS / "several_gpus.md").read_text()
    (block,) = [block for block in page.split("```") if "PyTorchJob\n" in block]
    job = yaml.safe_load(block)
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"}
    for replica in replicas.values():
        (container,) = replica["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"
        assert container["command"] == ["docs/launch_training.sh"]
        assert "multi_gpu_train.json" in container["args"][0]
