"""Command line: `python -m common.weights convert --name pctnet --source FILE --output FILE`."""

from __future__ import annotations

from ..command_line import run_commands
from .releases import convert_checkpoint


def convert(name: str, source: str, output: str, resolution_mode: int | None = None) -> None:
    """Convert a checkpoint that the authors publish to a bare state dict in this package's layout.

    Args:
        name: Release: pctnet, fmunet, vptta, grata, medlam or sam.
        source: The authors' file.
        output: File to write.
        resolution_mode: 0, 1 or 2, of pctnet and fmunet only; left out, 1 for pctnet, the file's own for fmunet.
    """
    convert_checkpoint(str(name), str(source), str(output), resolution_mode)


def main() -> None:
    """Run the command line; a bad source ends with its message and exit status 1."""
    run_commands({"convert": convert}, name="python -m common.weights")


if __name__ == "__main__":
    main()
