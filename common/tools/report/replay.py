"""Components of a run, built again from the configuration that it has recorded."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from .records import Run

# On this machine's CPU, in this process, without copies of the data; by key, where the configuration has it.
HERE: Mapping[str, Any] = {
    "device": "$torch.device('cpu')",
    "rank": 0,
    "num_workers": 0,
    "cache_rate": 0.0,
    "check_data": False,
}
# What a configuration raises whose files have moved: MONAI wraps some of it in RuntimeError.
REPLAY_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, ImportError)


class Replay:
    """Build components of a recorded run, on the CPU.

    Building them runs what the recorded configuration says, as running the bundle does: replay runs that you trust.

    Args:
        run: A run whose record has a configuration.
    """

    def __init__(self, run: Run) -> None:
        self.config: dict[str, Any] = copy.deepcopy(dict(run.record["config"]))
        self.config.update({key: value for key, value in HERE.items() if key in self.config})
        self.parser = ConfigParser(self.config)

    def __getitem__(self, component_id: str) -> Any:
        """Return a component by its id in the configuration, the same one every time."""
        return self.parser.get_parsed_content(component_id)

    def transform_with_seed(self, component_id: str, seed: int = 0) -> Compose:
        """Return a chain of transforms that draws the same at random in every report.

        Args:
            component_id: Its id in the configuration.
            seed: Seed of all of its transforms.
        """
        transform = self[component_id]
        transform.set_random_state(seed=seed)
        return transform

    def load_weights(self, path: str | Path, network: torch.nn.Module) -> None:
        """Load what the run has trained.

        Args:
            path: Bare state dict.
            network: Network of the configuration.

        Raises:
            FileNotFoundError: If there is no such file.
        """
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))


@contextlib.contextmanager
def working_dir_of(run: Run) -> Iterator[None]:
    """Work where the run has worked, since what is relative in its configuration is relative to that.

    Args:
        run: The run.
    """
    before = Path.cwd()
    folder = Path(run.record.get("working_dir", before))
    os.chdir(folder if folder.is_dir() else before)
    try:
        yield
    finally:
        os.chdir(before)


def targets_of(config: Any) -> Iterator[str]:
    """Yield the names of all classes that a configuration names, without their packages.

    Args:
        config: Content of a configuration, or a part of it.
    """
    if isinstance(config, Mapping):
        target = config.get("_target_")
        if isinstance(target, str):
            yield target.rsplit(".", 1)[-1]
        for value in config.values():
            yield from targets_of(value)
    elif isinstance(config, list):
        for value in config:
            yield from targets_of(value)
