"""Which files are images, and which label belongs to which."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ..problems import DatasetError, Problem, refusal
from ..readers import case_name, image_suffix, is_dicom_folder

__all__ = ["Source", "find_sources"]

# How labels are named beside their images, and nnU-Net's number of a channel.
LABEL_ENDING = re.compile(r"[_.-](?:labels?|masks?|seg|segmentation|gt|manual|annotation|groundtruth)$", re.IGNORECASE)
CHANNEL = re.compile(r"_(\d{4})$")
FIRST_CHANNEL = "_0000"


@dataclass
class Source:
    """An image, and its label where there is one.

    Attributes:
        name: Path below the folder of images without suffix, which no other image has.
        image: File, or folder of a DICOM series.
        label: The same, or None.
    """

    name: str
    image: Path
    label: Path | None = None


def find_sources(images: str | os.PathLike[str], labels: str | os.PathLike[str] | None = None) -> list[Source]:
    """Find every image in a folder and below it, and its label.

    A label has the name of its image, with or without an ending such as `_seg`, `_label`, `_mask` or `_gt`, in the same
    place below `labels` or anywhere below it where no other file has that name. Both may be one folder: then files
    with such an ending are labels if the file without it is there.

    Args:
        images: Folder of NIfTI, MHA, NRRD, PNG, JPEG or TIFF files or of DICOM series, at any depth; or one file.
        labels: The same; None where there are no labels.

    Returns:
        One source an image, sorted by name.

    Raises:
        DatasetError: If a folder does not exist or holds no image, images come as several channel files, two files
            have one name, or no label belongs to any image.
    """
    root = _existing(images, "images")
    named = _list(root)
    if not named:
        known = "NIfTI, MHA, NRRD, PNG, JPEG, TIFF or DICOM files"
        raise refusal(root, f"must hold {known}", "none", "set images to the folder that holds them")
    beside = {name for name in named if LABEL_ENDING.search(name) and LABEL_ENDING.sub("", name) in named}
    _refuse_channels(named)
    sources = [Source(name.removesuffix(FIRST_CHANNEL), path) for name, path in named.items() if name not in beside]
    if labels is None:
        return sorted(sources, key=lambda source: source.name)
    label_root = _existing(labels, "labels")
    candidates = _list(label_root)
    if label_root == root:
        candidates = {name: path for name, path in candidates.items() if name in beside}
    _pair(sources, candidates, label_root)
    return sorted(sources, key=lambda source: source.name)


def _existing(folder: str | os.PathLike[str], argument: str) -> Path:
    root = Path(os.path.abspath(Path(folder).expanduser()))  # noqa: PTH100 - resolve() would follow links
    if not root.exists():
        raise refusal(root, "must exist", "nothing", f"set {argument} to a folder of images")
    return root


def _list(root: Path) -> dict[str, Path]:
    """Return every volume, picture and DICOM series by its path below `root` without suffix."""
    if root.is_file():
        return {case_name(root): root}
    found: dict[str, list[Path]] = defaultdict(list)
    for name, subfolders, files in os.walk(root):
        folder = Path(name)
        subfolders[:] = sorted(s for s in subfolders if not s.startswith("."))
        volumes = [folder / f for f in sorted(files) if image_suffix(f) and not f.startswith(".")]
        if not volumes and is_dicom_folder(folder):
            volumes = [folder]
            subfolders.clear()
        for path in volumes:
            found[(path.parent / case_name(path)).relative_to(root).as_posix()].append(path)
    doubled = [
        Problem(paths[1], "must be the only file of its name in its folder", paths[0].name, "move one of them away")
        for paths in found.values()
        if len(paths) > 1
    ]
    if doubled:
        raise DatasetError(doubled)
    return {name: paths[0] for name, paths in found.items()}


def _refuse_channels(named: dict[str, Path]) -> None:
    """Refuse images whose channels are files of their own."""
    others = [path for name, path in named.items() if CHANNEL.search(name) and not name.endswith(FIRST_CHANNEL)]
    first = {name.removesuffix(FIRST_CHANNEL) for name in named if name.endswith(FIRST_CHANNEL)}
    of_first = [path for path in others if CHANNEL.sub("", case_name(path)) in {Path(name).name for name in first}]
    if of_first:
        rule, found = "must be one file an image", f"{len(of_first)} files of further channels of nnU-Net"
        remedy = 'write dataset.json yourself, with "image": ["a_0000.nii.gz", "a_0001.nii.gz"]'
        raise refusal(of_first[0], rule, found, remedy)


def _pair(sources: list[Source], candidates: dict[str, Path], root: Path) -> None:
    """Give every source its label."""
    by_path = {_bare(name): path for name, path in candidates.items()}
    by_name: dict[str, list[Path]] = defaultdict(list)
    for name, path in candidates.items():
        by_name[Path(_bare(name)).name].append(path)
    for source in sources:
        same_name = by_name.get(Path(source.name).name, [])
        source.label = by_path.get(source.name) or (same_name[0] if len(same_name) == 1 else None)
    if not any(source.label for source in sources):
        found = ", ".join(path.name for path in list(candidates.values())[:3]) or "no files"
        rule = f"must hold labels named as the images ({sources[0].image.name}, or with an ending such as _seg)"
        raise refusal(root, rule, found, "rename them, or leave labels out")


def _bare(name: str) -> str:
    return LABEL_ENDING.sub("", name).removesuffix(FIRST_CHANNEL)
