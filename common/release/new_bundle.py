"""The next bundle: a working one from a template, to be turned into a method step by step."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from ..tools.json_form import format_json
from .bundle_folder import NAME, REPOSITORY

TEMPLATE = Path(__file__).parent / "template"
# The name in the template, as a module and as a class.
MODULE, CLASS = "new_method", "NewMethod"
# Where the files beside the bundle's own folder go.
CODE = {
    "core.py.txt": "common/losses/{name}.py",
    "oracle.py.txt": "tests/oracles/{name}.py",
    "test_core.py.txt": "tests/losses/test_{name}.py",
    "test_bundle.py.txt": "tests/bundles/test_{name}.py",
}

_logger = logging.getLogger(__name__)


def new_bundle(name: str, root: str | None = None) -> None:
    """Write a bundle that trains, segments, scores, passes all checks and can be released, with its core and tests.

    No list has to be edited: a bundle is found by its `configs/metadata.json`, its loss by its module.

    Args:
        name: Name of the bundle, lower case with underscores, such as `weak_boxes`.
        root: Folder of the repository; by default the one of this package.

    Raises:
        ValueError: If the name has another form.
        FileExistsError: If there is a file already; nothing is written then.
    """
    if not NAME.fullmatch(str(name)) or name == MODULE:
        raise ValueError(
            f"name must be lower case words with single underscores between them, without `_v`, and not {MODULE}; "
            f"got {name!r}."
        )
    folder = REPOSITORY if root is None else Path(root).resolve()
    bundle = folder / "bundles" / name
    files = {TEMPLATE / "code" / source: folder / target.format(name=name) for source, target in CODE.items()}
    for path in sorted((TEMPLATE / "bundle").rglob("*")):
        if path.is_file():
            files[path] = bundle / path.relative_to(TEMPLATE / "bundle")
    there = [str(path) for path in (bundle, *files.values()) if path.exists()]
    if there:
        raise FileExistsError(f"{', '.join(there)}: already there; choose another name, or remove them.")
    for source, target in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        text = source.read_text().replace(MODULE, name).replace(CLASS, class_name(name))
        target.write_text(text)
        _logger.info("%s", target.relative_to(folder))
    shutil.copy(folder / "LICENSE", bundle / "LICENSE")
    format_json(bundles_dir=str(folder / "bundles"))
    _logger.info(
        "\nNext: make demo B=%s; make verify B=%s; then CONTRIBUTING.md, 'How a method gets in'. Look for TODO in %s.",
        name,
        name,
        bundle.relative_to(folder),
    )


def class_name(name: str) -> str:
    """Return the name of a bundle as that of a class, `weak_boxes` as `WeakBoxes`.

    Args:
        name: Name of the bundle.
    """
    return "".join(word.capitalize() for word in name.split("_"))
