"""Whether an error is the fault of a case or of the machine, and how it reads in one line."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import torch

from ..data.problems import DatasetError

# No room, no right, no handle left: the next case would fare no better.
MACHINE_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EMFILE, errno.ENFILE)
MAX_REASON = 600
OUT_OF_MEMORY = (
    "out of memory. Remedy: lower roi_size, the batch sizes of the inference or image_size, close other programs, or "
    "run this case on a device with more"
)


class MachineError(OSError):
    """What the machine refuses, so that no further case should be tried."""


def machine_fault(error: BaseException, is_writing: bool) -> str | None:
    """Return why no further case should be tried, or None if the error is the fault of the case.

    Args:
        error: What was raised.
        is_writing: Whether the case was read already: then what the operating system refuses is about the outputs.
    """
    for cause in _causes(error, unsaid=True):
        if isinstance(cause, MachineError):
            return _plain(cause)
        number = cause.errno if isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError) else None
        if number in MACHINE_ERRNOS or (is_writing and number is not None):
            return _plain(cause)
        if isinstance(cause, torch.AcceleratorError) and not isinstance(cause, torch.OutOfMemoryError):
            return f"the device failed: {_plain(cause)}"
    return None


def describe_failure(error: BaseException) -> str:
    """Return the cause of an error in one line.

    Args:
        error: What was raised, perhaps from other errors.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, DatasetError):
            return _shortened(" ".join(map(str, cause.problems)))
        if isinstance(cause, (MemoryError, torch.OutOfMemoryError)):
            return f"{type(cause).__name__}: {OUT_OF_MEMORY}."
    return _shortened(f"{type(causes[-1]).__name__}: {_plain(causes[-1])}".removesuffix(": "))


def _causes(error: BaseException, unsaid: bool = False) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from, or merely during, the first cause last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or (cause.__context__ if unsaid and not cause.__suppress_context__ else None)


def _plain(error: BaseException) -> str:
    return " ".join(str(error).split())


def _shortened(text: str) -> str:
    plain = " ".join(text.split())
    return plain if len(plain) <= MAX_REASON else f"{plain[: MAX_REASON - 4]} ..."
