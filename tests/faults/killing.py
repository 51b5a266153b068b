"""Processes that are killed at random points, and started again until they are done."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from tqdm import tqdm

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def run_and_kill(action: Callable[[], object], folder: Path, after_events: int = 0, after_s: float = 0.0, by=9) -> bool:
    """Run an action in a fork of this process, which has imported everything; kill it, and tell whether it was done.

    Args:
        action: What to run.
        folder: Where its outputs go: what it does to the files there is counted as events.
        after_events: Kill it before this event, from 1; 0 for no limit.
        after_s: Kill it after so many seconds; 0 for no limit.
        by: The signal.
    """
    log = folder.with_name(f"{folder.name}.error")
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            # that of a fork is shared with all forks, and one that was killed may hold it
            tqdm.set_lock(threading.RLock())
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            torch.set_num_threads(1)
            if after_events:
                sys.addaudithook(_killer(str(folder), after_events))
            action()
        except BaseException:  # a fork of pytest must never come back to it
            log.write_text(traceback.format_exc())
            os._exit(1)
        os._exit(0)
    status = _wait(child, after_s, by)
    end_group(child)
    return _is_done(status, log)


def end_group(leader: int) -> None:
    """Kill what a process that is gone has left: a loader process that had only begun to start does not notice it.

    Args:
        leader: The process, which had made itself the leader of a group.
    """
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _wait(child: int, after_s: float, by: int) -> int:
    """Wait for the end of a process, kill it after so many seconds if not 0, and return its status."""
    deadline = time.monotonic() + after_s
    while after_s and time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    if after_s:
        os.kill(child, by)
    return os.waitpid(child, 0)[1]


def _is_done(status: int, log: Path) -> bool:
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, log.read_text()
    return True


def _killer(folder: str, after_events: int) -> Callable[[str, tuple[object, ...]], None]:
    """Count what changes files of a folder, and kill the process in front of one of these changes."""
    left = after_events

    def count(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        is_change = event in ("os.rename", "os.remove", "os.mkdir", "os.truncate")
        if event == "open":
            is_change = isinstance(arguments[2], int) and bool(arguments[2] & _WRITE_FLAGS)
        if is_change and str(arguments[0]).startswith(folder):
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)

    return count


def kill_until_done(
    action: Callable[[], object], folder: Path, generator: random.Random, max_events: int, max_s: float, limit: int
) -> int:
    """Start an action again and again, kill it at random points, and let it finish.

    Half of the points are changes of files, half are times, at which SIGKILL and SIGTERM take turns.

    Args:
        action: What to run.
        folder: Where its outputs go.
        generator: Draws the points.
        max_events: Most changes of files before a kill.
        max_s: Most seconds before a kill.
        limit: Kills after which it may run to its end.

    Returns:
        How often it was killed.
    """
    for kills in range(limit):
        if kills % 2:
            by = signal.SIGTERM if kills % 4 == 1 else signal.SIGKILL
            done = run_and_kill(action, folder, after_s=generator.uniform(0.05, max_s), by=by)
        else:
            done = run_and_kill(action, folder, after_events=generator.randint(1, max_events))
        if done:
            return kills
    assert run_and_kill(action, folder)
    return limit
