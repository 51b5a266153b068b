"""What the result of a case depends on, as a number: settings, weights, code, and the files of the case."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

from .run_record import is_plain

# Top-level keys that change where or how fast results are made, what is written beside them, but not the results.
WITHOUT_EFFECT = frozenset(
    {
        *("output_dir", "num_workers", "check_data", "skip_finished", "allow_failures", "datalist", "handlers"),
        *("protocol", "nsd_tolerance_mm", "nsd_tolerance_px", "label_set", "initialize", "run", "finalize"),
    }
)
DIGITS = 32


def run_fingerprint(parser: ConfigParser | None, weights: Iterable[Any]) -> str:
    """Return a number that changes with everything but the case.

    These are the configuration after all overrides, but for keys without effect on a case; the values of its top-level
    keys that are plain, such as the device; the content of the weights; this package; and versions of the libraries.

    Args:
        parser: The configuration of the run; None leaves it out.
        weights: Files whose content matters; what is no file counts by its name.
    """
    config = {} if parser is None else parser.get()
    resolved = {} if parser is None else parser.ref_resolver.resolved_content
    settings = {key: value for key, value in config.items() if key not in WITHOUT_EFFECT and key != "_meta_"}
    values = {key: resolved[key] for key in settings if key in resolved and is_plain(resolved[key])}
    metadata = config.get("_meta_") or {}
    versions = [platform.python_version(), *(library.__version__ for library in (torch, monai, np))]
    versions.append(metadata.get("version"))
    return _digest([settings, values, [_content(path) for path in weights], code_fingerprint(), versions])


def case_fingerprint(run: str, case: Mapping[str, Any], inputs: Sequence[str] = ()) -> str:
    """Return a number that changes with the run and with the files of a case: their paths, sizes and times of change.

    Args:
        run: `run_fingerprint`.
        case: Case with paths, its name under `case`.
        inputs: Further paths that it depends on, with {case} for its name.
    """
    paths = [str(path) for key, value in sorted(case.items()) if key != "case" for path in ensure_tuple(value)]
    paths += [str(path).replace("{case}", case["case"]) for path in inputs]
    return _digest([run, case["case"], [(path, _times(Path(path))) for path in paths]])


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Return a number that changes with the code of this package."""
    package = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


def _content(path: Any) -> list[Any]:
    """Describe weights by their content: a file, or a folder of files."""
    root = Path(path) if isinstance(path, (str, Path)) else None
    if root is None or not root.exists():
        return [str(path)]
    found = []
    for file in [root] if root.is_file() else sorted(p for p in root.rglob("*") if p.is_file()):
        with file.open("rb") as stream:
            digest = hashlib.sha256()
            while block := stream.read(1 << 20):
                digest.update(block)
            found.append(digest.hexdigest())
    return found


def _times(path: Path) -> list[Any]:
    """Describe a file, or the files of a folder, without reading them."""
    if path.is_dir():
        return [[file.name, *_times(file)] for file in sorted(path.iterdir()) if file.is_file()]
    if not path.exists():
        return []
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _digest(content: Any) -> str:
    # what an override has put in is not always JSON
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:DIGITS]
