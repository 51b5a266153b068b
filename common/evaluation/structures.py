"""What is scored: named structures, their values in label maps, and their tolerances, read from a file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.mask_values import MaskConvention
from ..data.problems import refusal

SHIPPED_DIR = Path(__file__).parent / "label_sets"
DEFAULT_TOLERANCE_MM = 1.0
_KEYS = {"name", "label", "gray_range", "nsd_tolerance_mm"}
MAX_GRAY = 255
MAX_LABEL = 65535


@dataclass(frozen=True)
class Structure:
    """One structure.

    Attributes:
        name: Name, in tables and as the name of its file where a case has one file per structure.
        labels: Values of a label map that belong to it; several for a region such as a whole tumor, none where the
            structures overlap and no label map can hold them.
        nsd_tolerance_mm: Distance in mm (pixels where images have no geometry) up to which a surface element counts as
            right.
        gray_range: Lowest and highest gray value that belong to it, where masks are pictures; then it has no labels.
    """

    name: str
    labels: tuple[int, ...]
    nsd_tolerance_mm: float
    gray_range: tuple[int, int] | None = None


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

    @property
    def is_gray(self) -> bool:
        """Whether masks are pictures whose gray values say what a pixel is."""
        return self.structures[0].gray_range is not None


def shipped_label_sets() -> list[str]:
    """Return the names of the label sets that come with this package."""
    return sorted(path.stem for path in SHIPPED_DIR.glob("*.json"))


def load_label_set(labels: str | Path) -> LabelSet:
    """Read a label set.

    Args:
        labels: Name of a shipped set, or a JSON file in one of two forms: `{"title": ..., "ignore_labels": [255],
            "structures": [{"name": "liver", "label": 1, "nsd_tolerance_mm": 2.0}, ...]}`, where `label` may be a list
            or be left out, or `"gray_range": [128, 255]` stands in its place in all structures; or a `dataset.json`
            whose `labels` names them (`{"1": "liver"}` or `{"liver": 1}`; the tolerance is 1 mm).

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
    except (ValueError, RecursionError) as error:
        raise refusal(path, "must be JSON", str(error), "correct it") from error
    if not isinstance(content, dict) or not (content.get("structures") or content.get("labels")):
        found = ", ".join(content) if isinstance(content, dict) else type(content).__name__
        raise refusal(path, "must have `structures` or `labels`", found or "nothing", "add them")
    if content.get("structures"):
        entries, ignored = content["structures"], content.get("ignore_labels", [])
    elif isinstance(content["labels"], dict):
        entries, ignored = _entries_of_dataset(content["labels"])
    else:
        raise refusal(path, "must name its labels in an object", repr(content["labels"])[:80], 'write {"1": "liver"}')
    notes = content.get("notes", [])
    for key, value in (("structures", entries), ("ignore_labels", ignored), ("notes", notes)):
        if not isinstance(value, list):
            raise refusal(path, f"must have a list as `{key}`", repr(value)[:80], "correct it")
    if not entries or not all(_is_label(value) for value in ignored):
        found = f"{len(entries)} structures, ignored {ignored!r}"[:80]
        raise refusal(path, "must have a structure, and whole numbers as labels to ignore", found, "correct it")
    structures = tuple(_structure(path, entry) for entry in entries)
    names = [structure.name for structure in structures]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise refusal(path, "must name each structure once", f"{', '.join(doubles)} twice", "rename one")
    if len({structure.gray_range is None for structure in structures}) > 1:
        found = ", ".join(structure.name for structure in structures if structure.gray_range is None)
        raise refusal(path, "must give all structures a gray_range or none", f"none for {found}", "add them")
    title = str(content.get("title", content.get("name", path.stem)))
    return LabelSet(title, structures, tuple(map(int, ignored)), tuple(map(str, notes)))


def label_set_of_names(label_names: Mapping[int, str], nsd_tolerance_mm: float, title: str = "labels") -> LabelSet:
    """Return the label set of a data set's label maps.

    Args:
        label_names: Name of each structure by its label, background not among them; see `load_label_names`.
        nsd_tolerance_mm: Tolerance of all structures in mm.
        title: Description.
    """
    structures = (Structure(name, (label,), float(nsd_tolerance_mm)) for label, name in label_names.items())
    return LabelSet(title, tuple(structures))


def label_set_of_pictures(
    names: Sequence[str], convention: MaskConvention, nsd_tolerance_px: float, title: str = "masks"
) -> LabelSet:
    """Return the label set of masks that are pictures.

    Args:
        names: Names of the structures, in the order of the convention.
        convention: What the gray values mean.
        nsd_tolerance_px: Tolerance of all structures in pixels.
        title: Description.
    """
    pairs = zip(names, convention.channel_ranges, strict=True)
    return LabelSet(title, tuple(Structure(name, (), float(nsd_tolerance_px), gray) for name, gray in pairs))


def _entries_of_dataset(labels: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the structures that a `dataset.json` names, and the values that it ignores."""
    pairs = [(str(v), int(k)) if str(k).isdecimal() else (str(k), v) for k, v in labels.items()]
    ignored = [value for name, value in pairs if name == "ignore"]
    kept = [(name, value) for name, value in pairs if name != "ignore" and value != 0]
    return [{"name": name, "label": value} for name, value in kept], ignored


def _structure(path: Path, entry: Any) -> Structure:
    if not isinstance(entry, dict) or "name" not in entry or set(entry) - _KEYS:
        raise refusal(path, f"must give each structure {', '.join(sorted(_KEYS))}", repr(entry), "correct the entry")
    label = entry.get("label", [])
    values = label if isinstance(label, list) else [label]
    if not all(_is_label(value) and value > 0 for value in values):
        raise refusal(path, f"must give {entry['name']} labels above 0", repr(label), "correct the entry")
    gray = entry.get("gray_range")
    if gray is not None and not (values == [] and isinstance(gray, list) and _is_range(gray)):
        rule = f"must give {entry['name']} a gray_range [lowest, highest] within 0 to {MAX_GRAY}, and no label then"
        raise refusal(path, rule, repr(gray), "correct the entry")
    tolerance_mm = entry.get("nsd_tolerance_mm", DEFAULT_TOLERANCE_MM)
    is_number = isinstance(tolerance_mm, int | float) and not isinstance(tolerance_mm, bool)
    if not (is_number and 0 <= tolerance_mm < float("inf")):
        raise refusal(path, f"must give {entry['name']} a tolerance from 0 mm", repr(tolerance_mm), "correct the entry")
    return Structure(
        str(entry["name"]), tuple(values), float(tolerance_mm), None if gray is None else (gray[0], gray[1])
    )


def _is_range(values: list[Any]) -> bool:
    whole = len(values) == 2 and all(isinstance(value, int) for value in values)
    return whole and 0 <= values[0] <= values[1] <= MAX_GRAY


def _is_label(value: Any) -> bool:
    """Tell whether a value of JSON is a whole number that a label map can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_LABEL
