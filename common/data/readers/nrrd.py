"""The header of NRRD: what ITK passes over in silence, and how many bytes of voxels there have to be."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .capacity import damaged
from .header_rules import doubts_about_place, refuse_broken_rules

__all__ = ["NrrdHeader", "read_nrrd_header"]

MAX_HEADER_BYTES = 1 << 16
MAGIC = re.compile(rb"NRRD000[1-5]")
SPACES = ("right-anterior-superior", "left-posterior-superior", "left-anterior-superior")
SHORT_SPACES = ("ras", "lps", "las")
# Fields after which the voxels would be somewhere else.
ELSEWHERE = ("data file", "datafile", "line skip", "lineskip", "byte skip", "byteskip")
VECTOR = re.compile(r"\(([^()]*)\)|none")
REMEDY = "save it again as one file in mm, or repair the header"


@dataclass(frozen=True)
class NrrdHeader:
    """What an NRRD header says about its voxels.

    Attributes:
        start: Byte at which they start.
        encoding: `raw`, `gzip` or another one.
        warnings: What is doubtful about the geometry.
    """

    start: int
    encoding: str
    warnings: list[str]


def read_nrrd_header(path: Path) -> NrrdHeader:
    """Read the header of an NRRD file, and refuse what ITK would read in part or place by a guess.

    Args:
        path: The file.

    Raises:
        DatasetError: With a line for each broken rule.
    """
    fields, header_bytes = _fields(path)
    refuse_broken_rules(path, _broken_rules(fields), REMEDY)
    warnings = doubts_about_place(n for n in ("space", "space directions", "space origin") if n not in fields)
    encoding = fields["encoding"].lower()
    return NrrdHeader(header_bytes, {"gz": "gzip"}.get(encoding, encoding), warnings)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of a header, names in small letters, and its length in bytes."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        if not MAGIC.fullmatch(stream.readline(20).strip()):
            raise damaged(path, "something that is not NRRD")
        while stream.tell() < MAX_HEADER_BYTES and (line := stream.readline(MAX_HEADER_BYTES)):
            text = line.decode("latin-1").strip("\r\n")
            if not text:
                return fields, stream.tell()
            name, sign, value = text.partition(":")
            if text.startswith("#") or value.startswith("="):
                continue  # a comment; a key of the user
            if not sign or not text.isprintable():
                raise damaged(path, f"an NRRD header with the line {line[:40]!r}")
            if name.lower() in fields:
                raise damaged(path, f"an NRRD header with {name!r} twice")
            fields[name.lower()] = value.strip()
    raise damaged(path, "an NRRD header without end")


def _broken_rules(fields: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each broken rule with what was found."""
    rank_text = fields.get("dimension", "nothing")
    if rank_text not in ("2", "3", "4"):
        yield "must have two to four axes", f"{rank_text} as dimension"
        return
    rank = int(rank_text)
    sizes = fields.get("sizes", "nothing").split()
    if len(sizes) != rank or not all(size.isdecimal() and int(size) for size in sizes):
        yield f"must have {rank} whole numbers above zero as sizes", " ".join(sizes)
    for name in ELSEWHERE:
        if name in fields and fields[name] not in ("0", ""):
            yield "must hold its voxels right behind its header", f"{name}: {fields[name]}"
    space = fields.get("space", SPACES[0]).lower()
    if space not in (*SPACES, *SHORT_SPACES):
        yield f"must lie in one of the spaces {', '.join(SPACES)}", space
    units = set(re.findall(r'"([^"]*)"', fields.get("space units", '"mm"'))) - {"mm", ""}
    if units:
        yield "must be in mm", ", ".join(sorted(units))
    if "encoding" not in fields:
        yield "must name its encoding", "nothing"
    # only an axis of channels has no direction
    num_channel_axes = sum(kind not in ("domain", "space") for kind in fields.get("kinds", "").split())
    for name, count, num_none in (("space directions", rank, num_channel_axes), ("space origin", 1, 0)):
        if name in fields and not _are_vectors(fields[name], count, num_none):
            yield f"must have {count} vectors of finite numbers as {name}", fields[name]
    spacings = fields.get("spacings", "1 " * rank).split()
    if len(spacings) != rank or not all(_is_size(size) for size in spacings):
        yield f"must have {rank} numbers above zero as spacings", " ".join(spacings)


def _are_vectors(text: str, count: int, num_none: int) -> bool:
    """Tell whether a text is so many vectors of finite numbers, such as `(1,0,0)`, some of them `none`."""
    found = [match.group(1) for match in VECTOR.finditer(text)]
    if len(found) != count or found.count(None) > num_none or VECTOR.sub("", text).strip():
        return False
    return all(vector is None or _is_vector(vector) for vector in found)


def _is_vector(text: str) -> bool:
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        return False
    return len(numbers) in (2, 3) and all(map(math.isfinite, numbers))


def _is_size(word: str) -> bool:
    try:
        return 0 < float(word) < math.inf
    except ValueError:
        return False
