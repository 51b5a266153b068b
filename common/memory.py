"""Memory that is kept between large tensors on a CPU."""

from __future__ import annotations

import ctypes
import sys
import threading
from contextlib import ContextDecorator
from types import TracebackType

# Parameters of mallopt, from glibc's malloc.h, and their values: inside the context, and after it. The latter are those
# that glibc comes to by itself in a process that allocates large tensors.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEEP = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_THRESHOLD: 2**30}
_RETURN = {_TRIM_THRESHOLD: 2**26, _MMAP_THRESHOLD: 2**25}


class kept_memory(ContextDecorator):  # noqa: N801 - used like a function
    """Let the allocator of the process keep what large tensors leave, and give it back to the system at the end.

    On Linux, a tensor of 32 MiB or more comes straight from the system and returns to it at once, and the system clears
    each page again when it is first touched, which takes longer than many an operation on the tensor. Inside this
    context the C library keeps the memory, somewhat more than was in use at once. Contexts may be nested, and may
    overlap in threads; the last one that ends gives the memory back. Without glibc nothing happens.
    """

    _lock = threading.Lock()
    _open = 0

    def __enter__(self) -> None:
        """Keep memory from here on."""
        with self._lock:
            type(self)._open += 1
            _tell_allocator(_KEEP)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give it back, if no other context is open."""
        with self._lock:
            type(self)._open -= 1
            if self._open == 0 and (libc := _tell_allocator(_RETURN)) is not None:
                libc.malloc_trim(0)


def _tell_allocator(values: dict[int, int]) -> ctypes.CDLL | None:
    """Set parameters of glibc's allocator; returns glibc, or None where there is none."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return None
    for parameter, value in values.items():
        libc.mallopt(parameter, value)
    return libc
