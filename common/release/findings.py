"""How a check of a bundle ends."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# What a check that does not hold raises; anything else is a fault of the check.
REFUSALS = (ValueError, TypeError, LookupError, OSError, RuntimeError, AttributeError, ImportError, AssertionError)


class NotPossibleError(Exception):
    """A check cannot be made on this machine; the message says why, and what to install."""


class Finding(NamedTuple):
    """Outcome of one check.

    Attributes:
        bundle: Name of the bundle.
        check: What was checked.
        outcome: `ok`, `FAILED` or `skipped`.
        message: What was found; empty where nothing is to be said.
        seconds: Time that the check took.
    """

    bundle: str
    check: str
    outcome: str
    message: str
    seconds: float

    def __str__(self) -> str:
        """One line for the terminal."""
        tail = f": {self.message}" if self.message else ""
        return f"{self.outcome:8}{self.seconds:7.1f} s  {self.bundle}: {self.check}{tail}"


def run_check(bundle: Path, name: str, check: Callable[[Path], str | None]) -> Finding:
    """Run one check.

    Args:
        bundle: Folder of the bundle.
        name: What is checked, in words.
        check: Returns what is to be said, or raises one of `REFUSALS` or `NotPossibleError`.
    """
    start = time.perf_counter()
    outcome, message = "ok", ""
    with warnings.catch_warnings():
        # torch warns that TorchScript and ONNX exporters will change; MONAI that a configuration is code
        warnings.simplefilter("ignore")
        try:
            message = check(bundle) or ""
        except NotPossibleError as reason:
            outcome, message = "skipped", str(reason)
        except REFUSALS as error:
            outcome, message = "FAILED", _describe(error)
    return Finding(bundle.name, name, outcome, message, time.perf_counter() - start)


def _describe(error: BaseException) -> str:
    """The message of an error and of those that caused it: MONAI says what it was doing, the cause what is wrong."""
    messages: list[str] = []
    link: BaseException | None = error
    while link is not None:
        text = " ".join((str(link) or type(link).__name__).split())
        if text not in messages:
            messages.append(text)
        link = link.__cause__
    return "; because ".join(messages)


def read_rules() -> dict[str, object]:
    """Return this project's JSON schema of a bundle's metadata."""
    return json.loads((Path(__file__).parent / "metadata_schema.json").read_text())
