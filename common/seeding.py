"""Seeds that follow from what they are for, instead of from what was drawn before."""

from __future__ import annotations

import zlib

import numpy as np

_SEED_BITS = 64


def derive_seed(purpose: str, *numbers: int) -> int:
    """Return a seed that depends on nothing but its arguments.

    A training whose draws all come from such seeds can be interrupted and resumed anywhere: there is no state of a
    generator to be restored.

    Args:
        purpose: What is drawn; the same numbers give unrelated seeds for two purposes.
        *numbers: What the draws shall depend on, such as the seed of the run and the epoch.

    Returns:
        A number in [0, 2^32).
    """
    entropy = [zlib.crc32(purpose.encode()), *(number % (1 << _SEED_BITS) for number in numbers)]
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])
