"""Released bundles: archives that run where this repository was never seen."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..tools.json_form import to_text
from .bundle_folder import (
    DATA_LICENCE,
    METADATA,
    REPOSITORY,
    check_weights,
    describe_weights,
    find_weights,
    read_json,
    read_version,
    says_no_weights,
    select_bundles,
)
from .model_info import MODEL_INFO, add_release, own_digest, read_model_info, write_checksums, write_model_info
from .vendoring import vendor_config, vendor_document, vendored_modules, vendored_name

# The earliest date that a ZIP file can hold: the same bytes whenever an archive is made.
DATE = (1980, 1, 1, 0, 0, 0)
# Files of a bundle besides its configurations, its pages and its weights.
LICENCE = "LICENSE"

_logger = logging.getLogger(__name__)


def package(
    bundle: str | None = None,
    output_dir: str = "dist",
    repo: str | None = None,
    with_weights: bool = True,
    bundles_dir: str | None = None,
) -> None:
    """Write `<bundle>_v<version>.zip` for one bundle or for all, `SHA256SUMS`, and `models/model_info.json`.

    An archive has one folder of the bundle's name, the package `common` as `common_<bundle>` in it, and the same bytes
    whenever and wherever it is made from the same files.

    Args:
        bundle: Name of a bundle; by default all.
        output_dir: Folder of the archives.
        repo: `owner/name/tag` of the GitHub release that the archives go to: with it the release is recorded in the
            repository's `models/model_info.json`, to be committed before the tag.
        with_weights: Whether `model.pt` and `model.ts` from `models/` go along, where there are any.
        bundles_dir: Folder of the bundles; by default that of the repository.

    Raises:
        FileNotFoundError: If a file that every bundle needs is absent.
        ValueError: If there is no such bundle, a file cannot be released, `repo` has another form, or the version was
            recorded with other content.
    """
    if repo is not None and not re.fullmatch(r"[\w.-]+/[\w.-]+/[\w.-]+", repo):
        raise ValueError(f"repo must have the form owner/name/tag; got {repo!r}.")
    folder = Path(output_dir)
    recorded = read_model_info(REPOSITORY / MODEL_INFO)
    info = read_model_info(folder / MODEL_INFO)
    for path in select_bundles(bundle, bundles_dir):
        release = f"{path.name}_v{read_version(path)}"
        digest = own_digest(path)
        if repo and release in recorded and recorded[release].get("content_sha256") != digest:
            raise ValueError(
                f"{release} was released with other content, see {MODEL_INFO}: raise the version in {path / METADATA} "
                f"and add it to the changelog."
            )
        archive = write_archive(path, folder / f"{release}.zip", with_weights)
        add_release(info, archive, digest, repo)
        if repo:
            add_release(recorded, archive, digest, repo)
        _logger.info("%s  %s", hashlib.sha256(archive.read_bytes()).hexdigest(), archive)
        if not _released_weights(path, with_weights):
            _logger.info("  without weights")
    write_model_info(info, folder / MODEL_INFO)
    if repo:
        write_model_info(recorded, REPOSITORY / MODEL_INFO)
    write_checksums(folder)


def write_archive(bundle: Path, archive: Path, with_weights: bool = True) -> Path:
    """Write the archive of one bundle.

    Args:
        bundle: Its folder.
        archive: File to write.
        with_weights: Whether weights go along.

    Returns:
        `archive`.

    Raises:
        FileNotFoundError: If licence, page or licence of the data is absent.
        ValueError: If a configuration or weights cannot be released, or nothing is said on the licence of weights.
    """
    weights = _released_weights(bundle, with_weights)
    texts = collect_texts(bundle, weights)
    if weights and says_no_weights(bundle):
        raise ValueError(
            f"{bundle / 'models'} holds {', '.join(path.name for path in weights)}, but {bundle / DATA_LICENCE} says "
            f"that no weights are shipped: state their licence there, or leave them out with --with_weights False."
        )
    archive.parent.mkdir(parents=True, exist_ok=True)
    temporary = archive.with_suffix(".tmp")
    try:
        with zipfile.ZipFile(temporary, "w") as stream:
            for name, text in sorted(texts.items()):
                _add(stream, f"{bundle.name}/{name}", text.encode("utf-8"), zipfile.ZIP_DEFLATED)
            for path in weights:
                check_weights(path)
                _add(stream, f"{bundle.name}/{path.relative_to(bundle)}", path.read_bytes(), zipfile.ZIP_STORED)
        temporary.replace(archive)
    finally:
        temporary.unlink(missing_ok=True)
    return archive


def collect_texts(bundle: Path, weights: Sequence[Path]) -> Mapping[str, str]:
    """Return all files of a released bundle but its weights, by their path in it.

    Args:
        bundle: Folder of the bundle in the repository.
        weights: Files of weights that go along, for the page to name them.

    Raises:
        FileNotFoundError: If licence, page or licence of the data is absent.
        ValueError: If a configuration cannot be released.
    """
    texts = {}
    for name in (LICENCE, "docs/README.md", DATA_LICENCE):
        if not (bundle / name).is_file():
            raise FileNotFoundError(f"{bundle / name} does not exist; a bundle needs it.")
    texts[LICENCE] = (bundle / LICENCE).read_text()
    for path in sorted((bundle / "configs").iterdir()):
        name = f"configs/{path.name}"
        if path.suffix == ".json":
            content = read_json(path)
            vendored = vendor_document(json.dumps(content, ensure_ascii=False), bundle.name)
            config = json.loads(vendored) if name == METADATA else vendor_config(content, bundle.name)
            texts[name] = to_text(config) + "\n"
        elif path.suffix == ".conf":
            texts[name] = path.read_text()
    for path in sorted((bundle / "docs").iterdir()):
        if path.suffix in {".md", ".txt"}:
            texts[f"docs/{path.name}"] = vendor_document(path.read_text(), bundle.name)
    texts["docs/README.md"] = _add_section(texts["docs/README.md"], bundle, weights)
    package_dir = Path(__file__).resolve().parents[1]
    for module in vendored_modules(package_dir):
        text = (package_dir / module).read_text()
        # a package's own name stands in examples and messages only, since its imports are relative
        texts[f"{vendored_name(bundle.name)}/{module}"] = vendor_document(text, bundle.name)
    return texts


def _add(stream: zipfile.ZipFile, name: str, content: bytes, compression: int) -> None:
    entry = zipfile.ZipInfo(name, DATE)
    entry.compress_type = compression
    entry.create_system = 3  # Unix, whatever machine writes it
    entry.external_attr = 0o100644 << 16
    stream.writestr(entry, content, compresslevel=9)


def _released_weights(bundle: Path, with_weights: bool) -> list[Path]:
    return find_weights(bundle) if with_weights else []


def _add_section(page: str, bundle: Path, weights: Sequence[Path]) -> str:
    """Put a section on the archive behind the title of a page."""
    metadata = read_json(bundle / METADATA)
    versions = {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    versions |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    versions |= metadata.get("optional_packages_version", {})
    packages = " ".join(f"{name}=={version}" for name, version in versions.items())
    title, _, rest = page.partition("\n")
    section = f"""
## This archive
Version {metadata["version"]}. {describe_weights(bundle, weights)}
Its code is the package `{vendored_name(bundle.name)}`, which its configurations find by themselves. Tested with

```
pip install {packages}
```

The commands below run in this folder. What starts with `make`, `python -m tests.` or `python -m common.tools` needs the
project's repository. A configuration is code: it is executed. Before you unpack an archive, compare its checksum with
the release's `SHA256SUMS` (`sha256sum --check --ignore-missing SHA256SUMS`).
"""
    return f"{title}\n{section}{rest}"
