"""Commands that say what they refuse, and refuse before they do anything."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

import fire

__all__ = ["run_commands"]


class _Request:
    """A command with its options, to be run once fire has understood the whole command line."""

    def __init__(self, command: Callable[[], object]) -> None:
        self._command = command

    def _run(self) -> None:
        self._command()


def run_commands(commands: Mapping[str, Callable[..., object]], name: str) -> None:
    """Run the command that the command line names; refused options end with their message and exit status 1.

    Args:
        commands: Functions by the name of their command; their docstrings are the help.
        name: How the program is called, for the help.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    postponed = {key: _postponed(command) for key, command in commands.items()}
    request = fire.Fire(postponed, name=name, serialize=lambda _: None)
    if isinstance(request, _Request):
        try:
            request._run()
        # messages made for the user, a traceback is not
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            sys.exit(f"error: {error}")


def _postponed(command: Callable[..., object]) -> Callable[..., _Request]:
    """Keep a command's signature and help, but only note its options.

    Fire calls a function before it finds an option left over: a misspelled one would be refused after all the writing.
    """

    @functools.wraps(command)
    def note(*args: Any, **kwargs: Any) -> _Request:
        return _Request(functools.partial(command, *args, **kwargs))

    return note
