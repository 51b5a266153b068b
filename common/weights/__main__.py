"""Command line: `python -m common.weights list | inspect --source FILE | convert --name pctnet --source FILE ...`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ..command_line import run_commands
from .catalog import describe_catalog
from .inspection import inspect_checkpoint
from .releases import convert_checkpoint

logger = logging.getLogger(__name__)


def list_published() -> None:
    """Say which checkpoints are published: where, under which licence, what they need, how they are converted."""
    for line in describe_catalog():
        logger.info(line)


def inspect(source: str) -> None:
    """Say what a file is: whose weights, how many numbers, of which type, whether they are sound.

    Args:
        source: A file that might be a checkpoint. Nothing in it is executed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no weights that this project can use, or values that are not finite.
    """
    report = inspect_checkpoint(str(source))
    for line in report.lines():
        logger.info(line)
    if not report.usable:
        raise ValueError(f"{source} cannot be used: {report.kind}.")
    if any(doubt.startswith("NaN") for doubt in report.doubts):
        raise ValueError(f"{source} cannot be used: {report.doubts[0]}.")


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
    commands: dict[str, Callable[..., object]] = {"list": list_published, "inspect": inspect, "convert": convert}
    run_commands(commands, name="python -m common.weights")


if __name__ == "__main__":
    main()
