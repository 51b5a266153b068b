"""Does a file hold what its header announces? Answered before anything of that size is allocated."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..problems import DatasetError, refusal

__all__ = ["check_capacity", "damaged", "inflate", "read_gzip"]

# Deflate cannot compress better than this (zlib technical details).
MAX_DEFLATE_RATIO = 1032
READ_BYTES = 1 << 22


def damaged(path: Path, found: str) -> DatasetError:
    """Return the refusal of a file that does not open."""
    return refusal(path, "must open", found, "copy it again from its source, or remove the case")


def check_capacity(path: Path, shape: tuple[int, ...], num_bytes: int, file_bytes: int, compressed: bool) -> None:
    """Refuse a header that announces more than its file or this machine can hold.

    Args:
        path: File, for the message.
        shape: Announced shape, for the message.
        num_bytes: Bytes that the announced voxels take.
        file_bytes: Bytes on disk.
        compressed: Whether the voxels may be deflated.

    Raises:
        DatasetError: If the file, or the memory of this machine, cannot hold that many bytes.
    """
    extents = " x ".join(map(str, shape))
    if num_bytes > file_bytes * (MAX_DEFLATE_RATIO if compressed else 1):
        found = f"a header of {extents} voxels ({num_bytes:,} bytes) on {file_bytes:,} bytes of file"
        raise refusal(
            path, "must hold the voxels that its header announces", found, "copy it again, or repair the header"
        )
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if num_bytes > memory_bytes:
        found = f"{extents} voxels ({num_bytes:,} bytes) for {memory_bytes:,} bytes"
        raise refusal(path, "must fit into memory", found, "crop it, or use a larger machine")


def read_gzip(path: Path, num_bytes: int) -> bytearray:
    """Decompress a gzip file to its end, so that its checksum is verified, without trusting a size.

    Args:
        path: File.
        num_bytes: Bytes that are wanted; what follows is verified and dropped, up to 4 MiB.

    Returns:
        At most `num_bytes` bytes; memory grows with what is there and not with what was announced.

    Raises:
        DatasetError: If the stream is cut off, goes on for longer, or its checksum is wrong.
    """
    data = bytearray()
    surplus = 0
    try:
        with gzip.open(path) as stream:
            while (chunk := stream.read(READ_BYTES)) and surplus <= READ_BYTES:
                wanted = min(len(chunk), num_bytes - len(data))
                data += chunk[:wanted]
                surplus += len(chunk) - wanted
    except EOFError as error:
        raise damaged(path, f"a gzip stream that is cut off ({path.stat().st_size:,} bytes)") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise damaged(path, f"a damaged gzip stream ({error})") from error
    if len(data) < num_bytes:
        raise damaged(path, f"{len(data):,} of {num_bytes:,} bytes of voxels")
    if surplus > READ_BYTES:
        raise damaged(path, f"megabytes behind the {num_bytes:,} bytes of voxels")
    return data


def inflate(stream: BinaryIO, compressed_bytes: int, num_bytes: int) -> Iterator[int]:
    """Yield the sizes of what a zlib or gzip stream decompresses to, piece by piece, up to its end.

    Args:
        stream: At the start of the compressed bytes.
        compressed_bytes: How many of them there are; more are not read.
        num_bytes: Bytes that are wanted; a stream that goes on for megabytes behind them is left there.

    Raises:
        EOFError: If the stream is cut off.
        zlib.error: If it is damaged; zlib verifies its own checksum, or does not end.
    """
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: a zlib or a gzip header
    total = 0
    while not decompressor.eof:
        chunk = decompressor.unconsumed_tail
        if not chunk:
            chunk = stream.read(min(READ_BYTES, compressed_bytes))
            compressed_bytes -= len(chunk)
        if not chunk:
            raise EOFError
        size = len(decompressor.decompress(chunk, READ_BYTES))
        total += size
        if total > num_bytes + READ_BYTES:
            raise zlib.error(f"it goes on behind the {num_bytes:,} bytes of voxels")
        yield size
