"""Unpack a released bundle that came from elsewhere: nothing outside of its folder, and its code named first."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .bundle_folder import read_json
from .model_info import CHECKSUMS

# Weights do not compress, text does; what grows by more was made to fill a disk.
MAX_RATIO = 100
MAX_BYTES = 20 * 2**30
MAX_ENTRIES = 10_000
EXPRESSION = "$"
TARGET = "_target_"

_logger = logging.getLogger(__name__)


def unpack(archive: str, output_dir: str, sha256: str | None = None) -> None:
    """Unpack a bundle after its checksum and its entries were looked at, and name the code in its configurations.

    Args:
        archive: ZIP file.
        output_dir: Folder to unpack into; nothing in it is overwritten.
        sha256: Checksum that its publisher names; by default that of SHA256SUMS beside the archive, if it is there.

    Raises:
        FileExistsError: If a file is in the way.
        FileNotFoundError: If there is no such archive.
        ValueError: If the checksum differs, it is no ZIP file, or an entry could do harm.
    """
    path, folder = Path(archive), Path(output_dir)
    _check_sum(path, sha256)
    names = check_entries(path)
    taken = [name for name in names if (folder / name).exists() and not name.endswith("/")]
    if taken:
        raise FileExistsError(f"{folder / taken[0]} is there already; give an empty folder as output_dir.")
    with zipfile.ZipFile(path) as stream:
        damaged = stream.testzip()
        if damaged is not None:
            raise ValueError(f"{path}: {damaged} has a wrong checksum; download the archive again.")
        stream.extractall(folder)
    _logger.info("%d entries of %s unpacked into %s. What its configurations run:", len(names), path, folder)
    for name in names:
        if PurePosixPath(name).parent.name == "configs" and name.endswith(".json"):
            for code in list_code(read_json(folder / name)):
                _logger.info("%s  %s", name, code)


def check_entries(archive: Path) -> list[str]:
    """Refuse an archive with entries that would leave its folder, replace each other, or fill the disk.

    Args:
        archive: ZIP file.

    Returns:
        Names of the entries.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no ZIP file, or an entry could do harm; the message names it.
    """
    if not archive.is_file():
        raise FileNotFoundError(f"{archive} does not exist; give the path of a ZIP file.")
    try:
        with zipfile.ZipFile(archive) as stream:
            entries = stream.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise ValueError(f"{archive} is no ZIP file that can be read ({error}); download it again.") from error
    if not entries or len(entries) > MAX_ENTRIES:
        raise ValueError(f"{archive} must have 1 to {MAX_ENTRIES:,} entries; found {len(entries):,}.")
    total = sum(entry.file_size for entry in entries)
    if total > MAX_BYTES or total > MAX_RATIO * archive.stat().st_size:
        size = archive.stat().st_size
        raise ValueError(f"{archive} would grow from {size:,} to {total:,} bytes, which no bundle does. Delete it.")
    seen: dict[str, str] = {}
    for entry in entries:
        if problem := _problem_of(entry):
            raise ValueError(f"{archive}: entry {entry.orig_filename!r} {problem}. No bundle needs this; delete it.")
        other = seen.setdefault(entry.filename.rstrip("/").casefold(), entry.filename)
        if other != entry.filename:
            raise ValueError(f"{archive}: entries {other!r} and {entry.filename!r} would be one file. Delete it.")
    if len({entry.filename for entry in entries}) < len(entries):
        raise ValueError(f"{archive} has an entry twice. Delete it.")
    return [entry.filename for entry in entries]


def list_code(content: Any, place: str = "") -> Iterator[str]:
    """Yield what a configuration runs: every expression and every class or function that it calls, with its id.

    Args:
        content: Of a JSON file, or a part of one.
        place: Id of that part.
    """
    if isinstance(content, dict | list):
        entries = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in entries:
            yield from list_code(value, f"{place}#{key}" if place else str(key))
    elif isinstance(content, str) and (content.startswith(EXPRESSION) or place.split("#")[-1] == TARGET):
        yield f"{place}: {json.dumps(content)}"


def _problem_of(entry: zipfile.ZipInfo) -> str:
    """Return why an entry could do harm; nothing where it could not."""
    # zipfile cuts names at a zero byte and replaces backslashes on Windows
    name = entry.orig_filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or "\0" in name or not name.isprintable():
        return "has no printable name"
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root:
        return "has an absolute path"
    if ".." in parts or "\\" in name:
        return "leaves the folder, or could"
    mode = entry.external_attr >> 16
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if mode & (stat.S_ISUID | stat.S_ISGID):
        return "would run with the rights of another user"
    if entry.flag_bits & 1:
        return "is encrypted"
    return ""


def _check_sum(archive: Path, sha256: str | None) -> None:
    """Compare the checksum of an archive with the one that is known."""
    known = sha256
    sums = archive.parent / CHECKSUMS
    if known is None and sums.is_file():
        lines = (line.split(maxsplit=1) for line in sums.read_text(encoding="utf-8", errors="replace").splitlines())
        known = next((words[0] for words in lines if len(words) == 2 and words[1].strip("* ") == archive.name), None)
    if known is None:
        _logger.warning("%s: no checksum is known; nothing tells whether it is what its publisher wrote.", archive)
        return
    if not archive.is_file():
        return  # check_entries says so
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != str(known).lower():
        raise ValueError(f"{archive} must have the SHA-256 {known}; found {found}; download it again.")
