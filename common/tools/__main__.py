"""Command line: `python -m common.tools demo | bench_... | format_json`; alone, it lists its tools."""

from __future__ import annotations

from collections.abc import Callable

from ..command_line import run_commands
from .bench_adaptation import bench_adaptation
from .bench_localization import bench_localization
from .bench_maco import bench_maco
from .bench_volume_fusion import bench_volume_fusion
from .demo import demo
from .json_form import format_json
from .preflight import check
from .report import report


def main() -> None:
    """Run one tool; a refusal ends with its message and exit status 1."""
    commands: dict[str, Callable[..., object]] = {
        "check": check,
        "demo": demo,
        "bench_adaptation": bench_adaptation,
        "bench_localization": bench_localization,
        "bench_maco": bench_maco,
        "bench_volume_fusion": bench_volume_fusion,
        "format_json": format_json,
        "report": report,
    }
    run_commands(commands, name="python -m common.tools")


if __name__ == "__main__":
    main()
