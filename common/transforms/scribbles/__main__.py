"""`python -m common.transforms.scribbles generate | convert`: write scribbles that drawing programs can open."""

from __future__ import annotations

from collections.abc import Callable

from ...command_line import run_commands
from .files import convert_scribble_files, generate_scribble_files


def main() -> None:
    """Run the command line; refused options and files end with their message and exit status 1."""
    commands: dict[str, Callable[..., object]] = {
        "generate": generate_scribble_files,
        "convert": convert_scribble_files,
    }
    run_commands(commands, "python -m common.transforms.scribbles")


if __name__ == "__main__":
    main()
