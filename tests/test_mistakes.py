"""The mistakes of docs/mistakes.md print what the page says."""

from __future__ import annotations

import importlib
import shlex

import nibabel as nib
import numpy as np
import pytest
import torch

from common.data.phantoms import write_torso_phantoms
from common.networks import MedLAM
from tests.sessions import REPOSITORY, comparable, steps

PAGE = REPOSITORY / "docs" / "mistakes.md"
MISTAKES = [step for step in steps(PAGE) if step.shown]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the commands of the page read."""
    root = tmp_path_factory.mktemp("mistakes")
    options = {"num_validation": 1, "num_test": 1, "num_unlabeled": 1, "spacing_mm": 12.0, "field_of_view": "abdomen"}
    write_torso_phantoms(root / "runs" / "data" / "torso", 3, seed=0, **options)
    torch.save(MedLAM(base_channels=2, patch_size=(16, 16, 32)).state_dict(), root / "runs" / "other.pt")
    for kind, shape in (("images", (12, 10, 8)), ("labels", (8, 10, 12))):
        path = root / "runs" / "swapped" / kind / "scan1.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image(np.zeros(shape, np.uint8), np.eye(4)), path)
    return root


def refusal(command, folder, monkeypatch):
    """Run a command of the page in this process; gives the message that it ends with."""
    words = shlex.split(command.replace("'bundles/", f"'{REPOSITORY}/bundles/"))
    assert words[:2] == ["python", "-m"]
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", words[2:])
    with pytest.raises(SystemExit) as ending:
        importlib.import_module(f"{words[2]}.__main__").main()
    assert isinstance(ending.value.code, str), "the command must end with a message, and so with exit status 1"
    return ending.value.code


def test_there_are_ten():
    assert len(MISTAKES) == 10


@pytest.mark.parametrize("step", MISTAKES, ids=range(1, len(MISTAKES) + 1))
def test_it_prints_what_the_page_says(step, folder, monkeypatch):
    (command,) = step.commands
    message = comparable(refusal(command, folder, monkeypatch), folder)
    shown = comparable("\n".join(step.shown), folder)
    assert shown == message[-len(shown) :]


def test_the_run_refuses_with_the_same_words(folder, monkeypatch):
    """A folder that is not there, in the run itself."""
    from monai.bundle import run

    step = MISTAKES[0]
    configs = [REPOSITORY / "bundles" / "volume_fusion" / "configs" / name for name in ("train.json", "small.json")]
    monkeypatch.chdir(folder)
    with pytest.raises(RuntimeError) as error:
        run(config_file=[str(path) for path in configs], dataset_dir="runs/data/tors")
    cause = error.value
    while cause.__cause__ is not None:
        cause = cause.__cause__
    assert step.shown[-1].strip().removeprefix("runs/") in str(cause)
