"""Checks of what a bundle's files say: metadata, changelog, licences, paths, weights."""

from __future__ import annotations

import re
import tempfile
from importlib.util import find_spec
from pathlib import Path

from monai.bundle import verify_metadata

from .bundle_folder import (
    DATA_LICENCE,
    METADATA,
    NAME,
    NO_WEIGHTS,
    REPOSITORY,
    check_weights,
    find_weights,
    read_json,
    read_version,
    says_no_weights,
)
from .findings import NotPossibleError, read_rules
from .model_info import MODEL_INFO, own_digest, read_model_info

# Without these a bundle is none, or cannot be used; the weights are a case of their own.
NECESSARY = (
    "LICENSE",
    METADATA,
    "configs/train.json",
    "configs/inference.json",
    "configs/evaluate.json",
    "configs/logging.conf",
    "docs/README.md",
    DATA_LICENCE,
)
# Paths of somebody's machine; `/path/to/data` is meant to be replaced, and `@bundle_root + '/data'` is none.
_ROOTS = "home|root|mnt|media|work|workspace|tmp|Users|data|opt|srv|var"
ABSOLUTE_PATH = re.compile(rf"(?<!\+ ')(?<![\w.:/~}}])(/(?:{_ROOTS})/\S+)")
DRIVE = re.compile(r"(?<!\w)[A-Za-z]:\\\S+")


def check_files(bundle: Path) -> None:
    """Refuse a bundle that lacks a file, or whose name MONAI misreads.

    Args:
        bundle: Its folder.

    Raises:
        FileNotFoundError: If a file is absent.
        ValueError: If the name has another form.
    """
    if not NAME.fullmatch(bundle.name):
        raise ValueError(
            f"{bundle.name!r} must be lower case with single underscores and without `_v`, at which MONAI looks for "
            f"the version."
        )
    missing = [name for name in NECESSARY if not (bundle / name).is_file()]
    if missing:
        raise FileNotFoundError(f"{bundle} lacks {', '.join(missing)}.")


def check_metadata(bundle: Path) -> str:
    """Verify metadata against the rules of MONAI's schema, kept here so that no network is needed.

    Args:
        bundle: Folder of the bundle.

    Raises:
        NotPossibleError: Without jsonschema.
        ValueError: If the metadata breaks a rule.
    """
    read_json(bundle / METADATA)
    if find_spec("jsonschema") is None:
        raise NotPossibleError("needs jsonschema, of the extra `dev`")
    from jsonschema import Draft7Validator

    errors = sorted(
        f"{'.'.join(str(key) for key in error.absolute_path) or 'the whole'}: {error.message}"
        for error in Draft7Validator(read_rules()).iter_errors(read_json(bundle / METADATA))
    )
    if errors:
        raise ValueError(f"{bundle / METADATA} breaks {len(errors)} rules: {'; '.join(errors)}")
    with tempfile.TemporaryDirectory() as folder:
        # MONAI downloads the schema unless the file is there
        schema = Path(folder) / "schema.json"
        schema.write_bytes((Path(__file__).parent / "metadata_schema.json").read_bytes())
        verify_metadata(meta_file=str(bundle / METADATA), filepath=schema)
    return "local rules, and MONAI's verify_metadata with them"


def check_versions(bundle: Path) -> str:
    """Refuse a version without an entry in the changelog, and a version that was released with other content.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If the changelog or the version has to be changed.
    """
    version = read_version(bundle)
    changelog = read_json(bundle / METADATA).get("changelog")
    if not isinstance(changelog, dict) or not changelog.get(version):
        raise ValueError(f"{bundle / METADATA}: the changelog must say what is new in {version}.")
    if version != max(changelog):
        raise ValueError(f"{bundle / METADATA}: version is {version}, but the changelog goes up to {max(changelog)}.")
    released = read_model_info(REPOSITORY / MODEL_INFO).get(f"{bundle.name}_v{version}")
    if released is None:
        return f"{version}, not released yet"
    if released.get("content_sha256") != own_digest(bundle):
        raise ValueError(
            f"{bundle.name} {version} is released (see {MODEL_INFO}), but its files have changed since: raise the "
            f"version in {bundle / METADATA}, and say in the changelog what is new."
        )
    return f"{version}, as released"


def check_licences(bundle: Path) -> None:
    """Refuse a bundle whose licence or licence of data and weights is absent or contradicts what is shipped.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If a licence is not what it should be.
    """
    if "Apache License" not in (bundle / "LICENSE").read_text():
        raise ValueError(f"{bundle / 'LICENSE'} must be the Apache License, as the project's.")
    if not find_weights(bundle) and not says_no_weights(bundle):
        raise ValueError(
            f"{bundle / DATA_LICENCE} must say that the bundle ships {NO_WEIGHTS}: {bundle / 'models'} holds none."
        )


def check_paths(bundle: Path) -> None:
    """Refuse absolute paths in configurations and pages.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If there is one.
    """
    found = []
    for folder in ("configs", "docs"):
        for path in sorted((bundle / folder).rglob("*")):
            if path.suffix not in {".json", ".conf", ".md", ".txt"}:
                continue
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                match = ABSOLUTE_PATH.search(line) or DRIVE.search(line)
                found += [f"{path}, line {number}: {match.group(0)}"] if match else []
    if found:
        raise ValueError(f"Absolute paths: {'; '.join(found)}. Write them relative to @bundle_root or @dataset_dir.")


def check_shipped_weights(bundle: Path) -> str:
    """Refuse weights that hold anything but tensors.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If a file holds more, or is damaged.
    """
    weights = find_weights(bundle)
    for path in weights:
        check_weights(path)
    return ", ".join(str(path.relative_to(bundle)) for path in weights) or "none shipped"
