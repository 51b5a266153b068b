"""The form of the bundle JSON."""

from __future__ import annotations

import json

import pytest

from common.tools.json_form import format_json, to_text


def make_bundle(root, text):
    configs = root / "one" / "configs"
    configs.mkdir(parents=True)
    (configs / "metadata.json").write_text("{}\n")
    (configs / "train.json").write_text(text)
    return configs / "train.json"


def test_short_lists_of_numbers_stay_on_a_line():
    value = {"roi_size": [64, 128, 128], "keys": ["image", "@label"], "nested": [{"a": []}], "flag": None}
    text = to_text(value)
    assert json.loads(text) == value
    assert '    "roi_size": [64, 128, 128],' in text.splitlines()
    assert '        "image",' in text.splitlines()


def test_formatting_is_stable_and_keeps_the_content(tmp_path):
    path = make_bundle(tmp_path, '{"b": [1,2],"a": {"_target_": "x"}}')
    with pytest.raises(ValueError, match=r"run `make format`: .*train\.json"):
        format_json(check=True, bundles_dir=str(tmp_path))
    format_json(bundles_dir=str(tmp_path))
    assert json.loads(path.read_text()) == {"b": [1, 2], "a": {"_target_": "x"}}
    format_json(check=True, bundles_dir=str(tmp_path))


def test_broken_json_is_named(tmp_path):
    make_bundle(tmp_path, '{"b": ')
    with pytest.raises(ValueError, match=r"train\.json is no JSON"):
        format_json(bundles_dir=str(tmp_path))


def test_a_folder_without_bundles_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="give --bundles_dir"):
        format_json(bundles_dir=str(tmp_path))
