"""Several processes: how they meet, and how they share a validation."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
from monai.data import DistributedSampler
from torch.utils.data import Dataset

# The first process reads and checks all data while the others wait in their first collective.
TIMEOUT = timedelta(hours=3)


def start_process_group(device: torch.device) -> None:
    """Join the processes that `torchrun` started: NCCL on GPUs, Gloo on CPUs.

    Args:
        device: Device of this process.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)


def validation_sampler(dataset: Dataset) -> DistributedSampler | None:
    """Share a validation set between the processes, each case once.

    Args:
        dataset: The validation set.

    Returns:
        A sampler of this process's share; None where there are fewer cases than processes: then each process validates
        all of them, which gives the same mean.
    """
    if len(dataset) < dist.get_world_size():  # type: ignore[arg-type]
        return None
    return DistributedSampler(dataset, even_divisible=False, shuffle=False)
