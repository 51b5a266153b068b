"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch

# What a disk gives back that keeps no folders in order by fsync, as some of the network do.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EISDIR)
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp(\.[A-Za-z.]+)?")


def write_atomically(obj: Any, path: str | Path) -> None:
    """Save with `torch.save` so that `path` holds either the old or the whole new content, whatever happens.

    The content goes into a temporary file beside `path`, is brought to the disk, and takes the place of the old file in
    one step; then the folder is brought to the disk, so that not even a power cut undoes what this function has done.

    Args:
        obj: What to save.
        path: Destination; its folder is made if needed.

    Raises:
        OSError: If the file cannot be written: the disk is full, the folder read-only, a quota used up. The message has
            the path; a file that was there before is as it was.

    Note:
        A process that is killed leaves its temporary file behind; `remove_leftovers` deletes it.
    """
    with whole_file(path) as temporary, temporary.open("wb") as stream:
        torch.save(obj, stream)


def write_text_atomically(text: str, path: str | Path) -> None:
    """Write a text so that `path` holds either the old or the whole new content; see `write_atomically`."""
    with whole_file(path) as temporary:
        temporary.write_bytes(text.encode())


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{ending}")
    with _refusals_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb+") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def remove_leftovers(*paths: str | Path) -> list[Path]:
    """Delete the temporary files that killed processes have left of these files.

    Args:
        *paths: Files that no other process is writing.

    Returns:
        What was deleted.
    """
    folders = {path.parent for path in map(Path, paths) if path.parent.is_dir()}
    beginnings = tuple(f".{Path(path).name}." for path in paths)
    return _remove(entry for folder in folders for entry in folder.iterdir() if entry.name.startswith(beginnings))


def remove_temporaries(folder: str | Path, older_than_s: float = 0.0) -> list[Path]:
    """Delete the temporary files that killed processes have left in a folder and the folders in it.

    Args:
        folder: Folder that no other process is writing to, or has not been for `older_than_s`.
        older_than_s: Age in seconds of what is deleted.

    Returns:
        What was deleted.
    """
    latest_s = time.time() - older_than_s
    return _remove(path for path in Path(folder).rglob(".*") if path.is_file() and path.stat().st_mtime <= latest_s)


def _remove(entries: Iterable[Path]) -> list[Path]:
    found = [entry for entry in entries if _TEMPORARY.fullmatch(entry.name)]
    for entry in found:
        entry.unlink(missing_ok=True)
    return found


def require_writable(folder: str | Path) -> None:
    """Make a folder and see whether files can be written to it, before hours of work depend on it.

    Args:
        folder: The folder; it is made if needed.

    Raises:
        OSError: If no file can be made there; the message has the folder.
    """
    with _refusals_named(Path(folder)):
        Path(folder).mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


@contextmanager
def _refusals_named(path: Path) -> Iterator[None]:
    """Say which path it was that the operating system refused to write."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        raise OSError(
            reason.errno,
            f"{path} cannot be written: {reason.strerror or reason}. Nothing half written is left, and what was there "
            f"is as it was. Make room, or give another folder, then start again",
        ) from error


def _reason(error: BaseException | None) -> OSError | None:
    """The refusal of the operating system; torch.save hides it behind an error of its own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)
