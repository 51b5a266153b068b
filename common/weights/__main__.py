"""Command line: `python -m common.weights convert --name pctnet --source FILE --output FILE`."""

from __future__ import annotations

import logging

import fire

from .releases import convert_checkpoint


def convert(name: str, source: str, output: str, resolution_mode: int | None = None) -> None:
    """Convert a checkpoint that the authors publish to a bare state dict in this package's layout.

    Args:
        name: Release: pctnet or fmunet.
        source: The authors' file.
        output: File to write.
        resolution_mode: 0, 1 or 2; left out, 1 for pctnet and the file's own for fmunet.
    """
    convert_checkpoint(str(name), str(source), str(output), resolution_mode)


def main() -> None:
    """Run the command line; a bad source ends with its message and exit status 1."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        fire.Fire({"convert": convert})
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
