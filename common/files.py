"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import torch

# What a disk gives back that keeps no folders in order by fsync, as some of the network do.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EISDIR)


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
    with _replacing(Path(path)) as stream:
        torch.save(obj, stream)


def write_text_atomically(text: str, path: str | Path) -> None:
    """Write a text so that `path` holds either the old or the whole new content; see `write_atomically`."""
    with _replacing(Path(path)) as stream:
        stream.write(text.encode())


def remove_leftovers(*paths: str | Path) -> list[Path]:
    """Delete the temporary files that killed processes have left of these files.

    Args:
        *paths: Files that no other process is writing.

    Returns:
        What was deleted.
    """
    removed = []
    for path in map(Path, paths):
        if path.parent.is_dir():
            for entry in path.parent.iterdir():
                if entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp"):
                    entry.unlink(missing_ok=True)
                    removed.append(entry)
    return removed


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
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _refusals_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


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
