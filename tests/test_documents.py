"""What README and docs tell a reader to type."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import pytest

from common.data.__main__ import main as data_main
from common.data.phantoms.__main__ import main as phantoms_main

REPOSITORY = Path(__file__).resolve().parents[1]
DOCUMENTS = [
    REPOSITORY / "README.md",
    *sorted(REPOSITORY.glob("docs/*.md")),
    *sorted(REPOSITORY.glob("bundles/*/docs/README.md")),
]
MULTI_GPU = {"train.json": "multi_gpu_train.json", "finetune_sam.json": "multi_gpu_finetune_sam.json"}


def find_tested():
    """The configurations that tests/bundles runs on phantoms: the constants of its files that list them."""
    for path in sorted((REPOSITORY / "tests" / "bundles").glob("test_*.py")):
        for name, value in vars(importlib.import_module(f"tests.bundles.{path.stem}")).items():
            if name.isupper() and isinstance(value, list) and all(str(entry).endswith(".json") for entry in value):
                yield value
                if value[0] in MULTI_GPU:
                    yield [*value, MULTI_GPU[value[0]]]


TESTED = list(find_tested())


def commands(document):
    for block in re.findall(r"^```\w*\n(.*?)^```$", document.read_text(), flags=re.DOTALL | re.MULTILINE):
        yield from block.replace("\\\n", " ").splitlines()


def find_command(start, bundle="volume_fusion"):
    documents = (REPOSITORY / "README.md", REPOSITORY / "bundles" / bundle / "docs" / "README.md")
    (found,) = {line for document in documents for line in commands(document) if start in line}
    return shlex.split(found)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_bundle_commands_name_configurations_that_are_tested(document):
    for line in commands(document):
        if "monai.bundle run" not in line:
            continue
        files = re.findall(r"'([^']+\.json)'", line)
        assert files, line
        if all("/" not in name for name in files):  # a page that shows how, not which
            continue
        if document.parent.name == "docs" and "/path/" in line:  # test_sessions.py checks each option of these
            continue
        assert all((REPOSITORY / name).is_file() for name in files), line
        assert [Path(name).name for name in files] in TESTED, line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        assert target.startswith("https://") or (document.parent / target).exists(), target


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE))
    named = set()
    for document in [*DOCUMENTS, REPOSITORY / "CONTRIBUTING.md"]:
        for words in re.findall(r"(?:^|`)make ([a-z -]+)", document.read_text(), flags=re.MULTILINE):
            named |= set(words.split())
    assert named
    assert named <= targets


def test_phantoms_and_check_as_written(tmp_path, monkeypatch, caplog):
    command = find_command("common.data.phantoms torso")
    options = command[command.index("torso") :]
    options[options.index("--output_dir") + 1] = str(tmp_path / "torso")
    options[options.index("--num_cases") + 1] = "3"
    options[options.index("--num_unlabeled") + 1] = "1"
    monkeypatch.setattr("sys.argv", ["phantoms", *options, "--spacing_mm", "12"])
    phantoms_main()
    command = find_command("common.data check")
    options = command[command.index("check") :]
    options[options.index("--dataset_dir") + 1] = str(tmp_path / "torso")
    options[options.index("--num_classes") + 1] = "13"
    monkeypatch.setattr("sys.argv", ["data", *options])
    with caplog.at_level("INFO"):
        data_main()
    assert "spacing_mm" in caplog.text
