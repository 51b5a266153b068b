"""Files that programs write by path: there whole or not at all, also after a power cut."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.[A-Za-z.]+)?")


@contextmanager
def whole_file(path: str | Path, ending: str = "") -> Iterator[Path]:
    """Give the name of a temporary file beside `path`; what was written to it takes the place of `path` in one step.

    Args:
        path: Destination; its folder is made if needed.
        ending: End of the temporary name, for libraries that choose the format by it.

    Raises:
        OSError: If the file cannot be written; then `path` is as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{ending}")
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(folder: str | Path) -> list[Path]:
    """Delete the temporary files that killed processes have left in a folder and the folders in it.

    Args:
        folder: Folder that no other process is writing to.

    Returns:
        What was deleted.
    """
    found = [path for path in Path(folder).rglob(".*") if _TEMPORARY.fullmatch(path.name) and path.is_file()]
    for path in found:
        path.unlink(missing_ok=True)
    return found
