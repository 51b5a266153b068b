"""Names of structures."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.utils import ensure_tuple

from .problems import refusal


def load_label_names(
    dataset_dir: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], num_classes: int
) -> dict[int, str]:
    """Return the name of each label, from the `labels` of `dataset.json` where it is there.

    Both spellings are read: `{"1": "liver"}` (Decathlon) and `{"liver": 1}` (nnU-Net).

    Args:
        dataset_dir: Directory of the data set, or several that agree on their names.
        num_classes: Number of classes, background included.

    Returns:
        Names of the labels 1 to num_classes - 1; a label without a name is called `label_<value>`.

    Raises:
        DatasetError: If two labels have one name, or two directories name a label differently.
    """
    names: dict[int, str] = {}
    for directory in ensure_tuple(dataset_dir):
        path = Path(directory) / "dataset.json"
        for key, value in _listed(path).items() if path.is_file() else ():
            if not key.isdecimal() and not isinstance(value, int):
                continue  # nnU-Net's regions: several labels under one name
            label, name = (int(key), str(value)) if key.isdecimal() else (int(value), key)
            if names.setdefault(label, name) != name:
                raise refusal(path, f"must call label {label} {names[label]!r}, as before", repr(name), "rename one")
    names = {label: names.get(label, f"label_{label}") for label in range(1, num_classes)}
    doubles = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if doubles:
        raise refusal(str(dataset_dir), "must name each label differently", ", ".join(doubles), "rename all but one")
    return names


def _listed(path: Path) -> dict[str, Any]:
    """Return the labels as a file lists them; none where it lists none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also what is not UTF-8
        raise refusal(path, "must be JSON in UTF-8", str(error), "repair the file at this place") from error
    listed = content.get("labels") if isinstance(content, dict) else None
    return listed if isinstance(listed, dict) else {}
