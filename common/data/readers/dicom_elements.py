"""The elements of a DICOM file, none longer than the file: GDCM makes room for whatever length an element announces."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

from .capacity import damaged

__all__ = ["DicomElements", "read_dicom_elements"]

START = 132  # a preamble of 128 bytes and the mark
EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = (EXPLICIT, IMPLICIT, BIG_ENDIAN)
TRANSFER_SYNTAX = 0x00020010
PIXEL_DATA = 0x7FE00010
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
UNDEFINED = 0xFFFFFFFF
# Two letters each: types whose length takes two bytes, and those whose length takes four behind two unused ones.
SHORT_TYPES = {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL",
               b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}  # fmt: skip
LONG_TYPES = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
MAX_DEPTH = 16


@dataclass(frozen=True)
class DicomElements:
    """The elements outside of sequences.

    Attributes:
        transfer_syntax: How they are written.
        values: Bytes of those of at most 1 KiB, by tag.
        pixel_bytes: Length of the pixels; None where they are in compressed pieces, 0 where there are none.
    """

    transfer_syntax: str
    values: dict[int, bytes]
    pixel_bytes: int | None

    def text(self, tag: int) -> str:
        """Return a value that is text, without padding; nothing where it is absent."""
        return _text(self.values.get(tag, b""))

    def number(self, tag: int, default: int = 0) -> int:
        """Return a whole number of 16 bits; `default` where it is absent."""
        value = self.values.get(tag, b"")
        order = ">H" if self.transfer_syntax == BIG_ENDIAN else "<H"
        return int(struct.unpack(order, value)[0]) if len(value) == 2 else default

    @property
    def is_compressed(self) -> bool:
        """Whether the pixels are."""
        return self.transfer_syntax not in UNCOMPRESSED


def read_dicom_elements(path: Path) -> DicomElements:
    """Read the elements of a DICOM file, and refuse one that does not hold what they announce.

    Args:
        path: File with preamble.

    Raises:
        DatasetError: If it is no DICOM file, cut off, or its elements are not in order.
    """
    with path.open("rb") as stream:
        if path.stat().st_size <= START:
            raise damaged(path, f"{path.stat().st_size} bytes")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Walk(path, content).read()


class _Walk:
    """One pass through a file.

    Args:
        path: The file, for messages.
        content: Its bytes.
    """

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self.path = path
        self.content = content
        self.end = len(content)
        self.at = START
        self.endian = "<"
        self.is_explicit = True

    def read(self) -> DicomElements:
        """Read all elements."""
        if self.content[START - 4 : START] != b"DICM":
            raise damaged(self.path, "no mark DICM at byte 128")
        values: dict[int, bytes] = {}
        pixel_bytes: int | None = 0
        last = 0
        while self.at < self.end and not self._is_padding():
            if self.content[self.at : self.at + 2] != b"\2\0" and last >> 16 == 2:
                self._switch(_text(values.get(TRANSFER_SYNTAX, b"")))
            tag, length = self._element_head()
            if tag <= last:
                raise self._damage("elements out of order")
            last = tag
            start = self.at
            self._skip(tag, length, 0)
            if tag == PIXEL_DATA:
                pixel_bytes = None if length == UNDEFINED else length
            elif length <= 1024:
                values[tag] = self.content[start : self.at]
        return DicomElements(_text(values.get(TRANSFER_SYNTAX, b"")), values, pixel_bytes)

    def _switch(self, transfer_syntax: str) -> None:
        """Go on as the elements of group 2 say."""
        if not transfer_syntax or transfer_syntax == DEFLATED:
            raise self._damage(f"the transfer syntax {transfer_syntax or 'nothing'}, which is not read here")
        self.endian = ">" if transfer_syntax == BIG_ENDIAN else "<"
        self.is_explicit = transfer_syntax != IMPLICIT

    def _element_head(self) -> tuple[int, int]:
        """Read tag and length of an element, and stop at its value."""
        group, element = self._unpack("HH")
        tag = group << 16 | element
        if not self.is_explicit or group == 0xFFFE:
            return tag, self._unpack("I")[0]
        kind = bytes(self.content[self.at : self.at + 2])
        self.at += 2
        if kind in SHORT_TYPES:
            return tag, self._unpack("H")[0]
        if kind not in LONG_TYPES:
            raise self._damage(f"an element of the unknown type {kind!r}")
        self.at += 2
        return tag, self._unpack("I")[0]

    def _skip(self, tag: int, length: int, depth: int) -> None:
        """Go behind the value of an element."""
        if length != UNDEFINED:
            self.at += length
            if self.at > self.end:
                raise self._damage(f"an element of {length:,} bytes that the file does not hold")
            return
        if depth > MAX_DEPTH:
            raise self._damage("sequences in sequences without end")
        while True:
            item, item_length = self._element_head()
            if item == SEQUENCE_END:
                return
            if item != ITEM or (tag == PIXEL_DATA and item_length == UNDEFINED):
                raise self._damage("a sequence without end")
            if item_length != UNDEFINED:
                self._skip(item, item_length, depth + 1)
                continue
            while True:
                inner, inner_length = self._element_head()
                if inner == ITEM_END:
                    break
                self._skip(inner, inner_length, depth + 1)

    def _is_padding(self) -> bool:
        """Tell whether nothing but zeros follows, as some archives write."""
        return self.end - self.at < 4096 and not any(self.content[self.at : self.end])

    def _unpack(self, layout: str) -> tuple[int, ...]:
        size = struct.calcsize(f"<{layout}")
        if self.at + size > self.end:
            raise self._damage("an element that is cut off")
        values = struct.unpack_from(self.endian + layout, self.content, self.at)
        self.at += size
        return values

    def _damage(self, found: str) -> Exception:
        return damaged(self.path, f"{found}, at byte {self.at:,}")


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")
