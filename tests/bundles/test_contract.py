"""What every bundle keeps to, whatever its method; a new bundle is found and tested without a line here.

Metadata, properties, network in and out, and exports are `make verify`'s: see tests/release.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import traceback
from collections.abc import Iterator
from typing import Any

import pytest

from common.tools.runs import bundle_command
from tests.bundles.conftest import BUNDLES

# Keys that MONAI or its users read, not the configuration itself.
RESERVED = {"imports", "bundle_root", "initialize", "run", "finalize", "train", "validate", "_meta_"}
MAX_EXPRESSION = 80
MISSING_FOLDER = "nothing here: must be a directory; found nothing. Remedy: set dataset_dir"
REFERENCE = re.compile(r"@([A-Za-z_]\w*)")


def read_configs(bundle: str) -> dict[str, dict[str, Any]]:
    folder = BUNDLES[bundle] / "configs"
    texts = {path.name: path.read_text() for path in sorted(folder.glob("*.json")) if path.name != "metadata.json"}
    return {name: json.loads(text) for name, text in texts.items()}


def strings_of(value: Any) -> Iterator[str]:
    """All keys and strings of a configuration, nested ones too."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from strings_of(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from strings_of(entry)
    elif isinstance(value, str):
        yield value


def references_of(config: dict[str, Any]) -> set[str]:
    return {name for text in strings_of(config) for name in REFERENCE.findall(text)}


def own_names(config: dict[str, Any]) -> set[str]:
    return {key.lstrip("+").split("#")[0] for key in config}


def is_whole(config: dict[str, Any]) -> bool:
    """Whether a configuration runs without another: all that it refers to is in it."""
    return "imports" in config and references_of(config) <= own_names(config)


@pytest.mark.parametrize("bundle", BUNDLES)
class TestConfigurations:
    def test_no_expression_is_longer_than_80_characters(self, bundle):
        for name, config in read_configs(bundle).items():
            for text in strings_of(config):
                assert not text.startswith("$") or len(text) <= MAX_EXPRESSION, f"{name}: {text}"

    def test_training_and_inference_run_without_an_overlay(self, bundle):
        configs = read_configs(bundle)
        assert is_whole(configs["train.json"])
        assert is_whole(configs["inference.json"])

    def test_every_key_is_used(self, bundle):
        """None in a configuration is dead, and none in an overlay changes nothing in what it can be laid over."""
        configs = read_configs(bundle)
        whole = {name: references_of(config) for name, config in configs.items() if is_whole(config)}
        for name, config in configs.items():
            used = references_of(config)
            if name not in whole:
                used = used.union(*whole.values())
            assert own_names(config) - RESERVED - used == set(), name


@pytest.mark.parametrize("bundle", BUNDLES)
def test_a_wrong_data_folder_says_so(run_config, bundle, tmp_path):
    with pytest.raises((RuntimeError, ValueError)) as caught:
        run_config(bundle, ["train.json"], {"dataset_dir": str(tmp_path / "nothing here")})
    assert MISSING_FOLDER in "".join(traceback.format_exception(caught.value))


def test_a_command_runs_from_any_folder_and_fails_by_its_status(tmp_path):
    bundle = next(iter(BUNDLES.values()))
    command = bundle_command(bundle, ["train.json"], {"dataset_dir": str(tmp_path / "nothing here")})
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode != 0
    assert MISSING_FOLDER in done.stderr
