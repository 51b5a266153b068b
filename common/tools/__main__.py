"""Command line: `python -m common.tools demo | bench_... | format_json`; alone, it lists its tools."""

from __future__ import annotations

import logging
import sys

import fire

from .bench_adaptation import bench_adaptation
from .bench_localization import bench_localization
from .bench_maco import bench_maco
from .bench_volume_fusion import bench_volume_fusion
from .demo import demo
from .json_form import format_json


def main() -> None:
    """Run one tool; a refusal ends with its message and exit status 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        fire.Fire(
            {
                "demo": demo,
                "bench_adaptation": bench_adaptation,
                "bench_localization": bench_localization,
                "bench_maco": bench_maco,
                "bench_volume_fusion": bench_volume_fusion,
                "format_json": format_json,
            }
        )
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
