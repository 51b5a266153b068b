"""Published checkpoints rebuilt from their layout and a seed, and what the authors' code computed with them.

`layouts/*.json` lists [key, shape, dtype] of a checkpoint. Each tensor is drawn from NumPy's legacy generator, which is
frozen, seeded by the checksum of "seed:key"; so no weight file is needed, and neither the order of the keys nor the
version of a library matters. `cases/*.pt` holds the inputs' seed and the outputs.
"""

import json
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parent


def draw_tensor(key: str, shape: list[int], dtype: str, seed: int) -> torch.Tensor:
    """One tensor of a checkpoint, at the scale that its role in a network asks for."""
    if dtype != "float32":
        return torch.zeros(shape, dtype=getattr(torch, dtype))
    normal = np.random.RandomState(zlib.crc32(f"{seed}:{key}".encode())).standard_normal(shape)
    name = key.rpartition(".")[2]
    offset, scale = 1.0, 0.1  # the factor of a normalization
    if name == "running_var":
        normal, offset, scale = np.abs(normal), 0.5, 1.0
    elif name == "running_mean":
        offset, scale = 0.0, 0.2
    elif name == "relative_position_bias_table":
        offset, scale = 0.0, 0.5
    elif len(shape) > 1:
        offset, scale = 0.0, math.sqrt(2.0 / math.prod(shape[1:]))
    elif name == "bias":
        offset, scale = 0.0, 0.1
    elif shape == [1]:  # the slope of a PReLU
        offset, scale = 0.25, 0.02
    return torch.from_numpy(np.asarray(offset + scale * normal, dtype=np.float32).reshape(shape))


@pytest.fixture(scope="session")
def load_case() -> Callable[[str], dict[str, Any]]:
    """Read a case by its name."""
    return lambda name: torch.load(FOLDER / "cases" / f"{name}.pt", weights_only=True)


@pytest.fixture(scope="session")
def make_checkpoint(load_case) -> Callable[[str, int], dict[str, torch.Tensor]]:
    """Make the state dict of a layout by its name and a seed; the relative position index is the published one."""

    def make(layout: str, seed: int) -> dict[str, torch.Tensor]:
        entries = json.loads((FOLDER / "layouts" / f"{layout}.json").read_text())
        state = {key: draw_tensor(key, shape, dtype, seed) for key, shape, dtype in entries}
        for key in state:
            if key.endswith("relative_position_index"):
                state[key] = load_case("pctnet")["relative_position_index"].long()
        return state

    return make
