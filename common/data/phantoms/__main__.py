"""`python -m common.data.phantoms torso|fundus|heart --output_dir DIR --num_cases N`: write a phantom data set."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

import fire

from .fundus import write_fundus_phantoms
from .heart import write_heart_phantoms
from .torso import write_torso_phantoms


class _Request:
    """A command with its options, to be run once fire has understood the whole command line."""

    def __init__(self, command: Callable[[], object]) -> None:
        self._command = command

    def _run(self) -> None:
        self._command()


def _postponed(command: Callable[..., object]) -> Callable[..., _Request]:
    """Keep a command's signature and help, but only note its options.

    Fire calls a function before it finds an option left over: a misspelled one would be refused after all the writing.
    """

    @functools.wraps(command)
    def note(*args: Any, **kwargs: Any) -> _Request:
        return _Request(functools.partial(command, *args, **kwargs))

    return note


def main() -> None:
    """Run the command line; a refused option ends with its message and exit status 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    request = fire.Fire(
        {
            "torso": _postponed(write_torso_phantoms),
            "fundus": _postponed(write_fundus_phantoms),
            "heart": _postponed(write_heart_phantoms),
        },
        name="python -m common.data.phantoms",
        serialize=lambda _: None,
    )
    if isinstance(request, _Request):
        try:
            request._run()
        except (TypeError, ValueError, OSError) as error:
            sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
