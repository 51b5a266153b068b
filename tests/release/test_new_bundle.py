"""`make new-bundle`: the sixth bundle is green at once, and nothing that is there is touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.release.bundle_folder import METADATA
from common.release.new_bundle import MODULE, class_name, new_bundle
from common.release.verification import CHECKS, verify_bundle

REPOSITORY = Path(__file__).resolve().parents[2]
NAME = "weak_boxes"


@pytest.fixture
def repository(tmp_path):
    """A copy of what a bundle needs of this repository."""
    ignored = shutil.ignore_patterns("__pycache__", "models", "output", "data", "parity")
    for folder in ("bundles", "common", "tests"):
        # `common/data` is code, `bundles/*/data` is not
        skip = shutil.ignore_patterns("__pycache__") if folder == "common" else ignored
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=skip)
    for name in ("LICENSE", "setup.cfg", "pyproject.toml", ".ruff.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_its_files_and_changes_no_other(tmp_path):
    shutil.copy(REPOSITORY / "LICENSE", tmp_path)
    new_bundle("first_one", root=str(tmp_path))
    before = files_of(tmp_path)
    new_bundle(NAME, root=str(tmp_path))
    after = files_of(tmp_path)
    assert {path: after[path] for path in before} == before
    added = {str(path) for path in set(after) - set(before)}
    assert added >= {
        f"common/losses/{NAME}.py",
        f"tests/oracles/{NAME}.py",
        f"tests/losses/test_{NAME}.py",
        f"tests/bundles/test_{NAME}.py",
        *(f"bundles/{NAME}/configs/{name}.json" for name in ("metadata", "train", "inference", "evaluate")),
        f"bundles/{NAME}/docs/README.md",
        f"bundles/{NAME}/LICENSE",
    }
    for path in added:
        text = after[Path(path)].decode()
        assert MODULE not in text, path
        assert "NewMethod" not in text, path
    bundle = tmp_path / "bundles" / NAME
    assert json.loads((bundle / METADATA).read_text())["name"] == "WeakBoxes"


@pytest.mark.parametrize("name", ["WeakBoxes", "a_v1", "new_method", "2d", "a-b", "", 3])
def test_names_that_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="name must be lower case words with single underscores"):
        new_bundle(name, root=str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_an_existing_bundle_stays(tmp_path):
    shutil.copy(REPOSITORY / "LICENSE", tmp_path)
    new_bundle(NAME, root=str(tmp_path))
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError, match="already there; choose another name"):
        new_bundle(NAME, root=str(tmp_path))
    assert files_of(tmp_path) == before


def test_class_name():
    assert class_name("weak_boxes") == "WeakBoxes"


def test_every_check_but_the_code_passes_on_the_template(tmp_path):
    """What needs no new module on the path; the slow test below runs the rest."""
    shutil.copy(REPOSITORY / "LICENSE", tmp_path)
    new_bundle(NAME, root=str(tmp_path))
    findings = {finding.check: finding for finding in verify_bundle(tmp_path / "bundles" / NAME)}
    assert set(findings) == set(CHECKS)
    failed = {name for name, finding in findings.items() if finding.outcome == "FAILED"}
    assert failed == {"references and classes"}
    assert (
        f"names common.losses.{NAME}.WeakBoxesLoss, which does not exist" in findings["references and classes"].message
    )


@pytest.mark.slow
def test_the_sixth_bundle_is_green_at_once(repository):
    """Train, infer, evaluate, several processes, verify, package, in a copy of the repository."""

    def run(*command):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
        done = subprocess.run(
            [sys.executable, *command], cwd=repository, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    run("-m", "common.release", "new_bundle", "--name", NAME)
    code = [f"common/losses/{NAME}.py", *(f"tests/{kind}/{name}.py" for kind, name in KINDS)]
    run("-m", "ruff", "check", *code)
    run("-m", "ruff", "format", "--check", *code)
    run("-m", "common.tools", "format_json", "--check")
    run("-m", "pytest", "-q", f"tests/losses/test_{NAME}.py", f"tests/bundles/test_{NAME}.py")
    assert f"0 of {len(CHECKS)} checks failed" in run("-m", "common.release", "verify", "--bundle", NAME)
    run("-m", "common.release", "package", "--bundle", NAME)
    assert (repository / "dist" / f"{NAME}_v0.1.0.zip").is_file()


KINDS = [("oracles", NAME), ("losses", f"test_{NAME}"), ("bundles", f"test_{NAME}")]
