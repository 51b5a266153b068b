"""What a run was: `run.json`."""

from __future__ import annotations

import inspect
import json
import platform
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

from ..files import remove_leftovers, write_text_atomically

RUN_FILE = "run.json"
STARTED, COMPLETED = "started", "completed"
# Keys of a configuration that are no settings.
SECTIONS = ("imports", "initialize", "run", "finalize")


class RunRecord:
    """Write `run.json`: what ran, with which configuration, where, for how long, and in how much memory.

    It holds the configuration after all overrides, as JSON, so that the run can be looked at and repeated; the plain
    values of its top-level keys that were used (`settings`); versions; the device; seconds; and the peak of memory. It
    is written at the start, after every epoch of a training, and when all other handlers are done. A run that fails
    or is killed therefore leaves a file whose `outcome` is not `completed`.

    Args:
        output_dir: Folder of `run.json`.

    Note:
        Only one process of several may have it: disable it where the rank is above 0. MONAI hands no component the
        configuration that it stands in, so it is taken from the `ConfigParser` that builds this handler; built by hand,
        the record has no configuration. The peak of a GPU is what PyTorch has allocated since the process started, that
        of a CPU the resident memory of the process without its data loading workers.
    """

    def __init__(self, output_dir: str | Path) -> None:
        self.path = Path(output_dir) / RUN_FILE
        self.parser = parser_of_this_run()
        self.content: dict[str, Any] = {}
        self.started_s = 0.0

    def attach(self, engine: Engine) -> None:
        """Attach to the engine whose run is the run of the bundle."""
        engine.add_event_handler(Events.STARTED, self._start)

    def _start(self, engine: Engine) -> None:
        # added now, behind all handlers of the engine: scores that cannot be had make a run fail, too
        if not engine.has_event_handler(self._finish, Events.COMPLETED):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)
            engine.add_event_handler(Events.COMPLETED, self._finish)
        remove_leftovers(self.path)
        self.started_s = time.perf_counter()
        config = {} if self.parser is None else self.parser.get()
        self.content = {
            "outcome": STARTED,
            "engine": type(engine).__name__,
            "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "bundle": _bundle(config),
            "command": sys.orig_argv,
            "working_dir": str(Path.cwd()),  # what relative paths are relative to
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "monai": monai.__version__,
                "numpy": np.__version__,
            },
            "device": _device(engine),
            "config": {key: value for key, value in config.items() if key != "_meta_"},
        }
        self._write(engine)

    def _finish(self, engine: Engine) -> None:
        self.content["outcome"] = COMPLETED
        self._write(engine)

    def _write(self, engine: Engine) -> None:
        resolved = {} if self.parser is None else self.parser.ref_resolver.resolved_content
        self.content.update(
            epochs=engine.state.epoch,
            iterations=engine.state.iteration,
            seconds=round(time.perf_counter() - self.started_s, 3),
            peak_memory_bytes=_peak_memory(engine),
            settings={
                key: resolved[key]
                for key in self.content["config"]
                if key in resolved and key not in SECTIONS and is_plain(resolved[key])
            },
        )
        # what an override has put in is not always JSON: a device, a path
        write_text_atomically(json.dumps(self.content, indent=4, default=str) + "\n", self.path)


def parser_of_this_run() -> ConfigParser | None:
    """Return the nearest parser on the call stack, which is the one that builds the caller."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, ConfigParser):
            return owner
        frame = frame.f_back
    return None


def _bundle(config: Mapping[str, Any]) -> dict[str, str]:
    """Name and version of the bundle, as far as its `metadata.json` tells."""
    metadata = config.get("_meta_") or {}
    return {key: str(metadata[key]) for key in ("name", "version") if key in metadata}


def _device(engine: Engine) -> dict[str, Any]:
    device = torch.device(getattr(engine.state, "device", "cpu"))
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device)}
    return {"type": device.type, "name": platform.machine(), "threads": torch.get_num_threads()}


def _peak_memory(engine: Engine) -> dict[str, int]:
    peaks = {}
    if sys.platform != "win32":
        import resource  # Windows has none

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peaks["process"] = peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
    device = torch.device(getattr(engine.state, "device", "cpu"))
    if device.type == "cuda":
        peaks["gpu"] = torch.cuda.max_memory_allocated(device)
    return peaks


def is_plain(value: Any) -> bool:
    """Tell whether a value of a configuration is JSON or a device, in lists and dictionaries, too.

    Args:
        value: Any value.
    """
    if isinstance(value, (list, tuple)):
        return all(is_plain(entry) for entry in value)
    if isinstance(value, dict):
        return all(is_plain(entry) for entry in value.values())
    return value is None or isinstance(value, (bool, int, float, str, torch.device))
