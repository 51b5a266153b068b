"""Hostile inputs: what a case is, what it may end in, how bytes are damaged, and the budget that each case has."""

from __future__ import annotations

import gzip
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

# A fault in the budget is no error of the file: nothing that catches errors may catch it.
LIMIT_S = 10.0
# Peak memory above that before the case. The largest sound case holds 1 MB; interpreters and ITK buffer some more.
LIMIT_BYTES = 200 * 2**20


@dataclass(frozen=True)
class Right:
    """The case must be read, with these values and this affine to RAS mm.

    Attributes:
        array: Values in the reader's order; None where only the geometry is known.
        affine: Shape (4, 4); None for formats without geometry.
    """

    array: np.ndarray | None
    affine: np.ndarray | None


@dataclass(frozen=True)
class Refused:
    """The case must be refused.

    Attributes:
        message: Part of the message; empty where any rule may be the first that it breaks.
    """

    message: str = ""


class SecondReader:
    """The case may be refused; where it is read, it must be as a reader that shares no code reads it."""


Answer = Right | Refused | SecondReader


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        name: Unique, stable.
        write: Writes the file or files into an empty folder and returns the path to read.
        answer: What must happen.
    """

    name: str
    write: Callable[[Path], Path]
    answer: Answer


class OverBudgetError(BaseException):
    """A case took more than it may; no `except Exception` stops it."""


@contextmanager
def budget(limit_s: float = LIMIT_S, limit_bytes: int = LIMIT_BYTES) -> Iterator[dict[str, float]]:
    """Refuse what computes for longer than `limit_s` or held more than `limit_bytes`, and stop what waits.

    Time is that of the processor, as tests share theirs with others; a wait ends after six times as long.

    Yields:
        Filled at the end with `seconds` and `peak_bytes` (resident memory above that at the start).
    """
    spent: dict[str, float] = {}

    def interrupt(*_: object) -> None:
        raise OverBudgetError(f"more than {6 * limit_s:g} s of waiting")

    old = signal.signal(signal.SIGALRM, interrupt)
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is resident now
    before = _status("VmRSS")
    start = time.process_time()
    signal.setitimer(signal.ITIMER_REAL, 6 * limit_s)
    try:
        yield spent
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
        spent["seconds"] = time.process_time() - start
        spent["peak_bytes"] = max(0, _status("VmHWM") - before)
    if spent["seconds"] > limit_s:  # a signal waits for the end of compiled code
        raise OverBudgetError(f"{spent['seconds']:.1f} s, allowed are {limit_s:g}")
    if spent["peak_bytes"] > limit_bytes:
        raise OverBudgetError(f"{spent['peak_bytes'] / 2**20:.0f} MiB, allowed are {limit_bytes / 2**20:.0f}")


def _status(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field + ":"))
    return int(line.split()[1]) * 1024


@cache
def packed_zeros(form: str) -> bytes:
    """Return 300 MiB of zeros in 0.3 MB, as "gzip" or "zlib"; kept, as packing takes seconds."""
    pack = {"gzip": gzip.compress, "zlib": zlib.compress}[form]
    return pack(bytes(300 * 2**20), 9)


def written(content: bytes | Callable[[], bytes], name: str = "image.nii") -> Callable[[Path], Path]:
    """Return a writer of one file; content that is costly is made as it is written."""

    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content() if callable(content) else content)
        return folder / name

    return write


def flip(content: bytes, rng: np.random.Generator, start: int = 0, stop: int | None = None, count: int = 1) -> bytes:
    """Flip bits of a part of a file."""
    damaged = bytearray(content)
    for _ in range(count):
        position = int(rng.integers(start, min(stop or len(content), len(content))))
        damaged[position] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def mutate(content: bytes, rng: np.random.Generator, header_bytes: int) -> tuple[str, bytes]:
    """Damage a file in one of many ways, most of them in its first `header_bytes`, and say which."""
    header_bytes = min(header_bytes, len(content))
    kind = rng.choice(
        ["bit", "bits", "byte", "cut", "zeros", "insert", "delete", "repeat", "tail", "payload"],
        p=[0.3, 0.1, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05],
    )
    at = int(rng.integers(header_bytes))
    length = int(rng.integers(1, 24))
    if kind == "bit":
        return kind, flip(content, rng, 0, header_bytes)
    if kind == "bits":
        return kind, flip(content, rng, 0, header_bytes, count=int(rng.integers(2, 9)))
    if kind == "byte":
        return kind, content[:at] + rng.bytes(1) + content[at + 1 :]
    if kind == "cut":
        return kind, content[: int(rng.integers(len(content)))]
    if kind == "zeros":
        return kind, content[:at] + bytes(length) + content[at + length :]
    if kind == "insert":
        return kind, content[:at] + rng.bytes(length) + content[at:]
    if kind == "delete":
        return kind, content[:at] + content[at + length :]
    if kind == "repeat":
        return kind, content[: at + length] + content[at:]
    if kind == "tail":
        return kind, content + rng.bytes(length)
    return kind, flip(content, rng, min(header_bytes, len(content) - 1))


def damaged_files(
    prefix: str, bases: dict[str, bytes], header_bytes: int, seed: int, count: int, target: str | None = None
) -> Iterator[Case]:
    """Yield `count` damaged copies of sound files.

    Args:
        prefix: Start of the names.
        bases: Content of sound files by their names.
        header_bytes: Where most of the damage is done.
        seed: Of the damage.
        count: How many.
        target: Name of the file to read; by default the damaged one.
    """
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        name = sorted(bases)[index % len(bases)]
        kind, content = mutate(bases[name], rng, header_bytes)

        def write(folder: Path, name: str = name, content: bytes = content) -> Path:
            (folder / name).write_bytes(content)
            return folder / (target or name)

        yield Case(f"{prefix} {name} {kind} {seed}-{index}", write, SecondReader())
