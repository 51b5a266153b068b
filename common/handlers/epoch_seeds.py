"""Random numbers of a training that an interruption does not change."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from ignite.engine import Engine, Events

from ..seeding import derive_seed


class DrawsByEpoch(Protocol):
    """What draws at random, by a seed of its own and the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Draw from now on what belongs to this epoch."""


class EpochSeeds:
    """Begin each epoch with random states that follow from the seed and the number of the epoch alone.

    A resumed run then draws what an uninterrupted one would have drawn, without any state of a generator on disk, on
    every device and in every process; and neither a validation nor the number of loader processes can shift a draw.

    Args:
        seed: Of the global generators of PyTorch (dropout draws from it), NumPy and Python; other for each process.
        generators: What has a seed of its own, by name: the sampler, and what draws on the training device.

    Note:
        The initialization of the network is not concerned: it is over when the first epoch begins.
    """

    def __init__(self, seed: int, generators: Mapping[str, DrawsByEpoch]) -> None:
        self.seed = seed
        self.generators = dict(generators)

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._set_epoch)

    def _set_epoch(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        seed = derive_seed("global", self.seed, epoch)
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - for what draws from it: nothing here does, a third party's transform may
        random.seed(seed)
        for generator in self.generators.values():
            generator.set_epoch(epoch)
