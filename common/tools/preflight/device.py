"""How much memory there is, on the device and beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch

__all__ = ["Capacity", "device_capacity", "host_capacity"]

# Where a container says what it may take, in the second and in the first version of control groups.
GROUP_FILES = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


class Capacity(NamedTuple):
    """Memory of a device in bytes.

    Attributes:
        name: What it is, for messages.
        free: What nothing uses now.
        total: All of it.
    """

    name: str
    free: int
    total: int


def device_capacity(device: torch.device) -> Capacity:
    """Return the memory of the device that a run uses.

    Args:
        device: CUDA or CPU.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return Capacity(f"{torch.cuda.get_device_name(device)} ({device})", free, total)
    return host_capacity()


def host_capacity() -> Capacity:
    """Return the memory of this machine, or of the container that this process runs in."""
    page = os.sysconf("SC_PAGE_SIZE")
    total = page * os.sysconf("SC_PHYS_PAGES")
    free = page * os.sysconf("SC_AVPHYS_PAGES")
    information = Path("/proc/meminfo")
    if information.is_file():  # what caches of files hold is free for programs
        fields = dict(line.split(":") for line in information.read_text().splitlines() if ":" in line)
        free = int(fields.get("MemAvailable", f"{free // 1024} kB").split()[0]) * 1024
    for limit_file, usage_file in GROUP_FILES:
        if Path(limit_file).is_file() and Path(usage_file).is_file():
            limit = Path(limit_file).read_text().strip()
            if limit.isdigit() and int(limit) < total:
                total = int(limit)
                free = min(free, total - int(Path(usage_file).read_text()))
    return Capacity("CPU", max(free, 0), total)
