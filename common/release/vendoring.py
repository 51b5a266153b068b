"""From the repository to a released bundle: what is renamed so that it stands alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Parts of `common` that serve the repository, not a bundle.
LEFT_OUT = ("release", "tools")
# The package's name where it is the start of a dotted path.
_PACKAGE = re.compile(rf"(?<![\w./])common\.(?!(?:{'|'.join(LEFT_OUT)})\b)(?=[a-z])")
_IMPORT = "$from common.bundle import find_bundle_root"
# The sentence of every page that says where its commands run.
_SETTING = re.compile(
    r"From the root of the repository, after `make install`; put `\.venv/bin` first on your `PATH`\s+"
    r"\(`export\s+PATH=\$PWD/\.venv/bin:\$PATH`\)\."
)
_SETTING_THERE = 'From the folder of this bundle, with Python packages as in the section "This archive".'


def vendored_name(bundle: str) -> str:
    """Return the name that `common` has inside of a released bundle, one of its own for every bundle."""
    return f"common_{bundle}"


def rename_package(text: str, bundle: str) -> str:
    """Rename the package in a text.

    Args:
        text: JSON or Markdown.
        bundle: Name of the bundle.
    """
    return _PACKAGE.sub(f"{vendored_name(bundle)}.", text)


def vendor_document(text: str, bundle: str) -> str:
    """Rewrite a page of a bundle so that its commands run in the folder of the released bundle.

    Args:
        text: Markdown or plain text.
        bundle: Name of the bundle.
    """
    renamed = rename_package(_SETTING.sub(_SETTING_THERE, text), bundle)
    return renamed.replace(f"bundles/{bundle}/", "")


def vendor_config(config: Mapping[str, Any], bundle: str) -> dict[str, Any]:
    """Rewrite a configuration so that it finds its own code from wherever it is read.

    MONAI puts the folder of a bundle on Python's search path only when a workflow runs, behind the working directory,
    and not at all in `load`, `verify_net_in_out` and `ckpt_export`. So the configuration does it, with these changes:

    - `bundle_root` finds the folder of the file that is being read, see `locate_expression`;
    - the new ids `search_path` and `code` put that folder first on the search path, and refuse code of another version;
    - every component of the package requires `code`, and `initialize` begins with it.

    Args:
        config: Content of a file in `configs/`.
        bundle: Name of the bundle.

    Raises:
        ValueError: If the file imports from the package by another statement than that of `find_bundle_root`.
    """
    name = vendored_name(bundle)
    imports = [line for line in config.get("imports", []) if line != _IMPORT]
    for line in imports:
        if _PACKAGE.search(line):
            raise ValueError(
                f"Bundle {bundle}: the import {line!r} would run before the released bundle finds its code; name the "
                f"object with _target_ instead."
            )
    vendored: dict[str, Any] = {}
    for key, value in config.items():
        if key == "imports":
            vendored[key] = [
                *imports,
                "$import sys",
                "$from pathlib import Path",
                "$from traceback import walk_stack",
            ]
        elif key == "bundle_root":
            vendored[key] = locate_expression(name)
            vendored["search_path"] = "$sys.path.insert(0, @bundle_root)"
            vendored["code"] = {
                "_target_": f"{name}.bundle.refuse_other_code",
                "_requires_": ["@search_path"],
                "bundle_root": "@bundle_root",
            }
        elif key == "initialize":
            vendored[key] = ["@code", *_require_code(value, bundle)]
        else:
            vendored[key] = _require_code(value, bundle)
            if key.endswith("#_target_") and _PACKAGE.match(value):
                vendored[f"{key.removesuffix('_target_')}_requires_"] = ["@code"]
    return vendored


def locate_expression(package: str) -> str:
    """Return the expression that finds the folder of the configuration that is being read.

    A configuration is not told its own path. MONAI 1.6.1 keeps it in two places: a `ConfigWorkflow` (`run`, `load`,
    `create_workflow`) in `config_root_path`, the functions that verify and export in their variable `config_file_`. So
    the expression looks at the callers; where it finds nothing (a program that parses the file by itself), the folder
    has to be on Python's search path or the working directory. `--bundle_root` replaces it all.

    Args:
        package: Name of the vendored package, which marks the folder.
    """
    workflow = "getattr(f.f_locals.get('self'), '__dict__', {}).get('config_root_path')"
    function = "*monai.utils.ensure_tuple(f.f_locals.get('config_file_'))"
    callers = (
        f"str(r) for f, _ in walk_stack(None) for c in ({workflow}, {function}) if c "
        f"for r in Path(c).resolve().parents if (r / '{package}').is_dir()"
    )
    search_path = f"str(Path(p).resolve()) for p in sys.path if (Path(p) / '{package}').is_dir()"
    return f"$next(({callers}), None) or next(({search_path}), '.')"


def _require_code(value: Any, bundle: str) -> Any:
    """Rename the package in a part of a configuration, and let its components require the id `code`."""
    if isinstance(value, list):
        return [_require_code(entry, bundle) for entry in value]
    if isinstance(value, str):
        return rename_package(value, bundle)
    if not isinstance(value, dict):
        return value
    renamed = {key: _require_code(entry, bundle) for key, entry in value.items()}
    target = value.get("_target_", "")
    if isinstance(target, str) and _PACKAGE.match(target):
        required = renamed.pop("_requires_", [])
        required = required if isinstance(required, list) else [required]
        renamed = {"_target_": renamed.pop("_target_"), "_requires_": ["@code", *required], **renamed}
    return renamed


def vendored_modules(common: Path) -> list[Path]:
    """Return the files of the package that a released bundle takes along, relative to the package.

    Args:
        common: Folder of the package.
    """
    return sorted(
        path.relative_to(common)
        for path in common.rglob("*")
        if path.is_file()
        and path.suffix != ".pyc"
        and not path.name.startswith(".")
        and path.relative_to(common).parts[0] not in LEFT_OUT
    )
