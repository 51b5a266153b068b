"""Is a PNG whole? Pillow verifies no checksum of pixels, and leaves missing rows black."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from .capacity import READ_BYTES, check_capacity, damaged

__all__ = ["check_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Values per pixel by color type: gray, color, palette, gray and alpha, color and alpha.
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def check_png(path: Path) -> None:
    """Verify the checksums of a PNG, and that it holds all its rows.

    Args:
        path: The file.

    Raises:
        DatasetError: If a part is damaged or missing.
    """
    num_bytes = found_bytes = 0
    decompressor = zlib.decompressobj()
    with path.open("rb") as stream:
        stream.seek(len(SIGNATURE))
        for kind, content in _chunks(path, stream):
            if kind == b"IHDR" and len(content) == 13:
                num_bytes = _packed_bytes(path, content)
            elif kind == b"IDAT":
                found_bytes += _inflated_bytes(path, decompressor, content, num_bytes)
    if not num_bytes or found_bytes < num_bytes or not decompressor.eof:
        raise damaged(path, f"{found_bytes:,} of {num_bytes:,} bytes of pixels")


def _chunks(path: Path, stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the parts of a PNG up to its end, each with its name."""
    file_bytes = path.stat().st_size
    kind = b""
    while kind != b"IEND":
        head = stream.read(8)
        if len(head) < 8:
            raise damaged(path, "a PNG without end: image file is truncated")
        length, kind = struct.unpack(">I4s", head)
        if length > file_bytes - stream.tell() - 4:
            raise damaged(path, "a part that is longer than the file: image file is truncated")
        content = stream.read(length)
        if zlib.crc32(kind + content) != struct.unpack(">I", stream.read(4))[0]:
            raise damaged(path, f"a wrong checksum of the part {kind.decode('latin-1')!r}")
        yield kind, content


def _packed_bytes(path: Path, content: bytes) -> int:
    """Return the bytes of all rows, each with its filter; those of an interlaced picture are a few more."""
    width, height, bits, color, _, _, _ = struct.unpack(">IIBBBBB", content)
    num_bytes: int = height * (1 + (width * bits * SAMPLES.get(color, 1) + 7) // 8) if width else 0
    check_capacity(path, (width, height), num_bytes, path.stat().st_size, compressed=True)
    return num_bytes


def _inflated_bytes(path: Path, decompressor: Any, content: bytes, num_bytes: int) -> int:
    """Return how many bytes a part of the pixels holds, in pieces, none of which is kept."""
    total = 0
    try:
        while content and not decompressor.eof and total <= 2 * num_bytes:
            total += len(decompressor.decompress(content, READ_BYTES))
            content = decompressor.unconsumed_tail
    except zlib.error as error:
        raise damaged(path, f"a damaged zlib stream ({error})") from error
    return total
