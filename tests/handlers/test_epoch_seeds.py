"""Random states that follow from seed and epoch."""

from __future__ import annotations

import random

import numpy as np
import torch
from ignite.engine import Engine, Events

from common.engines import ContextMasking, EpochSampler
from common.handlers import EpochSeeds
from common.seeding import derive_seed


def numbers(seed, epochs, first=1):
    """What the global generators and one more give in the epochs from `first` on."""
    drawn = []
    masking = ContextMasking(4, seed=seed)

    def draw(_engine, _batch):
        mask = masking.draw(torch.zeros(1, 1, 32, 32)).flatten().tolist()
        drawn.append((torch.rand(()).item(), np.random.rand(), random.random(), *mask))  # noqa: NPY002

    engine = Engine(draw)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", first - 1))
    EpochSeeds(seed, {"masking": masking}).attach(engine)
    engine.run([0], max_epochs=epochs)
    return drawn


def test_an_epoch_draws_alike_whichever_came_before():
    torch.rand(7)
    whole = numbers(0, 3)
    torch.rand(3)
    assert numbers(0, 3, first=2) == whole[1:]
    assert len(set(whole)) == 3
    assert not {entry[0] for entry in whole} & {entry[0] for entry in numbers(1, 3)}


def test_each_generator_is_told_the_epoch():
    sampler = EpochSampler(range(9), num_samples=9, seed=4)
    engine = Engine(lambda _engine, _batch: None)
    EpochSeeds(0, {"sampler": sampler}).attach(engine)
    engine.run([0], max_epochs=2)
    expected = EpochSampler(range(9), num_samples=9, seed=4)
    expected.set_epoch(2)
    assert list(sampler) == list(expected)


def test_derived_seeds_depend_on_purpose_and_numbers_alone():
    assert derive_seed("a", 1, 2) == derive_seed("a", 1, 2)
    seeds = {derive_seed(purpose, seed, epoch) for purpose in "ab" for seed in range(-5, 15) for epoch in range(50)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**32 for seed in seeds)
