"""What is done about headers that break rules, whatever their format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..problems import DatasetError, Problem

_MAX_SHOWN = 120


def refuse_broken_rules(path: Path, broken: Iterable[tuple[str, str]], remedy: str) -> None:
    """Refuse a header if it breaks any rule.

    Args:
        path: The file.
        broken: Rules, and what was found instead.
        remedy: What to do about it.

    Raises:
        DatasetError: With a line for each of them.
    """
    problems = [Problem(path, rule, found[:_MAX_SHOWN] or "nothing", remedy) for rule, found in broken]
    if problems:
        raise DatasetError(problems)


def doubts_about_place(absent: Iterable[str]) -> list[str]:
    """Return a warning if a header lacks fields that say where the voxels are.

    Args:
        absent: Names of these fields.
    """
    names = " and no ".join(absent)
    return [f"the header has no {names}: its place is a guess"] if names else []
