"""Check of the packages that a bundle's metadata name: what its code imports has to be among them."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from .bundle_folder import METADATA, read_json

PACKAGE = Path(__file__).resolve().parents[1]
# Named by keys of their own in the metadata.
ALWAYS = {"monai", "torch", "numpy"}
_TARGET = re.compile(rf'"({PACKAGE.name}\.[\w.]+)"')


def check_packages(bundle: Path) -> str:
    """Refuse metadata that lack a package which the bundle's code imports as it is loaded.

    Followed are the imports at the top of the modules that the configurations name, and of those that these import;
    what a function imports on use is optional.

    Args:
        bundle: Folder of the bundle.

    Raises:
        ValueError: If a package is missing; the message names a module that imports it.
    """
    metadata = read_json(bundle / METADATA)
    listed = {_normal(name) for key in ("required", "optional") for name in metadata.get(f"{key}_packages_version", {})}
    distributions = packages_distributions()
    missing = {}
    imported = imported_packages(bundle)
    for name, module in imported.items():
        owners = {_normal(owner) for owner in distributions.get(name, [name])}
        # a package in parts, such as itk, is listed by its name
        if not owners & (listed | ALWAYS) and _normal(name) not in listed:
            missing[min(owners)] = module
    if missing:
        found = "; ".join(f"{name} (imported by {module})" for name, module in sorted(missing.items()))
        raise ValueError(f"{bundle / METADATA}: required_packages_version lacks {found}.")
    return f"{len(imported)} packages"


def imported_packages(bundle: Path) -> dict[str, str]:
    """Return the packages that a bundle's code imports, each with a module that does.

    Args:
        bundle: Folder of the bundle.
    """
    waiting = list(_modules_of_targets(bundle))
    seen: set[Path] = set()
    packages: dict[str, str] = {}
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        # importing a module imports the packages around it
        waiting += [folder / "__init__.py" for folder in path.parents if folder.is_relative_to(PACKAGE)]
        for level, dotted, names in _imports(path):
            if level == 0:
                root = dotted.split(".")[0]
                if root not in sys.stdlib_module_names and root != PACKAGE.name:
                    packages.setdefault(root, path.relative_to(PACKAGE.parent).as_posix())
                continue
            folder = path.parents[level - 1].joinpath(*(dotted.split(".") if dotted else []))
            waiting += [found for name in ("", *names) if (found := _file_of(folder / name)) is not None]
    return packages


def _modules_of_targets(bundle: Path) -> Iterator[Path]:
    """Files of the modules that configurations name."""
    for path in sorted((bundle / "configs").glob("*.json")):
        for dotted in _TARGET.findall(json.dumps(read_json(path))):
            parts = dotted.split(".")[1:]
            for length in range(len(parts), 0, -1):
                file = _file_of(PACKAGE.joinpath(*parts[:length]))
                if file is not None:
                    yield file
                    break


def _file_of(path: Path) -> Path | None:
    """The file of a module or package, if there is one."""
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def _imports(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Imports at the top of a module: how many packages up, from where, and which names."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, []) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or "", [alias.name for alias in node.names]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
