"""Random order of training cases that a resumed run goes on with."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from torch.utils.data import RandomSampler


class EpochSampler(RandomSampler):
    """Draw a fixed number of cases per epoch, every case once before any comes again.

    Args:
        data_source: What to draw from.
        num_samples: Draws per epoch; may exceed the number of cases.
        seed: Seed of the generator.

    Note:
        The generator's state is the only state; `state_dict` and `load_state_dict` keep it over an interruption.
    """

    def __init__(self, data_source: Sized, num_samples: int, seed: int) -> None:
        super().__init__(data_source, num_samples=num_samples, generator=torch.Generator().manual_seed(seed))

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned."""
        self.generator.set_state(state["generator"])
