"""The header of MHA and MHD: ITK reads what it understands of a number and goes on, and leaves out the rest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from ..problems import refusal
from .capacity import damaged
from .header_rules import doubts_about_place, refuse_broken_rules

__all__ = ["MetaImageHeader", "read_metaimage_header"]

MAX_HEADER_BYTES = 1 << 16
# Names of one thing, of which ITK takes whichever comes last.
ORIGIN = ("Offset", "Position", "Origin")
SPACING = ("ElementSpacing", "ElementSize")
DIRECTIONS = ("TransformMatrix", "Rotation", "Orientation")
BYTE_ORDER = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
SAME = (ORIGIN, SPACING, DIRECTIONS, BYTE_ORDER)
# Fields that would change values or their place in the file; no program is known to write another value.
FIXED = {
    "BinaryData": "True",
    "HeaderSize": "0",
    "ElementToIntensityFunctionSlope": "1",
    "ElementToIntensityFunctionOffset": "0",
}
REMEDY = "repair the header where it is known what is right, else copy it again from its source"


@dataclass(frozen=True)
class MetaImageHeader:
    """What a MetaImage header says about its voxels.

    Attributes:
        data_file: File that holds them, perhaps the same.
        start: Byte at which they start in it.
        is_compressed: Whether they are deflated.
        compressed_bytes: How many bytes are inflated; 0 where they are not deflated.
        warnings: What is doubtful about the geometry.
    """

    data_file: Path
    start: int
    is_compressed: bool
    compressed_bytes: int
    warnings: list[str]


def read_metaimage_header(path: Path) -> MetaImageHeader:
    """Read the header of an MHA or MHD file, and refuse what ITK would read in part.

    Args:
        path: The file.

    Raises:
        DatasetError: With a line for each broken rule.
    """
    fields, header_bytes = _fields(path)
    refuse_broken_rules(path, _broken_rules(fields), REMEDY)
    warnings = doubts_about_place(
        names[0] for names in (ORIGIN, SPACING, DIRECTIONS) if not any(name in fields for name in names)
    )
    name = fields["ElementDataFile"]
    is_compressed = fields.get("CompressedData", "False").lower() == "true"
    compressed_bytes = int(fields.get("CompressedDataSize", "0"))
    if name.upper() == "LOCAL":
        return MetaImageHeader(path, header_bytes, is_compressed, compressed_bytes, warnings)
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise refusal(path, "must lie beside its voxels", f"ElementDataFile {name}", "name a file of the same folder")
    data_file = path.parent / name
    if not data_file.is_file():
        raise refusal(path, "must lie beside its voxels", f"no file {name}", f"put {name} into the same folder")
    return MetaImageHeader(data_file, 0, is_compressed, compressed_bytes, warnings)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a header and its length in bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        while stream.tell() < MAX_HEADER_BYTES and (line := stream.readline(MAX_HEADER_BYTES)):
            name, sign, value = (part.strip() for part in line.decode("latin-1").partition("="))
            if not sign or not name.isprintable() or not value.isprintable():
                raise damaged(path, f"a MetaImage header with the line {line[:40]!r}")
            if name in fields:
                raise damaged(path, f"a MetaImage header with {name} twice")
            fields[name] = value
            if name == "ElementDataFile":
                return fields, stream.tell()
    raise damaged(path, "a MetaImage header without ElementDataFile")


def _broken_rules(fields: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each broken rule with what was found."""
    rank_text = fields.get("NDims", "nothing")
    if rank_text not in ("2", "3", "4"):
        yield "must have two to four axes", f"{rank_text} in NDims"
        return
    rank = int(rank_text)
    for names in SAME:
        present = [name for name in names if name in fields]
        if len(present) > 1:
            yield f"must have one of {', '.join(names)}", " and ".join(present)
    yield from _broken_numbers(fields, rank)
    for name in (*BYTE_ORDER, "CompressedData"):
        if fields.get(name, "True").lower() not in ("true", "false"):
            yield f"must have True or False as {name}", fields[name]
    if fields.get("CompressedData", "False").lower() == "true" and "CompressedDataSize" not in fields:
        yield "must say how long its compressed voxels are, which ITK does not look up", "no CompressedDataSize"
    for name, value in FIXED.items():
        found = fields.get(name, value)
        if found.lower() != value.lower() and (not _numbers(found) or _numbers(found) != _numbers(value)):
            yield f"must have {value} as {name}", found


def _broken_numbers(fields: dict[str, str], rank: int) -> Iterator[tuple[str, str]]:
    """Yield fields that do not hold as many numbers as they have to, or numbers that cannot be."""
    counts = dict.fromkeys((*ORIGIN, *SPACING), rank) | dict.fromkeys(DIRECTIONS, rank * rank) | dict.fromkeys(FIXED, 1)
    for name in counts.keys() & fields.keys() - {"BinaryData"}:
        if len(_numbers(fields[name])) != counts[name]:
            yield f"must have {counts[name]} numbers as {name}", fields[name]
    sizes = fields.get("DimSize", "nothing").split()
    if len(sizes) != rank or not all(size.isdecimal() and int(size) for size in sizes):
        yield f"must have {rank} whole numbers above zero as DimSize", " ".join(sizes)
    for name in ("ElementNumberOfChannels", "CompressedDataSize"):
        count = fields.get(name, "1")
        if not count.isdecimal() or not int(count):
            yield f"must have a whole number above zero as {name}", count
    spacing = next((fields[name] for name in SPACING if name in fields), "1")
    if any(size <= 0 for size in _numbers(spacing)):
        yield "must have a voxel size above zero on three independent axes", spacing


def _numbers(text: str) -> list[float]:
    """Return the finite numbers of a field; none where one of them is none."""
    try:
        numbers = [float(word) for word in text.split()]
    except ValueError:
        return []
    return numbers if all(map(math.isfinite, numbers)) else []
