"""One form for the JSON of all bundles."""

from __future__ import annotations

import json
import logging

from .runs import find_bundles

# Lists of numbers stay on one line up to this width, as a person would write them.
MAX_LINE = 100

_logger = logging.getLogger(__name__)


def format_json(check: bool = False, bundles_dir: str | None = None) -> None:
    """Write every JSON file of every bundle with four spaces and short lists on one line.

    Args:
        check: Change nothing, refuse instead.
        bundles_dir: Folder of the bundles; by default the one beside this package.

    Raises:
        ValueError: With `check`, if a file is not in this form; or if a file is no JSON.
    """
    wrong = []
    for bundle in find_bundles(bundles_dir):
        for path in sorted(bundle.rglob("*.json")):
            text = path.read_text()
            try:
                formatted = to_text(json.loads(text)) + "\n"
            except json.JSONDecodeError as error:
                raise ValueError(f"{path} is no JSON: {error}") from error
            if formatted == text:
                continue
            if check:
                wrong.append(str(path))
            else:
                path.write_text(formatted)
                _logger.info("Formatted %s", path)
    if wrong:
        raise ValueError(f"Not in the project's form, run `make format`: {', '.join(wrong)}")


def to_text(value: object, indent: int = 0) -> str:
    """Lay out parsed JSON.

    Args:
        value: What `json.loads` gives.
        indent: Column of the surrounding bracket.
    """
    if not isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list) and not any(isinstance(entry, (dict, list)) for entry in value):
        line = json.dumps(value, ensure_ascii=False)
        if len(line) + indent <= MAX_LINE and not any(isinstance(entry, str) and entry[:1] in "$@" for entry in value):
            return line
    if not value:
        return "{}" if isinstance(value, dict) else "[]"
    inner = " " * (indent + 4)
    if isinstance(value, dict):
        rows = [f"{json.dumps(key, ensure_ascii=False)}: {to_text(entry, indent + 4)}" for key, entry in value.items()]
        opening, closing = "{", "}"
    else:
        rows = [to_text(entry, indent + 4) for entry in value]
        opening, closing = "[", "]"
    return opening + "\n" + ",\n".join(inner + row for row in rows) + "\n" + " " * indent + closing
