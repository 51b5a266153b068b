"""What a bundle's folder holds: names, version, JSON, weights; read with messages that say what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..tools.runs import find_bundles
from ..weights import read_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
METADATA = "configs/metadata.json"
DATA_LICENCE = "docs/data_license.txt"
# What that file says where no weights are shipped.
NO_WEIGHTS = "no weights"
# Weights that a release takes along; what a resumed training needs stays at home.
WEIGHTS = ("model.pt", "model.ts")
# MONAI finds the end of a name at `_v`, and orders versions as text: 0.10.0 would come before 0.9.0.
NAME = re.compile(r"(?!.*_v)[a-z][a-z0-9]*(_[a-z0-9]+)*")
VERSION = re.compile(r"\d\.\d\.\d")


def select_bundles(name: str | None, bundles_dir: str | Path | None = None) -> list[Path]:
    """Return the folders of one bundle or of all.

    Args:
        name: Name of a bundle; None takes all.
        bundles_dir: Folder of the bundles; by default that of the repository.

    Raises:
        FileNotFoundError: If there is no bundle at all.
        ValueError: If there is none of this name.
    """
    bundles = find_bundles(bundles_dir)
    if name is None:
        return bundles
    found = [path for path in bundles if path.name == name]
    if not found:
        raise ValueError(f"There is no bundle {name!r}; there are {', '.join(path.name for path in bundles)}.")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: File.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no JSON, names a key twice, or holds something else than an object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; a bundle needs it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_refuse_twice)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold an object in braces; found a {type(content).__name__}.")
    return content


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return content


def read_version(bundle: Path) -> str:
    """Return the version of a bundle.

    Args:
        bundle: Its folder.

    Raises:
        ValueError: If `version` is absent or not of the form 1.2.3, one digit each.
    """
    version = read_json(bundle / METADATA).get("version")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise ValueError(
            f"{bundle / METADATA}: version must have the form 1.2.3, one digit each (MONAI orders versions as text, "
            f"0.10.0 before 0.9.0); found {version!r}."
        )
    return version


def find_weights(bundle: Path) -> list[Path]:
    """Return the weights of a bundle, which a release takes along: `model.pt` and `model.ts` in and below `models/`.

    Args:
        bundle: Its folder.
    """
    return sorted(path for path in (bundle / "models").rglob("*") if path.name in WEIGHTS and path.is_file())


def check_weights(path: Path) -> None:
    """Refuse weights that hold anything else than tensors.

    Args:
        path: `.pt`: a state dict; `.ts`: TorchScript.

    Raises:
        ValueError: If the file holds anything but a state dict of tensors, or is damaged. No code in it is executed.
    """
    if path.suffix == ".ts":
        try:
            torch.jit.load(path, map_location="cpu")
        except RuntimeError as error:
            raise ValueError(f"{path} is no TorchScript file: {error}") from error
        return
    state = read_checkpoint(path)
    own = torch.load(path, map_location="cpu", weights_only=True)
    if set(own) != set(state):
        raise ValueError(f"{path} must be a bare state dict, tensors by name; save network.state_dict() alone.")


def says_no_weights(bundle: Path) -> bool:
    """Tell whether a bundle's `data_license.txt` says that it ships no weights.

    Args:
        bundle: Its folder.
    """
    return NO_WEIGHTS in " ".join((bundle / DATA_LICENCE).read_text().split())


def describe_weights(bundle: Path, weights: Sequence[Path]) -> str:
    """Return a sentence on the weights that a bundle ships.

    Args:
        bundle: Its folder.
        weights: Files of weights in it.
    """
    if not weights:
        return "This archive holds no weights: train, or convert the authors' checkpoint, as described below."
    names = ", ".join(f"`{path.relative_to(bundle)}`" for path in weights)
    return f"Weights in this archive: {names}; their licence stands in `{DATA_LICENCE}`."
