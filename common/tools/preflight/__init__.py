"""Before hours are spent: would this run of a bundle fail, and what does it read, need and write?"""

from .command import check

__all__ = ["check"]
