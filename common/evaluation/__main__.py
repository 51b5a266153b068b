"""Command line: `python -m common.evaluation score | compare`."""

from __future__ import annotations

import logging
import sys

import fire

from .commands import compare, score


def main() -> None:
    """Run one command; a refusal ends with its message and exit status 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        fire.Fire({"score": score, "compare": compare}, name="python -m common.evaluation")
    except (ValueError, OSError, RuntimeError) as error:  # DatasetError too: its message is made for the user
        sys.exit(str(error))


if __name__ == "__main__":
    main()
