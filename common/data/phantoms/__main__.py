"""`python -m common.data.phantoms torso|fundus|heart --output_dir DIR --num_cases N`: write a phantom data set."""

from __future__ import annotations

from collections.abc import Callable

from ...command_line import run_commands
from .fundus import write_fundus_phantoms
from .heart import write_heart_phantoms
from .torso import write_torso_phantoms


def main() -> None:
    """Run the command line; a refused option ends with its message and exit status 1."""
    commands: dict[str, Callable[..., object]] = {
        "torso": write_torso_phantoms,
        "fundus": write_fundus_phantoms,
        "heart": write_heart_phantoms,
    }
    run_commands(commands, "python -m common.data.phantoms")


if __name__ == "__main__":
    main()
