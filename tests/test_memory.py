"""Memory that the allocator keeps."""

import ctypes
import sys
from pathlib import Path

import pytest
import torch

from common import memory
from common.memory import kept_memory

LARGE = 64 * 2**20

needs_glibc = pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"),
    reason="needs glibc",
)


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def page_faults(repeats=5):
    """Minor faults of large tensors that are made and dropped."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(repeats):
        torch.empty(LARGE, dtype=torch.uint8).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@needs_glibc
def test_pages_are_cleared_once_and_given_back():
    page_faults()
    outside, before = page_faults(), resident_bytes()
    with kept_memory():
        page_faults(1)
        assert page_faults() < outside / 10
        with kept_memory():
            pass
        # the inner context did not end the outer one
        assert page_faults() < outside / 10
        assert resident_bytes() > before + LARGE / 2
    assert resident_bytes() < before + LARGE / 2
    assert page_faults() > outside / 2


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
