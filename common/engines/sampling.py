"""Which training case comes when, and what its random transforms draw: a matter of seed, epoch and place alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass
from typing import Any

import torch
from monai.data import Dataset
from monai.transforms import Randomizable, Transform
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from ..seeding import derive_seed

_SEED_LIMIT = 1 << 32
# Odd and far from a power of two, so that neither the transforms of a case nor those of two cases share seeds.
_SEED_STEP = 0x9E3779B1


@dataclass(frozen=True)
class Draw:
    """One case of an epoch.

    Attributes:
        index: Its place in the data set.
        seed: Seed of its random transforms.
    """

    index: int
    seed: int


class EpochSampler(Sampler[Draw]):
    """Draw a fixed number of cases per epoch, every case once before any comes again, each with a seed of its own.

    Args:
        data_source: What to draw from.
        num_samples: Draws per epoch; may exceed the number of cases.
        seed: Seed of the run, other for each process.

    Raises:
        ValueError: If there is nothing to draw from, or nothing to be drawn.

    Note:
        There is no generator to be saved: the draws follow from `seed` and the epoch. `EpochSeeds` tells the epoch;
        where nobody does, every iteration is the next one. The data set has to be wrapped by `SeededDraws`.
    """

    def __init__(self, data_source: Sized, num_samples: int, seed: int) -> None:
        if len(data_source) < 1 or num_samples < 1:
            raise ValueError(
                f"There must be a case to draw and a draw per epoch, got {len(data_source)} cases and "
                f"num_samples={num_samples}."
            )
        self.data_source = data_source
        self.num_samples = num_samples
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch the next iteration is."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[Draw]:
        generator = torch.Generator().manual_seed(derive_seed("cases", self.seed, self.epoch))
        self.epoch += 1
        length = len(self.data_source)
        rounds = [torch.randperm(length, generator=generator) for _ in range(math.ceil(self.num_samples / length))]
        indices = torch.cat(rounds)[: self.num_samples]
        seeds = torch.randint(_SEED_LIMIT, (self.num_samples,), generator=generator)
        return (Draw(index, seed) for index, seed in zip(indices.tolist(), seeds.tolist(), strict=True))

    def __len__(self) -> int:
        return self.num_samples


class SeededDraws(TorchDataset):
    """A data set whose random transforms draw by the seed that comes with each `Draw`.

    What a case looks like then depends neither on the number of loader processes, nor on what was loaded before it, nor
    on whether the run was interrupted. Transforms in front of the first random one are cached as ever.

    Args:
        dataset: MONAI data set; its `transform` holds all that is random, as MONAI's `Randomizable` that draw from `R`.

    Raises:
        RuntimeError: When a case cannot be loaded; the message has the case and what came in the way.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        # MONAI gives each transform a generator of its own; `set_random_state` makes new ones, which takes a hundred
        # times as long as to seed them again
        dataset.transform.set_random_state(seed=0)
        self.randomizables = list({id(t): t for t in _randomizables(dataset.transform)}.values())

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, draw: Draw) -> Any:
        for place, transform in enumerate(self.randomizables):
            transform.R.seed((draw.seed + place * _SEED_STEP) % _SEED_LIMIT)
        try:
            return self.dataset[draw.index]
        except (OSError, RuntimeError) as error:
            cause: BaseException = error
            while cause.__cause__ is not None:  # MONAI wraps what a transform raises, once a transform
                cause = cause.__cause__
            raise RuntimeError(
                f"Training case {self.dataset.data[draw.index].get('case', draw.index)} cannot be loaded: {cause} "
                f"All cases are checked before the first iteration, unless check_data is off, so its files have "
                f"changed since. Restore them, then go on behind the last finished epoch with --resume True."
            ) from error


def _randomizables(part: object) -> Iterator[Randomizable]:
    """All that draws at random in a transform: itself, what it is composed of, what it keeps inside."""
    if isinstance(part, (list, tuple)):
        for entry in part:
            yield from _randomizables(entry)
    elif isinstance(part, (Randomizable, Transform)):
        if isinstance(part, Randomizable):
            yield part
        yield from _randomizables(list(vars(part).values()))
