"""The record of releases: `models/model_info.json` in the model zoo's form, and checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..files import write_text_atomically
from .bundle_folder import read_json

# MONAI reads this path of a GitHub repository to find the newest version.
MODEL_INFO = "models/model_info.json"
CHECKSUMS = "SHA256SUMS"
# What of a bundle is its own content; weights and what runs write are not.
_OWN_FOLDERS = ("configs", "docs")


def own_digest(bundle: Path) -> str:
    """Return a digest of a bundle's own files: configurations, pages and licence, without weights and shared code.

    Args:
        bundle: Its folder.
    """
    digest = hashlib.sha256()
    files = [path for folder in _OWN_FOLDERS for path in (bundle / folder).rglob("*") if path.is_file()]
    for path in sorted([*files, bundle / "LICENSE"]):
        if path.is_file():
            digest.update(f"{path.relative_to(bundle).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def read_model_info(path: Path) -> dict[str, Any]:
    """Return the recorded releases by `<bundle>_v<version>`; none where there is no file.

    Args:
        path: The file.

    Raises:
        ValueError: If it is no JSON object.
    """
    return read_json(path) if path.is_file() else {}


def add_release(info: dict[str, Any], archive: Path, digest: str, repo: str | None) -> None:
    """Add an archive to the record.

    Args:
        info: The record, which is changed.
        archive: `<bundle>_v<version>.zip`.
        digest: Of the bundle's own files, see `own_digest`.
        repo: `owner/name/tag` of the GitHub release; None where it is not known yet.
    """
    source = archive.name
    if repo is not None:
        owner, name, tag = repo.split("/")
        source = f"https://github.com/{owner}/{name}/releases/download/{tag}/{archive.name}"
    info[archive.stem] = {
        # MONAI verifies SHA-1 when it downloads by this record
        "checksum": hashlib.sha1(archive.read_bytes(), usedforsecurity=False).hexdigest(),
        "source": source,
        "content_sha256": digest,
    }


def write_model_info(info: dict[str, Any], path: Path) -> None:
    """Write the record, sorted by name.

    Args:
        info: The record.
        path: File to write.
    """
    write_text_atomically(json.dumps(info, indent=4, sort_keys=True) + "\n", path)


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of all archives of a folder, as `sha256sum --check` reads it.

    Args:
        folder: Folder of the archives.
    """
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(folder.glob("*.zip"))]
    write_text_atomically("".join(lines), folder / CHECKSUMS)
