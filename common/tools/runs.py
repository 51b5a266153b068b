"""Bundles run as a user runs them: `python -m monai.bundle run` in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_text_atomically


def find_bundles(bundles_dir: str | Path | None = None) -> list[Path]:
    """Return the folders of all bundles, found by their `configs/metadata.json`.

    Args:
        bundles_dir: Folder of the bundles; by default the one beside this package.

    Raises:
        FileNotFoundError: If there is none.
    """
    root = Path(bundles_dir) if bundles_dir else Path(__file__).resolve().parents[2] / "bundles"
    found = sorted(path.parents[1] for path in root.glob("*/configs/metadata.json"))
    if not found:
        raise FileNotFoundError(f"No bundle (a folder with configs/metadata.json) in {root}; give --bundles_dir.")
    return found


def bundle_command(bundle: Path, configs: Sequence[str], overrides: Mapping[str, Any]) -> list[str]:
    """Return the command that runs a bundle.

    Args:
        bundle: Its folder.
        configs: Names of the files in `configs/`, later ones over earlier ones.
        overrides: Values by configuration id, such as `{"train#trainer#max_epochs": 2}`.
    """
    files = [str(bundle / "configs" / name) for name in configs]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", repr(files)]
    for key, value in overrides.items():
        command += [f"--{key}", value if isinstance(value, str) else repr(value)]
    return command


def run_bundle(
    bundle: Path,
    configs: Sequence[str],
    overrides: Mapping[str, Any],
    log_file: str | Path | None = None,
    num_threads: int | None = None,
) -> float:
    """Run a bundle and wait for it.

    Args:
        bundle: Its folder.
        configs: As in `bundle_command`.
        overrides: As in `bundle_command`.
        log_file: Where to write what it prints; None lets progress bars and log go to this terminal.
        num_threads: CPU threads that it takes; None leaves that to torch.

    Returns:
        Seconds that it took.

    Raises:
        RuntimeError: If it ends with another exit status than 0; with a log file, its last lines are in the message.
    """
    command = bundle_command(bundle, configs, overrides)
    threads = {} if num_threads is None else {"OMP_NUM_THREADS": str(num_threads)}
    environment = {**os.environ, **threads}
    start = time.perf_counter()
    if log_file is None:
        status = subprocess.run(command, check=False, env=environment).returncode  # noqa: S603 - our own command
        tail = "its messages stand above"
    else:
        path = Path(log_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as stream:
            status = subprocess.run(  # noqa: S603
                command, check=False, env=environment, stdout=stream, stderr=subprocess.STDOUT
            ).returncode
        tail = f"the end of {path}:\n" + "\n".join(path.read_text().splitlines()[-15:])
    if status:
        raise RuntimeError(f"{' '.join(command)} ended with exit status {status}; {tail}")
    return time.perf_counter() - start


def ensure_phantoms(
    write: Callable[..., object], folder: Path, options: Mapping[str, Any], last_file: str = "dataset.json"
) -> None:
    """Write phantoms unless they are there; what an interrupted writing left is removed first.

    Args:
        write: `write_torso_phantoms` or another of its kind.
        folder: Folder of the data set, one that no other data is in.
        options: Arguments of `write` but the folder.
        last_file: File in the folder that is written last.
    """
    if (folder / last_file).is_file():
        return
    if folder.exists():
        shutil.rmtree(folder)
    write(folder, **options)


def refuse_other_settings(path: Path, settings: Mapping[str, Any]) -> None:
    """Write down the settings of a benchmark, or refuse to go on with one that had others.

    Args:
        path: File of the settings, in the folder of the benchmark.
        settings: Settings of this run, plain values.

    Raises:
        ValueError: If the file holds others.
    """
    if path.is_file() and json.loads(path.read_text()) != settings:
        raise ValueError(
            f"{path.parent} holds a benchmark with other settings, {path.read_text()}; this one has {settings}. Give "
            f"another --output_dir, or remove that folder."
        )
    write_text_atomically(json.dumps(settings) + "\n", path)


def read_summary(output_dir: str | Path, name: str = "summary.json") -> dict[str, Any]:
    """Return the content of a summary that an evaluation wrote.

    Args:
        output_dir: Folder that it wrote to.
        name: Name of the file: `summary.json`, or `domains.json` with the papers' metrics of photographs.
    """
    return json.loads((Path(output_dir) / name).read_text())
