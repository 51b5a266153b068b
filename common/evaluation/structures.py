"""What is scored: named structures, their values in label maps, and their tolerances, read from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.problems import refusal

SHIPPED_DIR = Path(__file__).parent / "label_sets"
DEFAULT_TOLERANCE_MM = 1.0
_KEYS = {"name", "label", "nsd_tolerance_mm"}


@dataclass(frozen=True)
class Structure:
    """One structure.

    Attributes:
        name: Name, in tables and as the name of its file where a case has one file per structure.
        labels: Values of a label map that belong to it; several for a region such as a whole tumor, none where the
            structures overlap and no label map can hold them.
        nsd_tolerance_mm: Distance in mm up to which a surface element counts as right.
    """

    name: str
    labels: tuple[int, ...]
    nsd_tolerance_mm: float


@dataclass(frozen=True)
class LabelSet:
    """The structures of a data set; their order is that of the channels of a multi-channel file.

    Attributes:
        title: Description.
        structures: At least one.
        ignore_labels: Values of label maps that are background here.
        notes: What a reader of scores has to know about the set, such as what in it is not verified.
    """

    title: str
    structures: tuple[Structure, ...]
    ignore_labels: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Names of the structures, in order."""
        return [structure.name for structure in self.structures]


def shipped_label_sets() -> list[str]:
    """Return the names of the label sets that come with this package."""
    return sorted(path.stem for path in SHIPPED_DIR.glob("*.json"))


def load_label_set(labels: str | Path) -> LabelSet:
    """Read a label set.

    Args:
        labels: Name of a shipped set, or a JSON file in one of two forms: `{"title": ..., "ignore_labels": [255],
            "structures": [{"name": "liver", "label": 1, "nsd_tolerance_mm": 2.0}, ...]}`, where `label` may be a list
            or be left out, or a `dataset.json` whose `labels` names them (`{"1": "liver"}` or `{"liver": 1}`; the
            tolerance is 1 mm).

    Returns:
        The set.

    Raises:
        DatasetError: If there is no such set or file, or it breaks a rule.
    """
    path = SHIPPED_DIR / f"{labels}.json"
    if not path.is_file():
        path = Path(labels)
    if not path.is_file():
        found = f"none; shipped are {', '.join(shipped_label_sets())}"
        raise refusal(path, "must be a label set", found, "name a shipped set or a JSON file")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise refusal(path, "must be JSON", str(error), "correct it") from error
    if not isinstance(content, dict) or not (content.get("structures") or content.get("labels")):
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise refusal(path, "must have `structures` or `labels`", found or "nothing", "add them")
    if content.get("structures"):
        entries, ignored = content["structures"], content.get("ignore_labels", [])
    else:
        entries, ignored = _entries_of_dataset(content["labels"])
    structures = tuple(_structure(path, entry) for entry in entries)
    names = [structure.name for structure in structures]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise refusal(path, "must name each structure once", f"{', '.join(doubles)} twice", "rename one")
    title = str(content.get("title", content.get("name", path.stem)))
    return LabelSet(title, structures, tuple(map(int, ignored)), tuple(map(str, content.get("notes", ()))))


def _entries_of_dataset(labels: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the structures that a `dataset.json` names, and the values that it ignores."""
    pairs = [(str(v), int(k)) if str(k).isdigit() else (str(k), v) for k, v in labels.items()]
    ignored = [value for name, value in pairs if name == "ignore"]
    kept = [(name, value) for name, value in pairs if name != "ignore" and value != 0]
    return [{"name": name, "label": value} for name, value in kept], ignored


def _structure(path: Path, entry: Any) -> Structure:
    if not isinstance(entry, dict) or "name" not in entry or set(entry) - _KEYS:
        raise refusal(path, f"must give each structure {', '.join(sorted(_KEYS))}", repr(entry), "correct the entry")
    label = entry.get("label", [])
    values = label if isinstance(label, list) else [label]
    if not all(isinstance(value, int) and value > 0 for value in values):
        raise refusal(path, f"must give {entry['name']} labels above 0", repr(label), "correct the entry")
    tolerance_mm = entry.get("nsd_tolerance_mm", DEFAULT_TOLERANCE_MM)
    if not isinstance(tolerance_mm, int | float) or not 0 <= tolerance_mm < float("inf"):
        raise refusal(path, f"must give {entry['name']} a tolerance from 0 mm", repr(tolerance_mm), "correct the entry")
    return Structure(str(entry["name"]), tuple(values), float(tolerance_mm))
