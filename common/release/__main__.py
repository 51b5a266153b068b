"""Command line: `python -m common.release package | verify | unpack | new_bundle`; alone, it lists them."""

from __future__ import annotations

from collections.abc import Callable

from ..command_line import run_commands
from .archive import package
from .new_bundle import new_bundle
from .unpacking import unpack
from .verification import verify


def main() -> None:
    """Run one command; a refusal ends with its message and exit status 1."""
    commands: dict[str, Callable[..., object]] = {
        "package": package,
        "verify": verify,
        "unpack": unpack,
        "new_bundle": new_bundle,
    }
    run_commands(commands, name="python -m common.release")


if __name__ == "__main__":
    main()
