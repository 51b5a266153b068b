"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch


def write_atomically(obj: Any, path: str | Path) -> None:
    """Save with `torch.save` so that `path` holds either the old or the whole new content, whatever happens.

    Args:
        obj: What to save.
        path: Destination; its folder is made if needed.
    """
    with _replacing(Path(path)) as stream:
        torch.save(obj, stream)


def write_text_atomically(text: str, path: str | Path) -> None:
    """Write a text so that `path` holds either the old or the whole new content; arguments as `write_atomically`."""
    with _replacing(Path(path)) as stream:
        stream.write(text.encode())


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
