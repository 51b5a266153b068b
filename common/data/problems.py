"""What is wrong with a data set, said so that its owner can repair it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["DatasetError", "Problem", "refusal"]


@dataclass(frozen=True)
class Problem:
    """One broken rule.

    Attributes:
        file: File, folder or entry that breaks the rule.
        rule: What must hold, as a phrase that follows the file name.
        found: What was found instead.
        remedy: What the owner of the data can do.
    """

    file: str | os.PathLike[str]
    rule: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{os.fspath(self.file)}: {self.rule}; found {self.found}. Remedy: {self.remedy}."


class DatasetError(ValueError):
    """Every problem that was found in a data set, one line each.

    Args:
        problems: At least one problem.

    Attributes:
        problems: The same problems, for code that sorts or counts them.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        count = f"{len(self.problems)} problem" + ("s" if len(self.problems) != 1 else "")
        super().__init__("\n  ".join([f"{count} in the data:", *map(str, self.problems)]))


def refusal(file: str | os.PathLike[str], rule: str, found: str, remedy: str) -> DatasetError:
    """Return the error of one broken rule, to be raised; the arguments are those of `Problem`."""
    return DatasetError([Problem(file, rule, found, remedy)])
