"""Names of structures."""

from __future__ import annotations

import json
from pathlib import Path


def load_label_names(dataset_dir: str | Path, num_classes: int) -> dict[int, str]:
    """Return the name of each label, from the `labels` of `dataset.json` where it is there.

    Both spellings are read: `{"1": "liver"}` (Decathlon) and `{"liver": 1}` (nnU-Net).

    Args:
        dataset_dir: Directory of the data set.
        num_classes: Number of classes, background included.

    Returns:
        Names of the labels 1 to num_classes - 1; a label without a name is called `label_<value>`.
    """
    path = Path(dataset_dir) / "dataset.json"
    listed = json.loads(path.read_text()).get("labels", {}) if path.is_file() else {}
    names = {
        int(key if key.isdigit() else value): str(value) if key.isdigit() else key
        for key, value in (listed.items() if isinstance(listed, dict) else ())
        if key.isdigit() or isinstance(value, int)
    }
    return {label: names.get(label, f"label_{label}") for label in range(1, num_classes)}
