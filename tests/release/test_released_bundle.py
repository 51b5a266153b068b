"""What is tested is the archive: fetched from a server, in an environment that does not have this project."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
from monai.bundle import create_workflow

from common.files import write_atomically
from common.release.networks import find_network
from tests.release.conftest import BUNDLES, read_plan, release, serve

# Few and small phantoms of each kind.
PHANTOMS = {
    "torso": {"num_cases": 3, "num_validation": 1, "num_test": 1, "spacing_mm": 10.0, "field_of_view": "abdomen"},
    "heart": {"num_cases": 3, "num_validation": 1, "num_test": 1, "image_size": 64, "spacing_mm": 3.0},
    "fundus": {"num_cases": 3, "num_validation": 1, "num_test": 1, "image_size": 64},
}
TWO_BUNDLES = """
import sys
from pathlib import Path
import torch
from monai.bundle import ckpt_export, create_workflow, download, load, verify_net_in_out

def build(folder, config):
    file = str(Path(folder) / "configs" / config)
    workflow = create_workflow(config_file=file, workflow_type=None, initialize=["@code"])
    return workflow.parser.get_parsed_content("network_def")

downloads = Path(sys.argv[1])
download(name="vptta", url=sys.argv[2], bundle_dir=downloads)
for name in ("volume_fusion", "vptta"):
    (downloads / name / "models").mkdir(exist_ok=True)
    torch.save(build(downloads / name, "train.json").state_dict(), downloads / name / "models" / "model.pt")
    network = load(name, bundle_dir=downloads)
    module = sys.modules[type(network).__module__]
    assert module.__name__.startswith(f"common_{name}."), module
    assert Path(module.__file__).is_relative_to(downloads.resolve() / name), module
configs = downloads / "vptta" / "configs"
files = {"meta_file": str(configs / "metadata.json"), "config_file": str(configs / "inference.json")}
verify_net_in_out(net_id="network_def", device="cpu", **files)
weights = downloads / "vptta" / "models" / "model.pt"
ckpt_export(net_id="network_def", filepath="model.ts", ckpt_file=str(weights), **files)
torch.jit.load("model.ts")
assert "common" not in sys.modules
print("both loaded")
"""
BOTH_VERSIONS = """
import sys
from pathlib import Path
from monai.bundle import create_workflow
for folder in sys.argv[1:]:
    file = str(Path(folder) / "configs" / "inference.json")
    workflow = create_workflow(config_file=file, workflow_type=None, initialize=["@code"])
    print("loaded", workflow.parser.get_parsed_content("code"))
"""


def run_inference(place, bundle: Path, name: str) -> Path:
    """Phantoms, random weights, inference: with the commands of the released bundle; gives the folder of the output."""
    plan = read_plan(name)
    kind = plan["phantoms"]["kind"]
    data, weights, output = (bundle / part for part in ("data/phantoms", "models/random.pt", "output/here"))
    options = [word for key, value in PHANTOMS[kind].items() for word in (f"--{key}", str(value))]
    place.run("-m", f"common_{name}.data.phantoms", kind, "--output_dir", str(data), *options, cwd=bundle)
    # where the demo has no step of one network, the one of the metadata at its small size
    default = {"configs": [find_network(BUNDLES[name]).config, "small.json"], "overrides": {}}
    step = next((step for step in reversed(plan["steps"]) if "ckpt_path" in step["overrides"]), default)
    names = [config for config in step["configs"] if not config.startswith("evaluate")]
    configs = [str((bundle / "configs" / config).relative_to(place.folder)) for config in names]
    overrides = {**step["overrides"], "dataset_dir": str(data), "output_dir": str(output), "num_workers": 0}
    overrides["ckpt_path"] = str(weights)
    own = [str(BUNDLES[name] / "configs" / config) for config in names]
    workflow = create_workflow(config_file=own, workflow_type=None, **overrides, initialize=[])
    write_atomically(workflow.parser.get_parsed_content("network_def").state_dict(), weights)
    command = ["-m", "monai.bundle", "run", "--config_file", repr(configs)]
    for key, value in overrides.items():
        command += [f"--{key}", value if isinstance(value, str) else repr(value)]
    place.run(*command)
    return output


def check_output(output: Path) -> None:
    with next(output.rglob("cases.csv")).open() as stream:
        outcomes = [row["outcome"] for row in csv.DictReader(stream)]
    assert outcomes
    assert set(outcomes) == {"done"}
    assert len(list(output.rglob("*"))) > len(outcomes)


def test_downloaded_bundles_run_load_and_export_beside_each_other(elsewhere, tmp_path):
    first, second = (release(name, tmp_path / "dist").name for name in ("volume_fusion", "vptta"))
    with serve(tmp_path / "dist") as address:
        elsewhere.download("volume_fusion", f"{address}/{first}")
        answer = elsewhere.run("-c", TWO_BUNDLES, str(elsewhere.downloads), f"{address}/{second}")
    assert "both loaded" in answer
    check_output(run_inference(elsewhere, elsewhere.downloads / "volume_fusion", "volume_fusion"))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(BUNDLES))
def test_inference_of_a_downloaded_bundle(elsewhere, tmp_path, name):
    archive = release(name, tmp_path / "dist")
    with serve(tmp_path / "dist") as address:
        bundle = elsewhere.download(name, f"{address}/{archive.name}")
    check_output(run_inference(elsewhere, bundle, name))
    config = str(bundle / "configs" / find_network(bundle).config)
    data = str(bundle / "data/phantoms")
    refused = elsewhere.attempt("-m", "monai.bundle", "run", "--config_file", config, "--dataset_dir", data)
    assert refused.returncode != 0
    assert re.search(r"Checkpoint .*model\.pt does not exist\. Give the path of a file", refused.stderr)


def test_an_older_version_beside_a_newer_one(elsewhere, tmp_path):
    """Each finds its own code, whatever the working directory; in one process the second is refused, not confused."""
    for version in ("0.9.0", "0.9.1"):
        shutil.unpack_archive(release("maco", tmp_path / "dist", version), tmp_path / version)
    old, new = tmp_path / "0.9.0" / "maco", tmp_path / "0.9.1" / "maco"
    assert f"loaded {new}\n" in elsewhere.run("-c", BOTH_VERSIONS, str(new), cwd=old)
    refused = elsewhere.attempt("-c", BOTH_VERSIONS, str(old), str(new))
    assert refused.returncode != 0
    assert f"loaded {old}\n" in refused.stdout
    assert "Use one version of a bundle per process." in refused.stderr
