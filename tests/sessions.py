"""Sessions that documents show: commands, and excerpts of what they print."""

from __future__ import annotations

import logging
import os
import re
import runpy
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```(text)?\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
# Files of the reader, which no test has.
ELSEWHERE = "/path/"
MARK = "=== command ==="
# What a log puts before each line.
TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ - ")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


class Step(NamedTuple):
    """Commands of one block, and the lines shown below it."""

    commands: list[str]
    shown: list[str]


def steps(document: Path) -> Iterator[Step]:
    """Yield the blocks of commands of a document, each with the output that follows it."""
    pending: list[str] | None = None
    for kind, content in BLOCK.findall(document.read_text()):
        lines = content.replace("\\\n", " ").splitlines()
        if kind:
            if pending is not None:
                yield Step(pending, lines)
            pending = None
            continue
        if pending is not None:
            yield Step(pending, [])
        pending = lines
    if pending is not None:
        yield Step(pending, [])


def run_session(commands: list[str], folder: Path) -> list[tuple[int, str]]:
    """Run commands of a document one after the other in a folder; gives for each its exit status and what it printed.

    One process runs them all, as importing takes longer than most of them; each as `python -m` would.
    """
    done = subprocess.run(
        [sys.executable, __file__],
        cwd=folder,
        input="\n".join(commands),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
    )
    parts = done.stdout.split(MARK)[1:]
    assert len(parts) == 2 * len(commands), done.stdout[-3000:]
    return [(int(status), text) for text, status in zip(parts[::2], parts[1::2], strict=True)]


def _run_commands() -> None:
    """Run the commands on standard input."""
    for command in sys.stdin.read().splitlines():
        words = shlex.split(command.replace("'bundles/", f"'{REPOSITORY}/bundles/"))
        assert words[:2] == ["python", "-m"], command
        sys.argv = words[2:]
        # what a former command set would stay, where a process of its own begins without
        logging.getLogger().handlers.clear()
        status: object = 0
        print(MARK, flush=True)
        try:
            runpy.run_module(words[2], run_name="__main__", alter_sys=True)
        except SystemExit as ending:
            status = ending.code or 0
        except Exception:
            traceback.print_exc()
            status = 1
        if isinstance(status, str):
            print(status, flush=True)
            status = 1
        sys.stderr.flush()
        print(f"{MARK}{status}", flush=True)


def comparable(text: str, folder: Path) -> list[str]:
    """Lines without what differs from run to run: times, numbers, widths of columns, folders."""
    text = text.replace(f"{folder}/", "").replace(f"{REPOSITORY}/", "")
    return [" ".join(NUMBER.sub("#", TIME.sub("", line)).split()) for line in text.splitlines()]


if __name__ == "__main__":
    _run_commands()
