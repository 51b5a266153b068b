"""What a part of the preflight has to say."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

# What a configuration may raise when a part of it is evaluated; anything else is a fault of the preflight.
REFUSALS = (ValueError, TypeError, LookupError, OSError, RuntimeError, AttributeError, ImportError, ArithmeticError)


@dataclass
class Section:
    """One part of the screen.

    Attributes:
        title: Word at the left.
        lines: What was found.
        warnings: What the run survives, but its owner may not have meant.
        problems: What the run would fail of.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def printed(self) -> Iterator[str]:
        """Yield the lines of the screen."""
        marked = [*self.lines, *(f"WARNING: {text}" for text in self.warnings)]
        if self.problems:  # the end of the screen lists them
            marked.append(f"{len(self.problems)} PROBLEM{'S' if len(self.problems) > 1 else ''}, see below")
        for number, text in enumerate(marked):
            yield f"{self.title if number == 0 else '':9}{text}"


def root_cause(error: BaseException) -> str:
    """Return the message of the error that began it: MONAI says what it was doing, the cause says what is wrong.

    Args:
        error: What was raised.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip() or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the loading of data and weights logs off the screen, which says it in fewer words."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
