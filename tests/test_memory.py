"""Memory that the allocator keeps."""

import ctypes
import os
import subprocess
import sys

import pytest
import torch

from common import memory
from common.memory import kept_memory

# In a process of its own, whose memory no other test has cut into pieces.
SCRIPT = """
import resource
import torch
from common.memory import kept_memory

LARGE = 64 * 2**20

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / LARGE

def faults():
    # how often a page of a large tensor was new, per page
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.empty(LARGE, dtype=torch.uint8).fill_(1)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * 4096 / LARGE / 8

faults()
start = resident()
print(faults())
with kept_memory():
    faults()
    print(faults())
    with kept_memory():
        pass
    print(faults(), resident() - start)
print(resident() - start)
"""

needs_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="needs glibc",
)


@needs_glibc
def test_pages_are_cleared_once_and_given_back():
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    outside, inside, behind_inner, kept, returned = (float(number) for number in result.stdout.split())
    assert outside > 0.9
    assert inside < 0.3
    # the inner context did not end the outer one
    assert behind_inner < 0.3
    assert kept > 0.5
    assert returned < 0.3


@needs_glibc
def test_ends_with_an_error_too():
    with pytest.raises(KeyError), kept_memory():
        raise KeyError
    assert kept_memory._open == 0


def test_without_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    with kept_memory():
        torch.zeros(3)
    assert kept_memory._open == 0
